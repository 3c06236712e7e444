//! PAPO (arXiv 2507.06448): the policy should change its mind when the picture is hidden, and stay decided.
//! `L = L_policy + beta KL_ref - gamma KL_prcp + eta1 H(l) + eta2 H(l_masked)`.

use super::{entropy, kl};
use crate::config::checks::Checks;
use crate::config::section::section;
use burn::tensor::{Tensor, backend::Backend};

section! {
    /// PAPO (arXiv 2507.06448): terms added to the loss. It needs one more forward pass over each response, with a
    /// masked image, when `kl_prcp_coef` is above 0. Responses to prompts without an image get the entropy term only.
    pub struct PapoConfig {
        /// gamma: weight of the divergence between log-probabilities with the image and with the masked one,
        /// which is maximised. 0: off. The paper uses 0.01 and 0.02; at 0.04 training collapses.
        kl_prcp_coef: f64 = 0.0 => ..=1e6,
        /// eta 1: weight of the entropy with the image, which is minimised.
        ori_entropy_loss_coef: f64 = 0.0 => ..=1e6,
        /// eta 2: weight of the entropy with the masked image. It stands in the reported loss; its log-probabilities
        /// are constants, as in the released code, so it has no gradient, and is refused without `kl_prcp_coef`.
        aug_entropy_loss_coef: f64 = 0.0 => ..=1e6,
        /// Probability that a 14x14 pixel block of the masked image is blacked out.
        mask_probability: f64 = 0.6 => ..=1.0,
    }
}

impl PapoConfig {
    /// Whether any term is on.
    pub(crate) fn is_on(&self) -> bool {
        self.kl_prcp_coef > 0.0 || self.ori_entropy_loss_coef > 0.0 || self.aug_entropy_loss_coef > 0.0
    }

    /// Whether the log-probs with the perturbed image are needed.
    pub(crate) fn needs_masked(&self) -> bool {
        self.kl_prcp_coef > 0.0 || self.aug_entropy_loss_coef > 0.0
    }

    /// What means nothing; the upper ends of ranges stand beside the keys.
    pub(crate) fn validate(&self, checks: &mut Checks) {
        checks.not_negative(self.kl_prcp_coef, "algorithm.papo.kl_prcp_coef");
        checks.not_negative(self.ori_entropy_loss_coef, "algorithm.papo.ori_entropy_loss_coef");
        checks.not_negative(self.aug_entropy_loss_coef, "algorithm.papo.aug_entropy_loss_coef");
        checks.positive_share(self.mask_probability, "algorithm.papo.mask_probability");
        checks.need(
            self.aug_entropy_loss_coef == 0.0 || self.kl_prcp_coef > 0.0,
            &["algorithm.papo.aug_entropy_loss_coef", "algorithm.papo.kl_prcp_coef"],
            "the entropy with the masked image changes nothing by itself, as those log-probabilities are constants; \
             set kl_prcp_coef above 0, or this to 0",
        );
    }

    /// What the paper warns of.
    pub(crate) fn warn(&self, checks: &mut Checks) {
        checks.need(
            self.kl_prcp_coef < 0.04,
            &["algorithm.papo.kl_prcp_coef"],
            format!("is {}; the paper reports that training collapses from 0.04 on", self.kl_prcp_coef),
        );
    }
}

/// The terms before averaging, `[R, T]`.
pub(crate) struct PapoTerms<B: Backend> {
    /// `-gamma KL_prcp + eta1 H(l) + eta2 H(l_masked)`.
    pub loss: Tensor<B, 2>,
    /// `KL_prcp`: k3 of `l_masked - l`.
    pub kl_prcp: Tensor<B, 2>,
    /// `H(l_masked) = -l_masked`.
    pub masked_entropy: Tensor<B, 2>,
}

/// PAPO's terms of each token, all `[R, T]`. `pictured` is 1 on the tokens of responses to a prompt with an image:
/// elsewhere there is nothing to hide, and `KL_prcp` would only measure how far the policy has moved.
pub(crate) fn terms<B: Backend>(
    log_probs: Tensor<B, 2>,
    masked_log_probs: Tensor<B, 2>,
    pictured: Option<Tensor<B, 2>>,
    config: &PapoConfig,
) -> PapoTerms<B> {
    let seen = |x: Tensor<B, 2>| match &pictured {
        Some(pictured) => x * pictured.clone(),
        None => x,
    };
    let kl_prcp = seen(kl::k3(masked_log_probs.clone() - log_probs.clone()));
    let masked_entropy = seen(entropy::sampled(masked_log_probs));
    let loss = entropy::sampled(log_probs).mul_scalar(config.ori_entropy_loss_coef)
        + masked_entropy.clone().mul_scalar(config.aug_entropy_loss_coef)
        - kl_prcp.clone().mul_scalar(config.kl_prcp_coef);
    PapoTerms { loss, kl_prcp, masked_entropy }
}
