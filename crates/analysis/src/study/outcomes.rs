//! What is measured of the weights that a run ends with, beside its own validation: answers to fixed items, and where
//! it forgets the picture.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use data::toy::ToySpec;
use model_qwen2vl::{Kernels, QwenVl};
use reward::Reward;
use rl::TrainError;
use rl::experience::grade;
use rl::image_cache::ImageCache;
use rl::prompts::SetAside;
use rl::rollout::{Job, RolloutConfig, generate, never_sampled};
use rl::sampler::Sampling;
use serde::{Deserialize, Serialize};

use super::StudyError;
use crate::forgetting::figures::DECILES;
use crate::forgetting::{self, Forgetting, PartErrors};
use crate::pilot::Subject;

/// What to measure: `[outcomes]` of a rows file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomesSpec {
    /// The data that all runs are asked, a spec as of `data.val_files`.
    pub data: String,
    /// The same rows with their pictures exchanged half-way; empty: none.
    #[serde(default)]
    pub exchanged: String,
    /// Rows that are answered, from the first on.
    pub items: usize,
    /// Rows whose worked responses are read, from the first on.
    pub worked: usize,
    /// Length limit of an answer, in tokens.
    pub max_new_tokens: usize,
}

/// Answers to the items, and forgetting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Rows that were answered.
    pub items: usize,
    /// Which of them were answered right: four a digit, hexadecimal, the first item the highest bit.
    pub right: String,
    /// Mean length of an answer, in tokens.
    pub tokens: f64,
    /// Fresh digits of the answers as far as these have the form of a worked response, by tenth of the answer; `wrong`
    /// ones are not what the picture shows. Nothing where the data says nothing of digits.
    pub answered: Option<[PartErrors; DECILES]>,
    /// Teacher-forced figures; none where no row says where its parts are.
    pub forgetting: Option<Forgetting>,
}

impl Outcomes {
    /// 1 for each item that was answered right, else 0.
    pub fn each(&self) -> Vec<f64> {
        let bits = self.right.chars().flat_map(|digit| {
            let nibble = digit.to_digit(16).unwrap_or(0);
            (0..4).rev().map(move |bit| f64::from(nibble >> bit & 1))
        });
        bits.take(self.items).collect()
    }

    /// Share of the fresh digits in the late half of the answers that are not what the picture shows; none where no
    /// answer has the form of a worked response.
    pub(super) fn answered_late(&self) -> Option<f64> {
        PartErrors::sum(&self.answered?[DECILES / 2..]).rate()
    }

    /// Share of the items that were answered right.
    pub fn accuracy(&self) -> f64 {
        crate::stats::mean(&self.each())
    }
}

/// Bits as hexadecimal digits, the first the highest; the last digit is filled up with zeros.
fn packed(right: &[bool]) -> String {
    let digit = |four: &[bool]| (0..4).fold(0, |sum, k| 2 * sum + u32::from(four.get(k) == Some(&true)));
    right.chunks(4).filter_map(|four| char::from_digit(digit(four), 16)).collect()
}

/// A run's model, opened for its outcomes.
#[derive(Debug)]
pub struct OutcomesJob {
    spec: OutcomesSpec,
    folder: PathBuf,
}

/// In a run folder: what is to be measured, and what was.
pub(crate) const JOB: &str = "outcomes_job.json";
pub(crate) const FOUND: &str = "outcomes.json";

impl OutcomesSpec {
    /// Leaves word in a run's folder of what is to be measured.
    pub(crate) fn order(&self, folder: &Path) -> Result<(), StudyError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        super::result::write(&folder.join(JOB), &text)
    }
}

/// Rows answered together.
const ANSWERED_AT_ONCE: usize = 64;

