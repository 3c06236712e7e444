//! Streams: what an algorithm wants to know of every response token. One file per stream: what it needs, how it is
//! computed.
//!
//! | file | of each token | costs |
//! |---|---|---|
//! | `old_log_probs` | log-prob that the ratio is taken against | nothing, or the scoring pass |
//! | `visual_focus` | focus on the picture | nothing, or the scoring pass |
//! | `entropy` | entropy of the full vocabulary | the scoring pass |
//! | `dependency` | divergence from the prediction without the pictures | the scoring pass and one over the text |
//! | `reference` | log-prob under the reference policy | one pass of that policy |
//! | `perturbed` | log-prob with a perturbed picture | one pass |
//! | [`perception`] | log-prob without the response's description of the picture | one pass over responses that have one |
//!
//! Only what the shaping or the loss declares is computed. A stream lands in its response's record
//! ([`crate::trajectory::TokenStreams`]); [`Columns`] is the view of all records that a shaping reads.

mod columns;
pub(crate) mod dependency;
mod entropy;
mod old_log_probs;
pub mod perception;
mod perturbed;
mod reference;
pub(crate) mod visual_focus;

pub use columns::Columns;
pub(crate) use columns::column;

use ::vgpo::PrototypeMode;
use kernels::Kernels;
use serde::{Deserialize, Serialize};

use crate::config::{Config, OldLogProbs};
use crate::dealt;
use crate::error::TrainError;
use crate::experience::{ExperienceTimes, Metrics, StepContext};
use crate::image_cache::ImageCache;
use crate::learn::ScoreRequest;
use crate::perturb::Perturbation;
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::shaping::{Draw, Stream};
use crate::trajectory::ScoredGroup;

/// What the shaping and the loss of a recipe declare.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wanted {
    focus: Option<PrototypeMode>,
    entropy: bool,
    dependency: bool,
    current_log_probs: bool,
    perception: bool,
    reference: bool,
    perturbed: Option<(Draw, Perturbation)>,
    masked: Option<(Draw, Perturbation)>,
}

/// Forward passes over all groups of a step between sampling and learning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoringPasses {
    /// Of the decoder.
    pub decoder: f64,
    /// Of the tower, over pictures of which it has nothing yet.
    pub tower: f64,
}

/// How a perturbed picture is drawn, where one is declared.
fn perturbation(streams: &[Stream]) -> Option<(Draw, Perturbation)> {
    streams.iter().find_map(|stream| match *stream {
        Stream::PerturbedLogProbs { draw, perturbation } => Some((draw, perturbation)),
        _ => None,
    })
}

impl Wanted {
    /// Of the streams that a recipe's shaping and loss declare.
    pub(crate) fn of<B: Kernels>(recipe: &Recipe<B>) -> Self {
        let declared = recipe.shaping.streams();
        let mut wanted = Self {
            focus: recipe.focus(),
            reference: recipe.wants_reference(),
            perturbed: perturbation(&declared),
            masked: perturbation(&recipe.loss.streams()),
            ..Self::default()
        };
        for stream in declared {
            match stream {
                Stream::Entropy => wanted.entropy = true,
                Stream::TokenVisualDependency => wanted.dependency = true,
                Stream::OldLogProbs => wanted.current_log_probs = true,
                Stream::PerceptionSpans => wanted.perception = true,
                Stream::UnperceivedLogProbs => (wanted.perception, wanted.current_log_probs) = (true, true),
                Stream::VisualFocus { .. } | Stream::PerturbedLogProbs { .. } | Stream::RefLogProbs => {}
            }
        }
        wanted
    }

    /// See [`Recipe::scoring_passes`].
    pub(crate) fn passes(&self, config: &Config) -> ScoringPasses {
        let count = |wanted: bool| f64::from(u8::from(wanted));
        let scored = config.actor.old_log_probs != OldLogProbs::Rollout || self.entropy || self.dependency;
        let pictures = count(self.reference) + count(self.perturbed.is_some()) + count(self.masked.is_some());
        let texts = count(scored) + count(self.dependency) + count(self.perception);
        ScoringPasses { decoder: texts + pictures, tower: pictures }
    }

