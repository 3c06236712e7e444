//! Advantage shaping: one advantage per response (or per token) and the streams of a batch to one advantage per token.
//!
//! | `shaping` | file | streams | idea |
//! |---|---|---|---|
//! | `none` | `none` | - | every token gets its response's advantage |
//! | `vgpo` | `vgpo` | visual focus | tokens and responses that look at the picture more, late ones compensated |
//! | `vppo` | `vppo` | perturbed log-probs | filter tokens, re-weight responses by their dependency on the picture |
//! | `pgpo` | [`pgpo`] | token visual dependency | sum-preserving weights, from the divergence to text alone |
//! | `pepo` | `pepo` | visual focus, entropy | softmax of the hidden-state similarity, gated by entropy, faded in |
//! | `srpo` | `srpo` | perturbed log-probs, spans, log-probs without the perception span | a weight for each role |
//! | `entropy` | `entropy` | entropy | a capped entropy term on each advantage, with and without a picture |
//!
//! A shaping *declares* the streams it needs; the trainer computes what is declared and knows no shaping by name. (PAPO
//! adds terms to the loss instead: `crate::loss::papo`.) Streams are ragged host lists, one per response, `[T_i]`.

pub(crate) mod dependency;
pub(crate) mod entropy;
pub(crate) mod none;
pub(crate) mod pepo;
pub mod pgpo;
pub(crate) mod srpo;
pub(crate) mod stream;
pub(crate) mod vgpo;
pub(crate) mod vppo;

#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod tests;

pub use dependency::DependencyKind;
pub use entropy::{EntropyAdvantage, EntropyConfig};
pub use none::NoShaping;
pub use pepo::{Pepo, PepoConfig};
pub use pgpo::{Pgpo, PgpoConfig};
pub use srpo::{Srpo, SrpoConfig};
pub use stream::{Draw, Stream, Streams};
pub use vgpo::{Vgpo, VgpoSettings};
pub use vppo::{Vppo, VppoConfig};

use crate::advantage::Advantages;
use crate::config::checks::Checks;
use crate::config::section::Settings;
use burn::tensor::backend::Backend;

/// Turns advantages and streams into token advantages.
///
/// ```
/// use burn::tensor::backend::Backend;
/// use rl::advantage::Advantages;
/// use rl::shaping::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Streams, Training};
///
/// /// Only the last token of a response learns.
/// struct LastToken;
///
/// impl<B: Backend> AdvantageShaping<B> for LastToken {
///     fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
///         let mut advantages = batch.plain();
///         for response in &mut advantages {
///             if let Some((_, others)) = response.split_last_mut() {
///                 others.fill(0.0);
///             }
///         }
///         Ok(Shaped { advantages, ..Shaped::default() })
///     }
/// }
/// let batch = ShapingBatch {
///     advantages: &Advantages::PerResponse(vec![1.0, -1.0]),
///     lengths: &[3, 2],
///     groups: &[0, 0],
///     has_image: &[true, true],
///     names: &[7, 8],
///     streams: &Streams::default(),
///     training: Training { step: 0, max_steps: 1 },
/// };
/// let shaped = AdvantageShaping::<burn_flex::Flex>::shape(&LastToken, &batch, &Default::default())?;
/// assert_eq!(shaped.advantages, [vec![0.0, 0.0, 1.0], vec![0.0, -1.0]]);
/// # Ok::<(), ShapingError>(())
/// ```
pub trait AdvantageShaping<B: Backend>: Send + Sync {
    /// The streams that [`shape`](Self::shape) reads; none unless a shaping says otherwise.
    fn streams(&self) -> Vec<Stream> {
        Vec::new()
    }

    /// Shapes a batch. Groups may be spread over it in any order, but must be whole.
    ///
    /// # Errors
    /// [`ShapingError`] when a declared stream is absent or does not fit the batch.
    fn shape(&self, batch: &ShapingBatch, device: &B::Device) -> Result<Shaped, ShapingError>;
}

/// What a shaping reads; every list has one entry per response.
#[derive(Debug, Clone, Copy)]
pub struct ShapingBatch<'a> {
    /// The estimator's result.
    pub advantages: &'a Advantages,
    /// Tokens of each response.
    pub lengths: &'a [usize],
    /// Group id of each response; equal ids share a prompt.
    pub groups: &'a [usize],
    /// Whether the prompt of each response has an image. Without one a response keeps its plain advantage.
    pub has_image: &'a [bool],
    /// What each response is known by, whatever batch it is in and whichever rank asks: for what a shaping draws at
    /// random.
    pub names: &'a [u64],
    /// The streams that were declared.
    pub streams: &'a Streams,
    /// Where the stage stands, for what changes in the course of training.
    pub training: Training,
}

