//! Policy losses: token log-probs, advantages and the streams around them to one scalar whose gradient trains the
//! policy.
//!
//! | file | what |
//! |---|---|
//! | `config` | `loss_type`, clips, averaging, KL, entropy, PAPO, rollout correction |
//! | `ratio` | `r = exp(clamp(l - l_old, -20, 20))`, by token and by sequence |
//! | `ppo` | the clipped surrogate (asymmetric, dual) that PPO, GRPO, DAPO and GSPO share |
//! | `gspo`, `cispo`, `sapo` | the other losses |
//! | `average` | `token`, `seq` and `constant` averaging with global denominators |
//! | `kl` | KL to a reference, in the loss or in the reward; coefficient controllers |
//! | `entropy`, `papo`, `correction` | the other terms |
//! | `metrics` | sums that add up over micro-batches |
//! | `padding` | ragged host lists to padded tensors |
//!
//! Shapes: `R` responses of the micro-batch, `T` its longest response; every tensor is `[R, T]`, every mask 1 on a
//! token and 0 in the padding. The graph is tiny: the engine runs it under autodiff with `log_probs` (and `entropy`) as
//! its leaves, takes `d loss / d log_probs`, and carries that into the model by its own backward pass.

pub(crate) mod average;
pub(crate) mod cispo;
pub(crate) mod config;
pub(crate) mod correction;
pub(crate) mod entropy;
pub(crate) mod gspo;
pub(crate) mod kl;
pub(crate) mod metrics;
pub(crate) mod padding;
pub(crate) mod papo;
pub(crate) mod ppo;
pub(crate) mod ratio;
pub(crate) mod sapo;

#[cfg(test)]
mod tests;

pub use average::Denominators;
pub use cispo::Cispo;
pub use config::{EntropyType, KlConfig, LossAvgMode, LossConfig, LossError};
pub use correction::{CorrectionConfig, CorrectionMode};
pub use gspo::{Gspo, GspoToken};
pub use kl::{KlController, KlPenalty, KlType};
pub use metrics::MetricSums;
pub use papo::PapoConfig;
pub use ppo::{Clips, Ppo, Terms};
pub use sapo::{Sapo, SapoConfig};

use burn::tensor::{Tensor, backend::Backend};
use metrics::Recorder;

/// The policy term of a loss: what `actor.loss_type` names. `B` is a backend with autodiff.
///
/// ```
/// use burn::tensor::backend::Backend;
/// use rl::config::Algorithm;
/// use rl::loss::{PolicyInputs, PolicyLoss, Terms};
/// use rl::registry::{Declared, Registry};
///
/// /// REINFORCE: `-A log p`, whatever the ratio is.
/// struct Reinforce;
///
/// impl Declared for Reinforce {
///     const NAME: &'static str = "reinforce";
///     fn new(_: &Algorithm) -> Self {
///         Self
///     }
/// }
///
/// impl<B: Backend> PolicyLoss<B> for Reinforce {
///     fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B> {
///         Terms { loss: (inputs.log_probs * inputs.advantages).neg(), clips: None }
///     }
/// }
///
/// let registry = Registry::<burn_flex::Flex>::built_in().loss::<Reinforce>()?;
/// let overrides = ["data.train_files=toy:sum", "actor.loss_type=reinforce"].map(String::from);
/// assert!(registry.resolve(&[], &overrides).is_ok());
/// # Ok::<(), rl::registry::RegistryError>(())
/// ```
pub trait PolicyLoss<B: Backend>: Send + Sync {
    /// The loss of each token, `[R, T]`, before averaging. `policy_loss` adds the other terms.
    fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B>;
}

/// What a policy term reads, all `[R, T]` and 0 in the padding.
pub struct PolicyInputs<'a, B: Backend> {
    /// `d = clamp(l - l_old, -20, 20)`, with the gradient; `ratio::ratio` makes the ratio of it.
    pub log_ratio: Tensor<B, 2>,
    /// Log-probs under the policy being trained, with the gradient.
    pub log_probs: Tensor<B, 2>,
    /// Token advantages, without a gradient.
    pub advantages: Tensor<B, 2>,
    /// 1 on the tokens of responses, 0 in the padding.
    pub mask: &'a Tensor<B, 2>,
    /// The clips.
    pub config: &'a LossConfig,
}

/// What a loss reads. All `[R, T]` of one float type; what the padding holds does not matter.
#[derive(Debug, Clone)]
pub struct LossInputs<B: Backend> {
    /// Log-probs of the response tokens under the policy being trained: the leaf of the graph.
    pub log_probs: Tensor<B, 2>,
    /// The same under the policy that the update started from.
    pub old_log_probs: Tensor<B, 2>,
    /// Token advantages.
    pub advantages: Tensor<B, 2>,
    /// 1 on the tokens of responses, 0 in the padding. Its sum over all micro-batches is what averages divide by.
    pub mask: Tensor<B, 2>,
    /// 1 on tokens that contribute to the policy loss, 0 on those that a shaping filtered out (VPPO). They still count
    /// in the denominators, in the KL and in the entropy.
    pub policy_mask: Option<Tensor<B, 2>>,
    /// Log-probs under the reference policy, for the KL in the loss.
    pub ref_log_probs: Option<Tensor<B, 2>>,
    /// Log-probs under the policy with a perturbed image, for PAPO. Constants in its released code; a tensor that
    /// carries a gradient gets one.
    pub masked_log_probs: Option<Tensor<B, 2>>,
    /// 1 on the tokens of responses to prompts with an image, 0 elsewhere, for PAPO; none if all have one.
    pub pictured: Option<Tensor<B, 2>>,
    /// Entropy of the full vocabulary at each token, for `entropy_type = "full"`.
    pub entropy: Option<Tensor<B, 2>>,
    /// Log-probs that the sampler reported: for the rollout correction, and for the metric of its gap to the trainer.
    pub rollout_log_probs: Option<Tensor<B, 2>>,
}

