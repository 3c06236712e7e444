//! Whether the rows of a data set can be trained on: pictures, placeholders, and each answer graded against itself.

use answer::{Request, Scorer};
use data::{BadRow, Sample, image, prompt};

/// The first thing wrong with a row. Of pictures with `headers_only` no pixel is decoded.
///
/// # Errors
/// The row with the reason.
pub fn check(sample: &Sample, scorer: &Scorer, headers_only: bool) -> Result<(), BadRow> {
    let bad = |reason: String| BadRow { id: sample.id.clone(), index: sample.index, reason };
    prompt::check_row(sample)?;
    for (k, picture) in sample.images.iter().enumerate() {
        let readable = match headers_only {
            true => picture.header_size().map(|_| ()),
            false => picture.load().and_then(|bytes| image::decode(&bytes).map(|_| ())),
        };
        readable.map_err(|e| bad(format!("image {}: {e}", k + 1)))?;
    }
    let answer = sample.answer.trim();
    if answer.is_empty() {
        return Ok(());
    }
    let grade = |response: &str| {
        let request = Request { response, ground_truth: &sample.answer, response_length: 0, id: &sample.id, row: None };
        scorer.score_one(&request).accuracy == 1.0
    };
    // The way a right response takes: through the box and the grader.
    if !grade(&format!("<think></think>\\boxed{{{answer}}}")) {
        return Err(bad(format!("the answer {answer:?} is graded wrong against itself")));
    }
    match &sample.solution {
        Some(solution) if solution.contains("\\boxed{") && !grade(solution) => {
            Err(bad(format!("the solution is graded wrong against the answer {answer:?}")))
        }
        _ => Ok(()),
    }
}
