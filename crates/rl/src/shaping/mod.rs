//! Advantage shaping: one advantage a response (or a token) and the streams of a batch to one advantage a token.
//!
//! | `shaping` | file | streams | idea |
//! |---|---|---|---|
//! | `none` | [`none`] | - | every token gets its response's advantage |
//! | `vgpo` | [`vgpo`] | visual focus | tokens and responses that look at the picture more, late ones compensated |
//! | `vppo` | [`vppo`] | perturbed log-probs | filter tokens, re-weight responses by their dependency on the picture |
//! | `pgpo` | [`pgpo`] | token visual dependency | sum-preserving weights, from the divergence to text alone |
//! | `pepo` | [`pepo`] | visual focus, entropy | softmax of the hidden-state similarity, gated by entropy, faded in |
//! | `srpo` | [`srpo`] | perturbed log-probs, spans, log-probs without the perception span | a weight for each role |
//! | `entropy` | [`entropy`] | entropy | a capped entropy term on each advantage, with and without a picture |
//!
//! A shaping *declares* the streams it needs; the trainer computes what is declared and knows no shaping by name. (PAPO adds
//! terms to the loss instead: [`crate::loss::papo`].) Streams are ragged host lists, one a response, `[T_i]`.

pub mod dependency;
pub mod entropy;
pub mod none;
pub mod pepo;
pub mod pgpo;
pub mod srpo;
pub mod stream;
pub mod vgpo;
pub mod vppo;

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
pub use vgpo::Vgpo;
pub use vppo::{Vppo, VppoConfig};

use crate::advantage::Advantages;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// Turns advantages and streams into token advantages.
pub trait AdvantageShaping<B: Backend>: Send + Sync {
    /// The name in a configuration.
    fn name(&self) -> &'static str;

    /// The streams that [`shape`](Self::shape) reads.
    fn streams(&self) -> Vec<Stream>;

    /// Shapes a batch. Groups may be spread over it in any order, but must be whole.
    ///
    /// # Errors
    /// [`ShapingError`] when a declared stream is absent or does not fit the batch.
    fn shape(&self, batch: &ShapingBatch, device: &B::Device) -> Result<Shaped, ShapingError>;
}

/// What a shaping reads; every list has one entry a response.
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
    /// Checks that every list has one entry a response, and token advantages one a token.
    pub(crate) fn check(&self) -> Result<(), ShapingError> {
        let expected = self.lengths.len();
        for (what, found) in
            [("advantages", self.advantages.len()), ("groups", self.groups.len()), ("has_image", self.has_image.len())]
        {
            if found != expected {
                return Err(ShapingError::Responses { what, found, expected });
            }
        }
        match self.advantages {
            Advantages::PerToken(rows) => stream::check("advantages", rows, self.lengths),
            Advantages::PerResponse(_) => Ok(()),
        }
    }

    /// The advantages of each token before shaping.
    pub(crate) fn plain(&self) -> Vec<Vec<f32>> {
        self.lengths.iter().enumerate().map(|(response, &length)| self.advantages.tokens(response, length)).collect()
    }
}

/// The result of a shaping.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Shaped {
    /// `[T_i]` advantage of each token.
    pub advantages: Vec<Vec<f32>>,
    /// `[T_i]` whether a token contributes to the policy loss ([`crate::loss::LossInputs::policy_mask`]); absent when all do.
    /// What is filtered out still counts in the denominators.
    pub policy_mask: Option<Vec<Vec<bool>>>,
    /// What the shaping did, for the log.
    pub metrics: Vec<(&'static str, f64)>,
}

impl Shaped {
    /// The policy mask as 0 and 1, ready for [`crate::loss::padding::pad`].
    pub fn policy_mask_values(&self) -> Option<Vec<Vec<f32>>> {
        let rows = self.policy_mask.as_ref()?;
        let value = |&kept: &bool| if kept { 1.0 } else { 0.0 };
        Some(rows.iter().map(|row| row.iter().map(value).collect()).collect())
    }
}

/// Which shaping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapingKind {
    /// One advantage for all tokens of a response.
    #[default]
    None,
    /// arXiv 2604.09349.
    Vgpo,
    /// arXiv 2510.09285.
    Vppo,
    /// arXiv 2604.01840.
    Pgpo,
    /// arXiv 2603.22847.
    Pepo,
    /// arXiv 2605.07274.
    Srpo,
    /// arXiv 2506.14758.
    Entropy,
}

