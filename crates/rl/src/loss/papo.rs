//! PAPO (arXiv 2507.06448): the policy should change its mind when the picture is hidden, and stay decided.
//! `L = L_policy + beta KL_ref - gamma KL_prcp + eta1 H(l) + eta2 H(l_masked)`.

use super::{
    LossError,
    config::{positive, refuse},
    entropy, kl,
};
use crate::perturb::PerturbationConfig;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

/// Settings of the perception terms; defaults are PAPO-G's for 3B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PapoConfig {
    /// `gamma`: weight of the perception KL. 0.02 (PAPO-G), 0.01 (PAPO-D); training collapsed at 0.04 in the paper.
    pub kl_prcp_coef: f64,
    /// `eta1`: weight of the entropy with the true image. 0.05 (PAPO-G 7B), 0.03 (PAPO-D), 0 (PAPO-G 3B).
    pub ori_entropy_loss_coef: f64,
    /// `eta2`: weight of the entropy with the perturbed image. It has a gradient only where `masked_log_probs` carries one.
    pub aug_entropy_loss_coef: f64,
    /// Probability that a 14x14 block of the image is blacked out, in (0, 1].
    pub mask_probability: f64,
    /// How the image is perturbed.
    pub perturbation: PerturbationConfig,
}

impl Default for PapoConfig {
    fn default() -> Self {
        Self {
            kl_prcp_coef: 0.02,
            ori_entropy_loss_coef: 0.0,
            aug_entropy_loss_coef: 0.0,
            mask_probability: 0.6,
            perturbation: PerturbationConfig::default(),
        }
    }
}

impl PapoConfig {
    /// Whether the log-probs with the perturbed image are needed.
    pub fn needs_masked(&self) -> bool {
        self.kl_prcp_coef > 0.0 || self.aug_entropy_loss_coef > 0.0
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`LossError::Config`].
    pub fn validate(&self) -> Result<(), LossError> {
        positive("papo.kl_prcp_coef", self.kl_prcp_coef, true)?;
        positive("papo.ori_entropy_loss_coef", self.ori_entropy_loss_coef, true)?;
        positive("papo.aug_entropy_loss_coef", self.aug_entropy_loss_coef, true)?;
        if self.aug_entropy_loss_coef > 0.0 && self.kl_prcp_coef == 0.0 {
            return refuse(
                "papo.aug_entropy_loss_coef",
                self.aug_entropy_loss_coef,
                "changes nothing by itself: the masked log-probabilities are constants; set kl_prcp_coef, or this to 0",
            );
        }
        match self.mask_probability > 0.0 && self.mask_probability <= 1.0 {
            true => Ok(()),
            false => refuse(
                "papo.mask_probability",
                self.mask_probability,
                "must lie in (0, 1]: with nothing hidden the two forward passes are the same",
            ),
        }
    }
}

/// The terms before averaging, `[R, T]`.
pub struct PapoTerms<B: Backend> {
    /// `-gamma KL_prcp + eta1 H(l) + eta2 H(l_masked)`.
    pub loss: Tensor<B, 2>,
    /// `KL_prcp`: k3 of `l_masked - l`.
    pub kl_prcp: Tensor<B, 2>,
    /// `H(l_masked) = -l_masked`.
    pub masked_entropy: Tensor<B, 2>,
}

/// PAPO's terms of each token, all `[R, T]`. `pictured` is 1 on the tokens of responses to a prompt with an image: elsewhere there
/// is nothing to hide, and `KL_prcp` would only measure how far the policy has moved.
pub fn terms<B: Backend>(
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
