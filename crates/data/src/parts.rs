//! Where a worked response takes something from the picture: the column `parts` of a row.
//!
//! Forgetting shows where a response has to look once more, and only there: a digit that is written for the first time
//! can come from the picture alone, one that was written before can be copied. So a row may say of its worked response
//! (`data.solution_key`) at which bytes such parts begin, as JSON: `[{"at": 14, "fresh": true}]`. Of a row whose
//! picture was exchanged for another one half-way, `was` is what the first picture would have had there.

use serde::{Deserialize, Serialize};

/// The name of the column.
pub const COLUMN: &str = "parts";

/// A part of a worked response that stands in the picture, too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolutionPart {
    /// Byte of the response at which it begins; its first token is what counts.
    pub at: usize,
    /// The response does not have it yet.
    pub fresh: bool,
    /// What would stand there by the picture that was exchanged; nothing where the two do not differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
}

/// The column of a row.
pub(crate) fn to_text(parts: &[SolutionPart]) -> String {
    serde_json::to_string(parts).unwrap_or_default()
}

/// The parts that a row's column names, in order.
///
/// # Errors
/// Text that is not such a list; parts that are out of order or outside of a response of `length` bytes.
pub fn parse(text: &str, length: usize) -> Result<Vec<SolutionPart>, String> {
    let parts: Vec<SolutionPart> = serde_json::from_str(text).map_err(|e| format!("column {COLUMN}: {e}"))?;
    let ascends = parts.windows(2).all(|pair| pair[0].at < pair[1].at);
    match ascends && parts.last().is_none_or(|part| part.at < length) {
        true => Ok(parts),
        false => Err(format!("column {COLUMN}: parts must ascend and lie in the response, which has {length} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let parts = [
            SolutionPart { at: 3, fresh: true, was: None },
            SolutionPart { at: 9, fresh: false, was: Some("7".into()) },
        ];
        assert_eq!(to_text(&parts), r#"[{"at":3,"fresh":true},{"at":9,"fresh":false,"was":"7"}]"#);
        assert_eq!(parse(&to_text(&parts), 10).unwrap(), parts);
        for (text, length) in [(to_text(&parts), 9), (r#"[{"at":3,"fresh":true},{"at":3,"fresh":true}]"#.into(), 9)] {
            assert!(parse(&text, length).unwrap_err().contains("must ascend"), "{text}");
        }
        assert!(parse(r#"[{"at":3,"new":true}]"#, 9).unwrap_err().contains("column parts"));
    }
}
