//! Values on the command line that several programs take, and what they may be.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use rl::config::Choice;

use super::Failure;

/// The parser of a word that the configuration knows, too; help and completions list all of them.
pub fn choice<C: Choice + Send + Sync>() -> impl TypedValueParser<Value = C> {
    cli::one_of(C::ALL.iter().map(|choice| (choice.as_str(), choice.about(), *choice)))
}

/// The parser of its name as it is written, for what a file may say, too; [`chosen`] reads it.
pub(crate) fn words<C: Choice>() -> PossibleValuesParser {
    PossibleValuesParser::new(C::ALL.iter().map(|choice| choice.as_str()))
}

/// The value of that name.
///
/// # Errors
/// A name that is none, which `key` has in a file.
pub(crate) fn chosen<C: Choice>(key: &str, name: &str) -> Result<C, Failure> {
    let names: Vec<&str> = C::ALL.iter().map(|choice| choice.as_str()).collect();
    let found = C::ALL.iter().copied().find(|choice| choice.as_str() == name);
    found.ok_or_else(|| Failure::input(format!("there is no {key} {name:?}; there are {}", names.join(", "))))
}

/// Below this the scaled logits leave the range of f32.
const MIN_TEMPERATURE: f64 = 1e-5;

/// Refuses a temperature with which nothing can be drawn.
///
/// # Errors
/// Names the option and what it may be.
pub(crate) fn check_temperature(temperature: f64) -> Result<(), Failure> {
    match temperature == 0.0 || temperature.is_finite() && temperature >= MIN_TEMPERATURE {
        true => Ok(()),
        false => Err(Failure::input(format!(
            "--temperature {temperature} is neither 0 (greedy) nor a number from {MIN_TEMPERATURE} on"
        ))),
    }
}

/// Refuses a share of probability that is none.
///
/// # Errors
/// Names the option and what it may be.
pub(crate) fn check_top_p(top_p: f64) -> Result<(), Failure> {
    match top_p > 0.0 && top_p <= 1.0 {
        true => Ok(()),
        false => Err(Failure::input(format!("--top-p {top_p} is not above 0 and at most 1"))),
    }
}

/// A number above 0 on the command line.
///
/// # Errors
/// A text that is none.
pub(crate) fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| format!("{text:?} is no number above 0"))
}
