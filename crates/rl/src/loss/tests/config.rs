//! What the configuration accepts, and what it says when it does not.

use super::*;
use crate::perturb::{PerturbationConfig, Published};
use crate::shaping::Stream;

fn message(config: LossConfig) -> String {
    config.validate().unwrap_err().to_string()
}

#[test]
fn defaults_and_published_settings_are_valid() {
    for loss_type in losses() {
        published(loss_type).validate().unwrap();
    }
}

/// The bundles give what the papers say.
#[test]
fn published_settings_are_those_of_the_bundles() {
    for name in ["gspo", "gspo_token", "cispo", "sapo"] {
        let config = crate::config::resolve(&[], &[format!("algorithm.name={name}")]).unwrap();
        let (found, expected) = (config.to_loss_config(), published(name));
        assert_eq!(found.loss_type, expected.loss_type);
        assert_eq!(found.loss_avg_mode, expected.loss_avg_mode, "{name}");
        assert_eq!(found.clip_ratio_low, expected.clip_ratio_low, "{name}");
        // CISPO's and SAPO's stand on DAPO, which clips higher.
        let high = if name.starts_with("gspo") { expected.clip_ratio_high } else { 0.28 };
        assert_eq!(found.clip_ratio_high, high, "{name}");
        assert_eq!(config.warnings(), []);
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
    assert!(message(LossConfig { entropy_coef: f64::NAN, ..default() }).starts_with("entropy_coef"));
    let rollout_correction = CorrectionConfig { mode: CorrectionMode::TokenMask, cap: 0.0 };
    assert!(message(LossConfig { rollout_correction, ..default() }).contains("cap = 0"));
    let rollout_correction = CorrectionConfig { mode: CorrectionMode::SequenceMask, cap: 0.5 };
    assert!(message(LossConfig { rollout_correction, ..default() }).contains("cap = 0.5: must be above 1"));
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
    let mut config = LossConfig { papo: Some(papo_g()), ..LossConfig::default() };
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
    let papo = LossConfig { papo: Some(papo_g()), ..LossConfig::default() };
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
