//! Values on the command line that several programs take, and what they may be.

use super::Failure;

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
