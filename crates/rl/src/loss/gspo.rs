//! GSPO (arXiv 2507.18071): the ratio of a response is `exp(mean_t d_t)`, clipped as PPO clips a token's.

use super::{LossAvgMode, LossConfig, PolicyInputs, PolicyLoss, ppo, ratio};
use crate::config::checks::Checks;
use crate::config::field::Choice as _;
use crate::config::{Algorithm, Config};
use crate::registry::Declared;
use burn::tensor::{Tensor, backend::Backend};

/// One ratio per response.
#[derive(Debug, Clone, PartialEq)]
pub struct Gspo;

impl Declared for Gspo {
    const NAME: &'static str = "gspo";

    fn new(_: &Algorithm) -> Self {
        Self
    }

    fn check(config: &Config, checks: &mut Checks) {
        check(config, checks);
    }

    fn warn(config: &Config, checks: &mut Checks) {
        warn(config, checks);
    }
}

impl<B: Backend> PolicyLoss<B> for Gspo {
    fn terms(&self, inputs: PolicyInputs<B>) -> ppo::Terms<B> {
        sequence_terms(inputs.log_ratio, inputs.mask, inputs.advantages, inputs.config)
    }
}

/// The ratio of the response, with a gradient for each token.
#[derive(Debug, Clone, PartialEq)]
pub struct GspoToken;

impl Declared for GspoToken {
    const NAME: &'static str = "gspo_token";

    fn new(_: &Algorithm) -> Self {
        Self
    }

    fn check(config: &Config, checks: &mut Checks) {
        check(config, checks);
    }

    fn warn(config: &Config, checks: &mut Checks) {
        warn(config, checks);
    }
}

impl<B: Backend> PolicyLoss<B> for GspoToken {
    fn terms(&self, inputs: PolicyInputs<B>) -> ppo::Terms<B> {
        token_terms(inputs.log_ratio, inputs.log_probs, inputs.mask, inputs.advantages, inputs.config)
    }
}

/// Above this a clip of a sequence ratio never acts: the mean of a response moves orders of magnitude less than a
/// token.
const LARGEST_CLIP: f64 = 0.1;

fn check(config: &Config, checks: &mut Checks) {
    let actor = &config.actor;
    for (value, key) in
        [(actor.clip_ratio_low, "actor.clip_ratio_low"), (actor.clip_ratio_high, "actor.clip_ratio_high")]
    {
        checks.need(
            value <= LARGEST_CLIP,
            &[key, "actor.loss_type"],
            format!(
                "{value} would never act on the ratio of a whole sequence; GSPO was published with 3e-4 (low) \
                 and 4e-4 (high)"
            ),
        );
    }
}

fn warn(config: &Config, checks: &mut Checks) {
    let mode = config.actor.loss_avg_mode;
    checks.need(
        mode == LossAvgMode::Seq,
        &["actor.loss_avg_mode", "actor.loss_type"],
        format!("is \"{}\"; GSPO was published with averaging by sequence (\"seq\")", mode.as_str()),
    );
}

/// One ratio per response, the same on each of its tokens. `[R, T]`; `log_ratio` must hold 0 in the padding.
pub(crate) fn sequence_terms<B: Backend>(
    log_ratio: Tensor<B, 2>,
    mask: &Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> ppo::Terms<B> {
    let dims = log_ratio.dims();
    let sequence = ratio::row_mean(log_ratio, mask).expand(dims);
    ppo::terms(ratio::ratio(sequence), advantages, config)
}

/// The token form: `exp(sg(mean d) + l - sg(l))`, whose value is the sequence's ratio and whose gradient is the token's
/// own.
pub(crate) fn token_terms<B: Backend>(
    log_ratio: Tensor<B, 2>,
    log_probs: Tensor<B, 2>,
    mask: &Tensor<B, 2>,
    advantages: Tensor<B, 2>,
    config: &LossConfig,
) -> ppo::Terms<B> {
    let sequence = ratio::row_mean(log_ratio, mask).detach();
    let own = log_probs.clone() - log_probs.detach();
    ppo::terms(ratio::ratio(own + sequence), advantages, config)
}
