//! `visual_rl_grade._core`: the graders of the crate `answer`, for the Python beside this folder.

mod batch;
mod text;

use std::num::NonZero;
use std::time::Duration;

use answer::{OverlongConfig, Request, RewardConfig, RewardType, Score, Scorer};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use text::{items, text_of};

/// How long Ctrl-C may have to wait, but for the grading that is going on.
const ROUND: Duration = Duration::from_millis(50);
/// So many texts, or bytes of them, are copied out of Python at once.
const CHUNK_ITEMS: usize = 8192;
const CHUNK_BYTES: usize = 1 << 24;

/// overall, accuracy, format, extracted, extra.
type Grades<'py> = (f64, f64, f64, Option<String>, Bound<'py, PyDict>);

/// One response as it is graded.
struct Pair {
    response: String,
    truth: String,
    length: usize,
}

/// A rule with its options, checked.
#[pyclass(name = "Scorer", module = "visual_rl_grade._core", frozen)]
struct PyScorer(Scorer);

#[pymethods]
impl PyScorer {
    #[new]
    #[pyo3(signature = (reward_type="math", *, grader=None, accuracy_weight=None, format_weight=None,
        numeric_tolerance=None, max_response_length=None, overlong_buffer_length=None, overlong_penalty_factor=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        reward_type: &str,
        grader: Option<&str>,
        accuracy_weight: Option<f64>,
        format_weight: Option<f64>,
        numeric_tolerance: Option<f64>,
        max_response_length: Option<usize>,
        overlong_buffer_length: Option<usize>,
        overlong_penalty_factor: Option<f64>,
    ) -> PyResult<Self> {
        let default = RewardConfig::default();
        let rule: RewardType = reward_type.parse().map_err(PyValueError::new_err)?;
        let punished = max_response_length.is_some();
        for (given, means_something, option) in [
            (grader.is_some(), rule.has_grader(), "grader"),
            (accuracy_weight.is_some(), rule.has_weights(), "accuracy_weight"),
            (format_weight.is_some(), rule.has_weights(), "format_weight"),
            (numeric_tolerance.is_some(), rule.has_tolerance(), "numeric_tolerance"),
        ] {
            if given && !means_something {
                let problem = format!("{option} means nothing to the rule `{rule}`; leave it out or choose another");
                return Err(PyValueError::new_err(problem));
            }
        }
        if punished != overlong_buffer_length.is_some() || (overlong_penalty_factor.is_some() && !punished) {
            let problem = "the overlong penalty takes both max_response_length and overlong_buffer_length, in tokens";
            return Err(PyValueError::new_err(problem));
        }
        let overlong = OverlongConfig {
            max_response_length: max_response_length.unwrap_or(0),
            overlong_buffer_length: overlong_buffer_length.unwrap_or(0),
            overlong_penalty_factor: overlong_penalty_factor.unwrap_or(default.overlong.overlong_penalty_factor),
        };
        let config = RewardConfig {
            reward_type: rule,
            grader: grader.map_or(Ok(default.grader), str::parse).map_err(PyValueError::new_err)?,
            accuracy_weight: accuracy_weight.unwrap_or(default.accuracy_weight),
            format_weight: format_weight.unwrap_or(default.format_weight),
            numeric_tolerance: numeric_tolerance.unwrap_or(default.numeric_tolerance),
            overlong,
            ..default
        };
        let scorer = Scorer::new(&config).map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(Self(scorer))
    }

    /// Whether lengths in tokens are needed.
    #[getter]
    fn punishes_length(&self) -> bool {
        self.0.config().overlong.max_response_length > 0
    }

    /// Grades one response, or an answer that has been extracted already.
    fn grade<'py>(
        &self,
        response: &Bound<'py, PyAny>,
        ground_truth: &Bound<'py, PyAny>,
        response_length: Option<usize>,
        given: bool,
    ) -> PyResult<Grades<'py>> {
        let py = response.py();
        let name = if given { "given" } else { "response" };
        let response = text_of(response, || name.to_owned())?;
        let truth = text_of(ground_truth, || "ground_truth".to_owned())?;
        let length = self.length(response_length)?;
        let pair = [Pair { response, truth, length }];
        let score = py.detach(|| batch::some_of(1, 1, ROUND, |_| self.score(&pair[0], given))).pop();
        let score = score.ok_or_else(|| PyRuntimeError::new_err("nothing was graded"))?;
        grades(py, score.map_err(|panic| broken(0, &panic))?)
    }

    /// Grades many, on `threads` threads; `None` takes all that the process may use.
    fn grade_batch<'py>(
        &self,
        responses: &Bound<'py, PyAny>,
        ground_truths: &Bound<'py, PyAny>,
        response_lengths: Option<Vec<usize>>,
        given: bool,
        threads: Option<usize>,
    ) -> PyResult<Vec<Grades<'py>>> {
        let py = responses.py();
        let threads = match threads {
            Some(0) => return Err(PyValueError::new_err("threads is 0; use 1 or more, or None for all")),
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, NonZero::get),
        };
        let name = if given { "given" } else { "responses" };
        let (responses, truths) = (items(responses, name)?, items(ground_truths, "ground_truths")?);
        let count = responses.len();
        let lengths = response_lengths.as_deref();
        for (other, name) in [(Some(truths.len()), "ground_truths"), (lengths.map(<[usize]>::len), "response_lengths")]
        {
            if let Some(other) = other.filter(|other| *other != count) {
                return Err(PyValueError::new_err(format!(
                    "{count} responses and {other} {name}: one is needed for each"
                )));
            }
        }
        let mut found = Vec::with_capacity(count);
        while found.len() < count {
            let (from, mut chunk, mut bytes) = (found.len(), Vec::new(), 0);
            while from + chunk.len() < count && chunk.len() < CHUNK_ITEMS && bytes < CHUNK_BYTES {
                let at = from + chunk.len();
                let response = text_of(&responses[at], || format!("{name}[{at}]"))?;
                let truth = text_of(&truths[at], || format!("ground_truths[{at}]"))?;
                bytes += response.len() + truth.len();
                chunk.push(Pair { response, truth, length: self.length(lengths.map(|lengths| lengths[at]))? });
            }
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let one = |i: usize| self.score(&rest[i], given);
                for score in py.detach(|| batch::some_of(rest.len(), threads, ROUND, one)) {
                    let score = score.map_err(|panic| broken(found.len(), &panic))?;
                    found.push(grades(py, score)?);
                }
                rest = &chunk[found.len() - from..];
                py.check_signals()?;
            }
        }
        Ok(found)
    }
}