    /// Whether a scoring pass over all groups is needed: it is not where the sampler has measured what is asked for.
    fn scores(&self, groups: &[ScoredGroup], config: &Config) -> bool {
        let focus = self.focus.is_none() || visual_focus::is_known(groups);
        config.actor.old_log_probs != OldLogProbs::Rollout || self.entropy || self.dependency || !focus
    }

    /// Whether the policy, or the reference, computes something beside a scoring pass.
    fn computes(&self) -> bool {
        self.current_log_probs || self.perception || self.reference || self.perturbed.is_some() || self.masked.is_some()
    }

    /// What the scoring pass measures.
    fn request(&self, config: &Config) -> ScoreRequest {
        ScoreRequest { entropy: self.entropy, focus: self.focus, dependency: self.dependency, ..self.plain(config) }
    }

    /// Log-probs alone.
    fn plain(&self, config: &Config) -> ScoreRequest {
        ScoreRequest {
            temperature: config.rollout.temperature,
            entropy: false,
            focus: None,
            dependency: false,
            token_budget: config.pass_tokens(),
        }
    }
}

/// Computes what the recipe declares, into the records of `groups`. `images` holds what the policy's tower made of the
/// prompts' pictures.
///
/// # Errors
/// A KL term without a reference policy, pictures that are gone, a device that cannot be read.
pub(crate) fn compute<B: Kernels, P: Policy<B>>(
    policy: &P,
    reference: Option<&P>,
    groups: &mut [ScoredGroup],
    context: &StepContext<B>,
    images: &mut ImageCache<B>,
    metrics: &mut Metrics,
) -> Result<ExperienceTimes, TrainError> {
    let wanted = Wanted::of(context.recipe);
    let scored = wanted.scores(groups, context.config);
    if !scored {
        old_log_probs::from_sampler(groups);
        if !wanted.computes() {
            return Ok(ExperienceTimes::default());
        }
    }
    let mut sums = StreamSums::default();
    let times = dealt::measured(context.ranks, groups, |own| {
        measure(policy, reference, own, context, (&wanted, scored, images), &mut sums)
    })?;
    let all = context.ranks.gather("stream sums", &sums)?.into_iter().reduce(StreamSums::with);
    metrics.extend(all.unwrap_or_default().metrics());
    Ok(times)
}

/// The part of [`compute`] that a policy does, on the groups that this rank holds. `scored`: whether a scoring pass
/// over all groups is needed.
fn measure<B: Kernels, P: Policy<B>>(
    policy: &P,
    reference: Option<&P>,
    groups: &mut [ScoredGroup],
    context: &StepContext<B>,
    (wanted, scored, images): (&Wanted, bool, &mut ImageCache<B>),
    sums: &mut StreamSums,
) -> Result<ExperienceTimes, TrainError> {
    let config = context.config;
    let mut times = ExperienceTimes::default();
    let clock = std::time::Instant::now();
    old_log_probs::compute(policy, images, groups, (wanted, scored), config, &mut sums.gap)?;
    times.old_log_probs_s = clock.elapsed().as_secs_f64();

    let clock = std::time::Instant::now();
    let plain = wanted.plain(config);
    if wanted.reference {
        reference::compute(reference, groups, &plain)?;
    }
    if let Some(how) = wanted.perturbed {
        perturbed::compute(policy, groups, &plain, context, how, |streams| &mut streams.perturbed_log_probs)?;
    }
    if wanted.perception {
        sums.undecoded = Some(perception::compute(policy, images, groups, context.processor()?, &plain)?);
    }
    if let Some(how) = wanted.masked {
        perturbed::compute(policy, groups, &plain, context, how, |streams| &mut streams.masked_log_probs)?;
    }
    times.streams_s = clock.elapsed().as_secs_f64();
    Ok(times)
}

/// What is measured beside the streams: sums over the responses of one rank, which may be added over ranks.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct StreamSums {
    gap: old_log_probs::SamplerGap,
    /// Responses that do not decode, where spans were looked for.
    undecoded: Option<usize>,
}

impl StreamSums {
    fn with(self, other: Self) -> Self {
        let undecoded = match (self.undecoded, other.undecoded) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self { gap: self.gap.with(&other.gap), undecoded }
    }

    fn metrics(&self) -> Metrics {
        let mut metrics = self.gap.metrics();
        metrics.extend(self.undecoded.map(|count| ("srpo/undecoded_responses".to_string(), count as f64)));
        metrics
    }
}