impl ShapingKind {
    /// Every shaping.
    pub const ALL: [Self; 7] = [Self::None, Self::Vgpo, Self::Vppo, Self::Pgpo, Self::Pepo, Self::Srpo, Self::Entropy];

    /// The name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vgpo => "vgpo",
            Self::Vppo => "vppo",
            Self::Pgpo => "pgpo",
            Self::Pepo => "pepo",
            Self::Srpo => "srpo",
            Self::Entropy => "entropy",
        }
    }

    /// The shaping of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Which shaping, and the settings of each.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapingConfig {
    /// The shaping in force; the sections of the others are not read.
    pub shaping: ShapingKind,
    /// Settings of `vgpo`.
    pub vgpo: ::vgpo::VgpoConfig,
    /// Settings of `vppo`.
    pub vppo: VppoConfig,
    /// Settings of `pgpo`.
    pub pgpo: PgpoConfig,
    /// Settings of `pepo`.
    pub pepo: PepoConfig,
    /// Settings of `srpo`.
    pub srpo: SrpoConfig,
    /// Settings of `entropy`.
    pub entropy: EntropyConfig,
}

impl ShapingConfig {
    /// Checks the settings of the shaping in force, for groups of `n` responses.
    ///
    /// # Errors
    /// [`ShapingError::Config`] names the key, its value and the fix.
    pub fn validate(&self, n: usize) -> Result<(), ShapingError> {
        match self.shaping {
            ShapingKind::None => Ok(()),
            ShapingKind::Vgpo if self.vgpo.inter && n < 2 => refuse(
                "vgpo.inter",
                "true",
                "compares the responses of a group, so it needs rollout.n of 2 or more; set inter = false for n = 1",
            ),
            ShapingKind::Vgpo => Ok(self.vgpo.validate()?),
            ShapingKind::Vppo => self.vppo.validate(),
            ShapingKind::Pgpo => self.pgpo.validate(),
            ShapingKind::Pepo => self.pepo.validate(),
            ShapingKind::Srpo => self.srpo.validate(),
            ShapingKind::Entropy => self.entropy.validate(),
        }
    }

    /// The shaping in force.
    pub fn build<B: Backend>(&self) -> Box<dyn AdvantageShaping<B>> {
        match self.shaping {
            ShapingKind::None => Box::new(NoShaping),
            ShapingKind::Vgpo => Box::new(Vgpo(self.vgpo.clone())),
            ShapingKind::Vppo => Box::new(Vppo(self.vppo.clone())),
            ShapingKind::Pgpo => Box::new(Pgpo(self.pgpo.clone())),
            ShapingKind::Pepo => Box::new(Pepo(self.pepo.clone())),
            ShapingKind::Srpo => Box::new(Srpo(self.srpo.clone())),
            ShapingKind::Entropy => Box::new(EntropyAdvantage(self.entropy.clone())),
        }
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
    /// A stream that was declared is not there.
    #[error("shaping: the batch carries no {stream}; the shaping declares that it needs it")]
    Missing {
        /// Name of the stream.
        stream: &'static str,
    },
    /// A list does not have one entry a response.
    #[error("shaping: {what} has {found} entries for {expected} responses")]
    Responses {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Number of responses.
        expected: usize,
    },
    /// A stream does not have one entry a token.
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
    /// Shaping and loss want one stream in two forms.
    #[error(
        "shaping and loss disagree: one needs {first:?}, the other {second:?}, and a batch carries one of them; use one of the two algorithms"
    )]
    Conflict {
        /// What came first.
        first: Stream,
        /// What contradicts it.
        second: Stream,
    },
    /// VGPO's own.
    #[error(transparent)]
    Vgpo(#[from] ::vgpo::VgpoError),
    /// The device could not be read.
    #[error("shaping: reading from the device failed: {0}")]
    Device(String),
}

pub(crate) fn refuse<T>(key: &'static str, value: impl ToString, reason: &'static str) -> Result<T, ShapingError> {
    Err(ShapingError::Config { key, value: value.to_string(), reason })
}

/// Refuses what does not lie in `(low, high]`.
pub(crate) fn within(
    key: &'static str,
    value: f64,
    low: f64,
    high: f64,
    reason: &'static str,
) -> Result<(), ShapingError> {
    match value > low && value <= high {
        true => Ok(()),
        false => refuse(key, value, reason),
    }
}