impl OutcomesJob {
    /// What was ordered of the run in `folder`; none if nothing was.
    ///
    /// # Errors
    /// An order that does not read.
    pub fn ordered(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(JOB);
        let text = match guard::file::read_text(&path, guard::limits().record_bytes) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(TrainError::Input(format!("{}: {e}", path.display()))),
        };
        let fail = |e: serde_json::Error| TrainError::Input(format!("{}: {e}", path.display()));
        Ok(Some(Self { spec: serde_json::from_str(&text).map_err(fail)?, folder: folder.into() }))
    }

    /// Measures the newest checkpoint of the run and writes `outcomes.json` into its folder.
    ///
    /// # Errors
    /// A checkpoint or data that cannot be used; an interrupt.
    pub fn run<B: Kernels>(
        &self,
        device: &B::Device,
        dtype: DType,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
    ) -> Result<(), TrainError> {
        let subject = Subject::open(&self.folder, &self.spec.data, &[])?;
        let model = subject.load::<B>(dtype, device)?;
        let mut found = self.spec.answers(&model, &subject, interrupt, note)?;
        let rows = forgetting::read(&model, &subject, self.spec.worked, interrupt, note)?;
        let exchanged = match self.spec.exchanged.is_empty() {
            true => vec![],
            false => {
                let other = Subject::open(&self.folder, &self.spec.exchanged, &[])?;
                forgetting::read(&model, &other, self.spec.worked, interrupt, note)?
            }
        };
        found.forgetting = Forgetting::of(&rows, &exchanged);
        let text = serde_json::to_string(&found).unwrap_or_default();
        super::result::write(&self.folder.join(FOUND), &text).map_err(|e| TrainError::Input(e.to_string()))
    }
}

impl OutcomesSpec {
    /// Greedy answers to the items.
    fn answers<B: Kernels>(
        &self,
        model: &QwenVl<B>,
        subject: &Subject,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
    ) -> Result<Outcomes, TrainError> {
        let prompts = &subject.prompts;
        let toy = self.data.strip_prefix("toy:").and_then(|text| ToySpec::parse(text).ok());
        let config = RolloutConfig {
            n: 1,
            sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 },
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: 0,
            eos: subject.eos.clone(),
            suppress: never_sampled(model.config.vision_token_ids(), prompts.processor(), model.config.text.vocab_size),
            focus: None,
            max_batch_rows: ANSWERED_AT_ONCE,
            prefill_token_budget: 16_384,
        };
        let mut reward = Reward::new(&subject.config.to_reward_config())?;
        let (mut right, mut tokens) = (Vec::new(), 0);
        let mut digits: Option<[PartErrors; DECILES]> = None;
        let rows: Vec<usize> = (0..self.items.min(prompts.len())).collect();
        for some in rows.chunks(ANSWERED_AT_ONCE) {
            let items = prompts.load_many(some, model, &mut SetAside::default(), note)?;
            let jobs: Vec<Job> = items.iter().map(|item| Job { prompt: &item.prompt, key: item.row as u64 }).collect();
            let images = &mut ImageCache::default();
            let (responses, _) = generate(model, &jobs, &config, images, interrupt, |_, _, _| {})?;
            for group in grade(items, responses, prompts.processor(), &mut reward)? {
                for answer in &group.trajectories {
                    right.push(answer.score.accuracy >= 0.5);
                    tokens += answer.ids.len();
                    let reading = toy.as_ref().and_then(|toy| toy.problem(group.item.row).reading);
                    for digit in reading.iter().flat_map(|r| r.locate(&answer.text)).filter(|digit| digit.fresh) {
                        let decile = digit.at * DECILES / answer.text.len();
                        digits.get_or_insert_default()[decile].count(digit.written == digit.shown);
                    }
                }
            }
        }
        Ok(Outcomes {
            items: right.len(),
            tokens: tokens as f64 / right.len().max(1) as f64,
            right: packed(&right),
            answered: digits,
            forgetting: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_packed_and_unpacked() {
        let right = [true, false, true, true, false, false, true];
        let text = packed(&right);
        assert_eq!(text, "b2");
        let found = Outcomes { items: 7, right: text, tokens: 0.0, answered: None, forgetting: None };
        assert_eq!(found.each(), right.map(f64::from));
        assert!((found.accuracy() - 4.0 / 7.0).abs() < 1e-12);
    }
}
