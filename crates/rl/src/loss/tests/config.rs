//! What the configuration accepts, and what it says when it does not.

use super::*;
use crate::perturb::{PerturbationConfig, Published};
use crate::shaping::Stream;

fn message(config: LossConfig) -> String {
    config.validate().unwrap_err().to_string()
}

#[test]
fn defaults_and_published_settings_are_valid() {
    for loss_type in LossType::ALL {
        LossConfig::published(loss_type).validate().unwrap();
    }
}

#[test]
fn published_settings_are_those_of_the_papers_and_of_the_shipped_files() {
    for (loss_type, mode, low, high) in [
        (LossType::Ppo, LossAvgMode::Token, 0.2, 0.3),
        (LossType::Gspo, LossAvgMode::Seq, 3e-4, 4e-4),
        (LossType::GspoToken, LossAvgMode::Seq, 3e-4, 4e-4),
        (LossType::Cispo, LossAvgMode::Token, 0.2, 0.3),
        (LossType::Sapo, LossAvgMode::Seq, 0.2, 0.3),
    ] {
        let found = LossConfig::published(loss_type);
        assert_eq!((found.loss_type, found.loss_avg_mode), (loss_type, mode));
        assert_eq!((found.clip_ratio_low, found.clip_ratio_high), (low, high), "{}", loss_type.name());
        assert_eq!((found.tau_positive, found.tau_negative, found.clip_ratio_dual), (1.0, 1.05, 3.0));
        // Its file on the defaults gives the same.
        if loss_type != LossType::Ppo {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/algorithms");
            let file = crate::config::Source::read(&folder.join(format!("{}.toml", loss_type.name()))).unwrap();
            let data = crate::config::Source::new("data", "[data]\ntrain_files = [\"toy:sum\"]\n");
            let config = crate::config::resolve(&[data, file], &[]).unwrap();
            assert_eq!(config.to_loss_config(), found, "{}", loss_type.name());
            assert_eq!(config.warnings(), []);
        }
    }
}

#[test]
fn bad_numbers_are_refused_with_the_reason() {
    let default = LossConfig::default;
    assert_eq!(
        message(LossConfig { clip_ratio_low: 1.0, ..default() }),
        "clip_ratio_low = 1: must lie in [0, 1): the ratio may fall to 1 - clip_ratio_low"
    );
    assert_eq!(message(LossConfig { clip_ratio_high: -0.1, ..default() }), "clip_ratio_high = -0.1: must be 0 or more");
    assert_eq!(
        message(LossConfig { clip_ratio_dual: 1.1, ..default() }),
        "clip_ratio_dual = 1.1: must be at least 1 + clip_ratio_high: it bounds what the first clip leaves unbounded"
    );
    assert_eq!(
        message(LossConfig { max_response_length: 0, ..default() }),
        "max_response_length = 0: must be at least 1: it divides the loss"
    );
    assert_eq!(message(LossConfig { tau_positive: 0.0, ..default() }), "tau_positive = 0: must be above 0");
    assert!(message(LossConfig { entropy_coef: f64::NAN, ..default() }).starts_with("entropy_coef"));
    let rollout_correction = CorrectionConfig { mode: CorrectionMode::TokenMask, cap: 0.0 };
    assert!(message(LossConfig { rollout_correction, ..default() }).contains("cap = 0"));
    let papo = Some(PapoConfig { mask_probability: 0.0, ..PapoConfig::default() });
    assert!(message(LossConfig { papo, ..default() }).starts_with("papo.mask_probability = 0"));
    let alone = PapoConfig { kl_prcp_coef: 0.0, aug_entropy_loss_coef: 0.1, ..PapoConfig::default() };
    assert!(message(LossConfig { papo: Some(alone), ..default() }).contains("changes nothing by itself"));
    let rollout_correction = CorrectionConfig { mode: CorrectionMode::SequenceMask, cap: 0.5 };
    assert!(message(LossConfig { rollout_correction, ..default() }).contains("cap = 0.5: must be above 1"));
}

#[test]
fn a_token_clip_on_a_sequence_ratio_is_refused() {
    let config = LossConfig { loss_type: LossType::Gspo, ..LossConfig::default() };
    assert_eq!(
        message(config),
        "clip_ratio_low = 0.2: would never act on the ratio of a whole sequence; GSPO was published with 3e-4 (low) and 4e-4 (high)"
    );
}

