//! One graded answer: one JSON line.

use std::collections::BTreeMap;

use rl::rollout::FinishReason;
use serde::{Deserialize, Serialize};

/// One answer to one row, graded.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Name of the benchmark.
    pub benchmark: String,
    /// Row in its file, from 0.
    pub row: usize,
    /// The row's id, or its number where ids are missing or repeated.
    pub id: String,
    /// Which of the answers to this row, from 0.
    pub sample: usize,
    /// The problem as it was asked, the format prompt left out.
    pub problem: String,
    /// The truth.
    pub answer: String,
    /// What the model wrote, special tokens left out.
    pub response: String,
    /// The answer found in it.
    pub extracted: Option<String>,
    /// 1 when it is right, else 0.
    pub accuracy: f64,
    /// Tokens of the response, its end included; not known for answers made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// Why it ended; not known for answers made elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<FinishReason>,
    /// The columns that the benchmark groups and grades by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
}
