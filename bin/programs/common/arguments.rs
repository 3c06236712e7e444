//! Values on the command line that several programs take, and what they may be.

use super::Failure;

/// The parser of a count on the command line, within a range that its error names.
pub fn within<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    range: std::ops::RangeInclusive<u64>,
) -> clap::builder::RangedU64ValueParser<T> {
    clap::builder::RangedU64ValueParser::new().range(range)
}

/// Ranges of what several programs take. None of them bounds what a machine can do; they keep every product of sizes within 64 bits.
pub mod ranges {
    use std::ops::RangeInclusive;

    /// Tokens of a prompt or of a response.
    pub const TOKENS: RangeInclusive<u64> = 0..=1 << 20;
    /// Responses to a prompt, or at a time.
    pub const RESPONSES: RangeInclusive<u64> = 0..=1 << 16;
    /// Rows of data.
    pub const ROWS: RangeInclusive<u64> = 0..=1 << 40;
    /// Pixels of a resized picture; 0 is no limit.
    pub const PIXELS: RangeInclusive<u64> = 0..=1 << 32;
}

/// Below this the scaled logits leave the range of f32.
const MIN_TEMPERATURE: f64 = 1e-5;

/// Refuses a temperature with which nothing can be drawn.
///
/// # Errors
/// Names the option and what it may be.
pub fn check_temperature(temperature: f64) -> Result<(), Failure> {
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
pub fn check_top_p(top_p: f64) -> Result<(), Failure> {
    match top_p > 0.0 && top_p <= 1.0 {
        true => Ok(()),
        false => Err(Failure::input(format!("--top-p {top_p} is not above 0 and at most 1"))),
    }
}
