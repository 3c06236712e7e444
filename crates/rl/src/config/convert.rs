//! From the configuration's sections to the settings that the parts of the program take.

use ::data::Keys;
use ::reward::{OverlongConfig, RewardConfig};
use vgpo::VgpoConfig;

use super::Config;
use crate::advantage::AdvantageConfig;
use crate::loss::{CorrectionConfig, KlConfig, LossConfig, PapoConfig};
use crate::perturb::PerturbationConfig;
use crate::shaping::{EntropyConfig, PepoConfig, PgpoConfig, ShapingConfig, SrpoConfig, VppoConfig};

impl Config {
    /// How rewards become advantages.
    pub fn to_advantage_config(&self) -> AdvantageConfig {
        AdvantageConfig {
            adv_estimator: self.algorithm.adv_estimator,
            discount: self.algorithm.discount,
            ..AdvantageConfig::default()
        }
    }

    /// How advantages are spread over tokens.
    pub fn to_shaping_config(&self) -> ShapingConfig {
        let a = &self.algorithm;
        ShapingConfig {
            shaping: a.shaping,
            vgpo: VgpoConfig {
                variant: a.variant,
                beta: a.beta,
                gamma: a.gamma,
                kappa: a.kappa,
                schedule: a.schedule,
                intra: a.intra,
                inter: a.inter,
                compensation: a.compensation,
                gate: a.gate,
                prototype: a.prototype,
                inter_score: a.inter_score,
                ..VgpoConfig::default()
            },
            vppo: VppoConfig {
                token_filtering: a.vppo.token_filtering,
                keep_share: a.vppo.keep_share,
                trajectory_shaping: a.vppo.trajectory_shaping,
                beta_min: a.vppo.beta_min,
                mask_probability: a.vppo.mask_probability,
                perturbation: self.to_perturbation_config(),
            },
            pgpo: PgpoConfig { tau: a.pgpo.tau, beta: a.pgpo.beta },
            pepo: PepoConfig { gate_alpha: a.pepo.gate_alpha, gate_temperature: a.pepo.gate_temperature },
            srpo: SrpoConfig {
                lambda: a.srpo.lambda,
                bound: a.srpo.bound,
                dependency: a.srpo.dependency,
                mask_probability: a.srpo.mask_probability,
                perturbation: self.to_perturbation_config(),
            },
            entropy: EntropyConfig { alpha: a.entropy.alpha, kappa: a.entropy.kappa },
        }
    }

    /// How pictures are perturbed.
    pub fn to_perturbation_config(&self) -> PerturbationConfig {
        let p = &self.algorithm.perturbation;
        PerturbationConfig { kind: p.kind, align: p.align, sigma: p.sigma, draw: p.draw }
    }

    /// KL, entropy and policy loss, with PAPO's terms where one of them is on.
    pub fn to_loss_config(&self) -> LossConfig {
        let (algorithm, actor) = (&self.algorithm, &self.actor);
        let papo = &algorithm.papo;
        let papo_is_on =
            papo.kl_prcp_coef > 0.0 || papo.ori_entropy_loss_coef > 0.0 || papo.aug_entropy_loss_coef > 0.0;
        LossConfig {
            loss_type: actor.loss_type,
            loss_avg_mode: actor.loss_avg_mode,
            max_response_length: self.data.max_response_length,
            clip_ratio_low: actor.clip_ratio_low,
            clip_ratio_high: actor.clip_ratio_high,
            clip_ratio_dual: actor.clip_ratio_dual,
            tau_positive: actor.sapo_tau_positive,
            tau_negative: actor.sapo_tau_negative,
            entropy_coef: actor.entropy_coef,
            entropy_type: actor.entropy_type,
            kl: KlConfig {
                disable_kl: algorithm.disable_kl,
                use_kl_loss: algorithm.use_kl_loss,
                kl_penalty: algorithm.kl_penalty,
                kl_coef: algorithm.kl_coef,
                kl_type: algorithm.kl_type,
                kl_target: algorithm.kl_target,
                kl_horizon: algorithm.kl_horizon,
            },
            papo: papo_is_on.then_some(PapoConfig {
                kl_prcp_coef: papo.kl_prcp_coef,
                ori_entropy_loss_coef: papo.ori_entropy_loss_coef,
                aug_entropy_loss_coef: papo.aug_entropy_loss_coef,
                mask_probability: papo.mask_probability,
                perturbation: self.to_perturbation_config(),
            }),
            rollout_correction: CorrectionConfig { mode: actor.rollout_correction, cap: actor.rollout_correction_cap },
        }
    }

    /// What a response earns.
    pub fn to_reward_config(&self) -> RewardConfig {
        let reward = &self.reward;
        RewardConfig {
            reward_type: reward.reward_type,
            grader: reward.grader,
            accuracy_weight: reward.accuracy_weight,
            format_weight: reward.format_weight,
            numeric_tolerance: reward.numeric_tolerance,
            overlong: OverlongConfig {
                // There, 0 switches the penalty off; here, a buffer of 0 does.
                max_response_length: match reward.overlong_buffer_length {
                    0 => 0,
                    _ => self.data.max_response_length,
                },
                overlong_buffer_length: reward.overlong_buffer_length,
                overlong_penalty_factor: reward.overlong_penalty_factor,
            },
            command: reward.command.clone(),
            command_timeout_s: reward.command_timeout_s,
            command_batch_size: reward.command_batch_size,
        }
    }

    /// The names of the columns.
    pub fn to_keys(&self) -> Keys {
        let data = &self.data;
        Keys {
            prompt_key: data.prompt_key.clone(),
            answer_key: data.answer_key.clone(),
            image_key: data.image_key.clone(),
            solution_key: data.solution_key.clone(),
            id_key: data.id_key.clone(),
            task_key: data.task_key.clone(),
            extra: Vec::new(),
        }
    }
}