/// A loss and what happened on the way.
#[derive(Debug, Clone)]
pub struct LossOutput<B: Backend> {
    /// `[1]`; the losses of all micro-batches of all devices add up to the loss of the optimizer step.
    pub loss: Tensor<B, 1>,
    /// Name and `[1]` sum, outside the graph; [`MetricSums`] adds them up and divides.
    pub metrics: Vec<(&'static str, Tensor<B, 1>)>,
}

/// The loss of one micro-batch.
///
/// `loss = policy + kl_coef KL + entropy_coef H - PAPO's perception term + its entropies`, each averaged as
/// `loss_avg_mode` says over the denominators of the whole optimizer step, so that the split into micro-batches does
/// not change the sum.
///
/// # Errors
/// [`LossError::Config`] for settings out of range, [`LossError::Missing`] when a stream that the settings need is
/// absent, [`LossError::Denominators`] when there is nothing to divide by.
pub(crate) fn policy_loss<B: Backend>(
    config: &LossConfig,
    inputs: &LossInputs<B>,
    denominators: Denominators,
) -> Result<LossOutput<B>, LossError> {
    config.validate()?;
    denominators.check(config.loss_avg_mode)?;
    let padding = inputs.mask.clone().equal_elem(0.0);
    // Padding may hold anything, and NaN times a mask of 0 is NaN: it is overwritten before anything is computed.
    let clean = |x: &Tensor<B, 2>| x.clone().mask_fill(padding.clone(), 0.0);
    let need = |x: &Option<Tensor<B, 2>>, stream, by| match x {
        Some(x) => Ok(clean(x)),
        None => Err(LossError::Missing { stream, by }),
    };
    let mask = inputs.mask.clone();
    let log_probs = clean(&inputs.log_probs);
    let advantages = clean(&inputs.advantages).detach();
    let log_ratio = ratio::log_ratio(log_probs.clone(), clean(&inputs.old_log_probs).detach());
    let average = |x: Tensor<B, 2>| average::average(x, &mask, config, denominators);
    let mut record = Recorder::new(&mask);
    record.ratio(&log_ratio);

    // Policy term, [R, T].
    let terms = config.loss_type.on::<B>()?.terms(PolicyInputs {
        log_ratio,
        log_probs: log_probs.clone(),
        advantages,
        mask: &mask,
        config,
    });
    record.clips(terms.clips);
    let mut policy = terms.loss;
    let rollout = match config.rollout_correction.mode {
        CorrectionMode::None => inputs.rollout_log_probs.as_ref().map(clean),
        _ => Some(need(&inputs.rollout_log_probs, "rollout_log_probs", "rollout_correction")?),
    };
    if let Some(rollout) = rollout {
        let gap = (clean(&inputs.old_log_probs) - rollout).detach();
        record.token_sum("actor/rollout_gap", gap.clone().abs());
        if config.rollout_correction.mode != CorrectionMode::None {
            let weights = correction::weights(gap, &config.rollout_correction);
            record.token_sum("actor/rollout_correction", weights.clone());
            policy = policy * weights;
        }
    }
    if let Some(policy_mask) = &inputs.policy_mask {
        policy = policy * clean(policy_mask);
    }
    let mut loss = average(policy);
    record.total("actor/pg_loss", loss.clone());

    if config.kl.in_loss() {
        let reference = need(&inputs.ref_log_probs, "ref_log_probs", "use_kl_loss")?.detach();
        let kl = kl::divergence(log_probs.clone(), reference, config.kl.kl_penalty);
        record.token_sum("actor/kl", kl.clone());
        let term = average(kl).mul_scalar(config.kl.kl_coef);
        record.total("actor/kl_loss", term.clone());
        loss = loss + term;
    }
    let entropy = match config.entropy_type {
        EntropyType::Full => need(&inputs.entropy, "entropy", "entropy_type = \"full\"")?,
        EntropyType::Sampled => entropy::sampled(log_probs.clone()),
    };
    record.token_sum("actor/entropy", entropy.clone());
    if config.entropy_coef != 0.0 {
        let term = average(entropy).mul_scalar(config.entropy_coef);
        record.total("actor/entropy_loss", term.clone());
        loss = loss + term;
    }
    if let Some(papo) = &config.papo {
        // Without a term that reads them nobody has to compute the masked log-probs.
        let masked = match papo.needs_masked() {
            true => need(&inputs.masked_log_probs, "masked_log_probs", "papo")?,
            false => log_probs.clone().detach(),
        };
        let pictured = inputs.pictured.as_ref().map(clean);
        let terms = papo::terms(log_probs, masked, pictured.clone(), papo);
        if papo.needs_masked() {
            record.token_sum(metrics::PICTURED, pictured.unwrap_or_else(|| mask.ones_like()));
            record.token_sum("actor/kl_prcp", terms.kl_prcp);
            record.token_sum("actor/masked_entropy", terms.masked_entropy);
        }
        let term = average(terms.loss);
        record.total("actor/papo_loss", term.clone());
        loss = loss + term;
    }
    record.total("actor/loss", loss.clone());
    Ok(LossOutput { loss, metrics: record.finish() })
}