/// Where a stage stands. A resumed run finds itself where the stopped one was: `step` is in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Training {
    /// Training steps of the stage that are done.
    pub step: u64,
    /// Those that it will have, 1 or more.
    pub max_steps: u64,
}

impl Training {
    /// `min(1, step / max_steps)`: 0 in the first step, `(max_steps - 1) / max_steps` in the last.
    pub fn share(&self) -> f64 {
        (self.step as f64 / self.max_steps.max(1) as f64).min(1.0)
    }
}

impl ShapingBatch<'_> {
    /// Checks that every list has one entry per response, and token advantages one per token.
    pub(crate) fn check(&self) -> Result<(), ShapingError> {
        let expected = self.lengths.len();
        for (what, found) in [
            ("advantages", self.advantages.len()),
            ("groups", self.groups.len()),
            ("has_image", self.has_image.len()),
            ("names", self.names.len()),
        ] {
            if found != expected {
                return Err(ShapingError::Responses { what, found, expected });
            }
        }
        match self.advantages {
            Advantages::PerToken(rows) => stream::check("advantages", rows, self.lengths),
            Advantages::PerResponse(_) => Ok(()),
        }
    }

    /// The advantages of each token before shaping, `[T_i]` for response `i`.
    pub fn plain(&self) -> Vec<Vec<f32>> {
        self.lengths.iter().enumerate().map(|(response, &length)| self.advantages.tokens(response, length)).collect()
    }
}

/// The result of a shaping.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shaped {
    /// `[T_i]` advantage of each token.
    pub advantages: Vec<Vec<f32>>,
    /// `[T_i]` whether a token contributes to the policy loss ([`crate::loss::LossInputs::policy_mask`]); absent when
    /// all do. What is filtered out still counts in the denominators.
    pub policy_mask: Option<Vec<Vec<bool>>>,
    /// What the shaping did, for the log.
    pub metrics: Vec<(&'static str, f64)>,
}

impl Shaped {
    /// The policy mask as 0 and 1, ready for `crate::loss::padding::pad`.
    pub fn policy_mask_values(&self) -> Option<Vec<Vec<f32>>> {
        let rows = self.policy_mask.as_ref()?;
        let value = |&kept: &bool| if kept { 1.0 } else { 0.0 };
        Some(rows.iter().map(|row| row.iter().map(value).collect()).collect())
    }
}

/// What can be wrong with a shaping.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShapingError {
    /// A setting is outside its range.
    #[error("algorithm.{key} = {value}: {reason}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it is refused and what to write instead.
        reason: &'static str,
    },
    /// A setting that means nothing.
    #[error("{0}")]
    Settings(String),
    /// A stream that was declared is not there.
    #[error("shaping: the batch carries no {stream}; the shaping declares that it needs it")]
    Missing {
        /// Name of the stream.
        stream: &'static str,
    },
    /// A list does not have one entry per response.
    #[error("shaping: {what} has {found} entries for {expected} responses")]
    Responses {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Number of responses.
        expected: usize,
    },
    /// A stream does not have one entry per token.
    #[error("shaping: {what} of response {response} has {found} entries for {expected} tokens")]
    Tokens {
        /// Which stream.
        what: &'static str,
        /// Index of the response.
        response: usize,
        /// Its length.
        found: usize,
        /// Tokens of the response.
        expected: usize,
    },
    /// VGPO's own.
    #[error(transparent)]
    Vgpo(#[from] ::vgpo::VgpoError),
    /// The device could not be read.
    #[error("shaping: reading from the device failed: {0}")]
    Device(String),
}

/// Refuses settings that no configuration file could hold.
///
/// # Errors
/// [`ShapingError::Settings`].
pub(crate) fn usable(name: &str, settings: &impl Settings) -> Result<(), ShapingError> {
    let path = format!("algorithm.{name}");
    let mut checks = Checks::default();
    checks.in_section(&path, |checks| settings.validate(checks));
    settings.check(&path, &mut checks);
    match checks.problems().first() {
        None => Ok(()),
        Some(problem) => Err(ShapingError::Settings(problem.to_string())),
    }
}