impl PyScorer {
    fn length(&self, given: Option<usize>) -> PyResult<usize> {
        match given {
            None if self.punishes_length() => {
                Err(PyTypeError::new_err("the overlong penalty needs the length of each response, in tokens"))
            }
            given => Ok(given.unwrap_or(0)),
        }
    }

    fn score(&self, pair: &Pair, given: bool) -> Score {
        let request = Request {
            response: &pair.response,
            ground_truth: &pair.truth,
            response_length: pair.length,
            id: "",
            row: None,
        };
        if given { self.0.score_given(&request) } else { self.0.score_one(&request) }
    }
}

fn grades(py: Python<'_>, score: Score) -> PyResult<Grades<'_>> {
    let extra = PyDict::new(py);
    for (name, value) in score.extra {
        extra.set_item(name, value)?;
    }
    Ok((score.overall, score.accuracy, score.format, score.extracted, extra))
}

/// A panic of the graders: a fault of theirs, since every text has a grade.
fn broken(at: usize, panic: &str) -> PyErr {
    PyRuntimeError::new_err(format!("the grader broke on response {at}, which should be reported: {panic}"))
}

/// The content of the last `\boxed{...}`, or None.
#[pyfunction]
fn extract_boxed(text: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    Ok(answer::extract_boxed(&text_of(text, || "text".to_owned())?).map(str::to_owned))
}

/// The content of the last `<answer>...</answer>`, or None.
#[pyfunction]
fn extract_answer_tag(text: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    Ok(answer::extract::extract_answer_tag(&text_of(text, || "text".to_owned())?).map(str::to_owned))
}

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::{PyScorer, extract_answer_tag, extract_boxed};
}