#[test]
fn contradictions_about_the_kl_are_refused() {
    let kl = |kl: KlConfig| message(LossConfig { kl, ..LossConfig::default() });
    assert_eq!(
        kl(KlConfig { disable_kl: true, use_kl_loss: true, ..KlConfig::default() }),
        "use_kl_loss = true: contradicts disable_kl = true; set one of the two to false"
    );
    let adaptive = KlConfig { disable_kl: false, use_kl_loss: true, kl_type: KlType::Adaptive, ..KlConfig::default() };
    assert!(kl(adaptive).starts_with("kl_type = adaptive"));
}

#[test]
fn streams_are_declared() {
    assert!(LossConfig::default().streams().is_empty());
    let mut config = LossConfig { papo: Some(PapoConfig::default()), ..LossConfig::default() };
    config.kl.disable_kl = false;
    config.kl.use_kl_loss = true;
    assert_eq!(config.streams(), [Stream::RefLogProbs, PerturbationConfig::default().stream(Published::PAPO, 0.6)]);
}

/// The entropy with the true image alone needs no pass with another.
#[test]
fn streams_are_declared_only_where_they_are_read() {
    let papo = PapoConfig { kl_prcp_coef: 0.0, ori_entropy_loss_coef: 0.05, ..PapoConfig::default() };
    assert!(LossConfig { papo: Some(papo), ..LossConfig::default() }.streams().is_empty());
}

#[test]
fn a_missing_stream_and_an_empty_step_are_named() {
    let rows = [vec![-1.0]];
    let inputs = LossInputs::<B> {
        log_probs: tensor(&rows, 0, 0.0),
        old_log_probs: tensor(&rows, 0, 0.0),
        advantages: tensor(&rows, 0, 0.0),
        mask: tensor(&[vec![1.0]], 0, 0.0),
        policy_mask: None,
        ref_log_probs: None,
        masked_log_probs: None,
        pictured: None,
        entropy: None,
        rollout_log_probs: None,
    };
    let over = Denominators { tokens: 1.0, responses: 1.0 };
    let error = |config: &LossConfig, over| policy_loss(config, &inputs, over).unwrap_err().to_string();
    let papo = LossConfig { papo: Some(PapoConfig::default()), ..LossConfig::default() };
    assert_eq!(
        error(&papo, over),
        "loss: papo needs masked_log_probs, which this batch does not carry; declare the stream or switch papo off"
    );
    let mut kl = LossConfig::default();
    kl.kl.disable_kl = false;
    kl.kl.use_kl_loss = true;
    assert!(error(&kl, over).contains("use_kl_loss needs ref_log_probs"));
    let full = LossConfig { entropy_coef: 0.1, entropy_type: EntropyType::Full, ..LossConfig::default() };
    assert!(error(&full, over).contains("needs entropy"));
    let correction = CorrectionConfig { mode: CorrectionMode::TokenMask, cap: 2.0 };
    let corrected = LossConfig { rollout_correction: correction, ..LossConfig::default() };
    assert!(error(&corrected, over).contains("rollout_correction needs rollout_log_probs"));
    assert_eq!(
        error(&LossConfig::default(), Denominators { tokens: 0.0, responses: 1.0 }),
        "loss: the optimizer step holds 0 tokens; averaging needs at least one"
    );
}

#[test]
fn names_are_easy_r1s() {
    let config: LossConfig = toml::from_str(
        r#"
        loss_type = "default"
        loss_avg_mode = "seq"
        clip_ratio_low = 0.2
        clip_ratio_high = 0.28
        clip_ratio_dual = 10.0
        [kl]
        disable_kl = false
        use_kl_loss = true
        kl_penalty = "low_var_kl"
        "#,
    )
    .unwrap();
    assert_eq!(config.loss_type, LossType::Ppo);
    assert_eq!(config.loss_avg_mode, LossAvgMode::Seq);
    assert!(config.kl.in_loss() && !config.kl.in_reward());
    for loss_type in LossType::ALL {
        let read: LossType = serde_json::from_value(serde_json::json!(loss_type.name())).unwrap();
        assert_eq!(read, loss_type);
    }
    assert!(toml::from_str::<LossConfig>("clip_ratio = 0.2").is_err());
}
