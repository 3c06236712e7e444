//! What the parts of the program get from the configuration.

use ::data::{Dataset, Keys};
use ::reward::RewardConfig;

use super::*;
use crate::advantage::{AdvantageConfig, Estimator};
use crate::loss::{CorrectionMode, KlPenalty, LossAvgMode, LossConfig, LossType};
use crate::perturb::AlignChoice;
use crate::shaping::{DependencyKind, ShapingConfig, ShapingKind};

#[test]
fn the_defaults_are_those_of_the_parts() {
    let config = Config::default();
    assert_eq!(config.to_advantage_config(), AdvantageConfig::default());
    assert_eq!(config.to_shaping_config(), ShapingConfig::default());
    assert_eq!(config.to_loss_config(), LossConfig::default());
    assert_eq!(config.to_reward_config(), RewardConfig::default());
    assert_eq!(config.to_keys(), Keys::default());
}

#[test]
fn a_key_reaches_its_part() {
    let config = overridden(&[
        "algorithm.adv_estimator=rloo",
        "algorithm.discount=0.9",
        "algorithm.shaping=vgpo",
        "algorithm.kappa=0.4",
        "algorithm.inter=false",
        "algorithm.vppo.keep_share=0.3",
        "algorithm.pgpo.tau=0.6",
        "algorithm.pepo.gate_temperature=1.8",
        "algorithm.srpo.bound=3",
        "algorithm.srpo.dependency=log_ratio",
        "algorithm.entropy.kappa=5",
        "algorithm.perturbation.align=grid",
        "algorithm.disable_kl=false",
        "algorithm.use_kl_loss=true",
        "algorithm.kl_penalty=mse",
        "algorithm.papo.kl_prcp_coef=0.01",
        "actor.loss_type=cispo",
        "actor.entropy_coef=0.06",
        "actor.rollout_correction=sequence_mask",
        "actor.rollout_correction_cap=3",
        "data.answer_key=ground_truth",
        "data.format_prompt=dapo",
        "data.max_response_length=1024",
        "actor.loss_avg_mode=constant",
        "reward.reward_type=dapo",
        "reward.overlong_buffer_length=128",
    ])
    .unwrap();
    let advantage = config.to_advantage_config();
    assert_eq!((advantage.adv_estimator, advantage.discount), (Estimator::Rloo, 0.9));
    let shaping = config.to_shaping_config();
    assert_eq!(shaping.shaping, ShapingKind::Vgpo);
    assert_eq!((shaping.vgpo.kappa, shaping.vgpo.inter), (0.4, false));
    assert_eq!((shaping.vppo.keep_share, shaping.pgpo.tau), (0.3, 0.6));
    assert_eq!((shaping.pepo.gate_temperature, shaping.srpo.bound), (1.8, 3.0));
    assert_eq!((shaping.srpo.dependency, shaping.entropy.kappa), (DependencyKind::LogRatio, 5.0));
    assert_eq!(shaping.vppo.perturbation.align, AlignChoice::Grid);
    let loss = config.to_loss_config();
    assert_eq!((loss.loss_type, loss.entropy_coef), (LossType::Cispo, 0.06));
    assert_eq!((loss.loss_avg_mode, loss.max_response_length), (LossAvgMode::Constant, 1024));
    assert!(loss.kl.in_loss());
    assert_eq!(loss.kl.kl_penalty, KlPenalty::Mse);
    assert_eq!(loss.papo.map(|papo| papo.kl_prcp_coef), Some(0.01));
    let correction = &loss.rollout_correction;
    assert_eq!((correction.mode, correction.cap), (CorrectionMode::SequenceMask, 3.0));
    let overlong = config.to_reward_config().overlong;
    assert_eq!((overlong.max_response_length, overlong.overlong_buffer_length), (1024, 128));
    assert_eq!(config.to_keys().answer_key, "ground_truth");
}

#[test]
fn the_toy_data_of_the_default_run_can_be_opened() {
    let text = include_str!("../../../../../configs/toy.toml");
    let config = resolve(&[Source::new("toy.toml", text)], &[]).unwrap();
    let open = |files: &[::data::DataSpec]| Dataset::open(files, &config.to_keys(), None);
    for stage in config.stages() {
        let data = open(config.train_files(&stage)).unwrap_or_else(|error| panic!("{error}"));
        let sample = data.get(0).unwrap();
        assert!(sample.solution.is_some() && !sample.images.is_empty());
    }
    open(&config.data.val_files).unwrap_or_else(|error| panic!("{error}"));
}
