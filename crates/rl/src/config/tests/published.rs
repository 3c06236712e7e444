//! The configurations of published runs against the values that their papers and released scripts give, not against one
//! another.

use super::*;

/// A value as TOML writes it.
type Setting = (&'static str, &'static str);

/// VGPO (arXiv 2604.09349, section 5.1 and table 7, and its released run): DAPO with dynamic sampling as the base.
const VGPO: &[Setting] = &[
    ("algorithm.shaping", "\"vgpo\""),
    ("algorithm.vgpo.variant", "\"paper\""),
    ("algorithm.vgpo.beta", "0.3"),
    ("algorithm.vgpo.gamma", "0.5"),
    ("algorithm.vgpo.kappa", "0.2"),
    ("algorithm.vgpo.schedule", "\"linear\""),
    ("algorithm.vgpo.inter_score", "\"sum\""),
    ("algorithm.vgpo.prototype", "\"mean\""),
    ("algorithm.vgpo.intra", "true"),
    ("algorithm.vgpo.inter", "true"),
    ("algorithm.vgpo.compensation", "true"),
    ("algorithm.vgpo.gate", "true"),
    ("data.rollout_batch_size", "512"),
    ("rollout.n", "8"),
    ("rollout.val_temperature", "0.0"),
    ("rollout.val_n", "1"),
    ("data.min_pixels", "262144"),
    ("data.max_pixels", "4194304"),
    ("trainer.max_try_make_batch", "0"),
];

/// DAPO as the base of the vision papers: clip-higher, token average, no KL, dynamic sampling on the accuracy.
const DAPO: &[Setting] = &[
    ("algorithm.adv_estimator", "\"grpo\""),
    ("algorithm.disable_kl", "true"),
    ("algorithm.online_filtering", "true"),
    ("algorithm.filter_key", "\"accuracy\""),
    ("algorithm.filter_low", "0.01"),
    ("algorithm.filter_high", "0.99"),
    ("actor.loss_type", "\"ppo\""),
    ("actor.loss_avg_mode", "\"token\""),
    ("actor.clip_ratio_low", "0.2"),
    ("actor.clip_ratio_high", "0.28"),
    ("reward.reward_type", "\"math_accuracy\""),
];

/// What all of them share: EasyR1's optimizer, two epochs of ViRL39K, prompts and responses of 4096 and 2048 tokens.
const VISION: &[Setting] = &[
    ("model.freeze_vision_tower", "false"),
    ("data.max_prompt_length", "4096"),
    ("data.max_response_length", "2048"),
    ("data.format_prompt", "\"math_perception\""),
    ("rollout.temperature", "1.0"),
    ("rollout.top_p", "0.99"),
    ("actor.global_batch_size", "128"),
    ("actor.ppo_epochs", "1"),
    ("trainer.total_epochs", "2"),
];

/// EasyR1's optimizer.
const ADAMW: &[Setting] = &[
    ("actor.optim.lr", "1e-6"),
    ("actor.optim.weight_decay", "0.01"),
    ("actor.optim.betas", "[0.9, 0.999]"),
    ("actor.optim.lr_scheduler_type", "\"constant\""),
    ("actor.optim.lr_warmup_steps", "0"),
    ("actor.max_grad_norm", "1.0"),
    ("actor.clip_ratio_dual", "3.0"),
];

/// VPPO (arXiv 2510.09285 and its released scripts).
const VPPO: &[Setting] = &[
    ("algorithm.shaping", "\"vppo\""),
    ("algorithm.vppo.token_filtering", "true"),
    ("algorithm.vppo.keep_share", "0.4"),
    ("algorithm.vppo.trajectory_shaping", "true"),
    ("algorithm.vppo.beta_min", "0.9"),
    ("algorithm.vppo.mask_probability", "0.5"),
    ("data.rollout_batch_size", "384"),
    ("rollout.n", "8"),
    ("rollout.val_temperature", "1.0"),
    ("rollout.val_n", "8"),
    ("data.min_pixels", "200704"),
    ("data.max_pixels", "1003520"),
    ("actor.entropy_coef", "0.06"),
    ("actor.entropy_type", "\"sampled\""),
    ("trainer.val_freq", "5"),
    ("trainer.max_try_make_batch", "0"),
];

/// PAPO-G (arXiv 2507.06448).
const PAPO: &[Setting] = &[
    ("algorithm.shaping", "\"none\""),
    ("algorithm.papo.kl_prcp_coef", "0.02"),
    ("algorithm.papo.mask_probability", "0.6"),
    ("algorithm.disable_kl", "false"),
    ("algorithm.use_kl_loss", "true"),
    ("algorithm.kl_penalty", "\"low_var_kl\""),
    ("algorithm.kl_coef", "0.01"),
    ("actor.clip_ratio_low", "0.2"),
    ("actor.clip_ratio_high", "0.3"),
];

/// Its entropy terms: 0.05 at 7B, none at 3B.
const PAPO_ENTROPY: &[Setting] =
    &[("algorithm.papo.ori_entropy_loss_coef", "0.05"), ("algorithm.papo.aug_entropy_loss_coef", "0.05")];
const PAPO_NO_ENTROPY: &[Setting] =
    &[("algorithm.papo.ori_entropy_loss_coef", "0.0"), ("algorithm.papo.aug_entropy_loss_coef", "0.0")];

/// EasyR1's GRPO baseline on Geometry3K: 512 x 5, 2048 and 2048 tokens, accuracy and format.
const GRPO: &[Setting] = &[
    ("algorithm.shaping", "\"none\""),
    ("algorithm.adv_estimator", "\"grpo\""),
    ("algorithm.disable_kl", "false"),
    ("algorithm.kl_penalty", "\"low_var_kl\""),
    ("algorithm.kl_coef", "0.01"),
    ("algorithm.online_filtering", "false"),
    ("actor.clip_ratio_low", "0.2"),
    ("actor.clip_ratio_high", "0.3"),
    ("actor.global_batch_size", "128"),
    ("data.rollout_batch_size", "512"),
    ("rollout.n", "5"),
    ("data.max_prompt_length", "2048"),
    ("data.max_response_length", "2048"),
    ("reward.reward_type", "\"math\""),
    ("reward.accuracy_weight", "0.9"),
    ("reward.format_weight", "0.1"),
];

/// The value of a dotted key in the resolved configuration.
fn value(config: &toml::Table, key: &str) -> Option<toml::Value> {
    let mut parts = key.split('.');
    let mut value = config.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value.clone())
}

/// Settings of an algorithm on a model that are not the published ones.
fn compare(model: &str, algorithm: &str, settings: &[&[Setting]]) -> Vec<String> {
    let config: toml::Table = toml::from_str(&presets::trained(model, algorithm).to_toml()).unwrap();
    let wrong = |(key, published): &Setting| {
        let published: toml::Table = toml::from_str(&format!("value = {published}")).unwrap();
        let found = value(&config, key);
        (found.as_ref() != published.get("value"))
            .then(|| format!("{algorithm} on {model}: {key} is {found:?}, published {:?}", published["value"]))
    };
    settings.iter().flat_map(|list| list.iter()).filter_map(wrong).collect()
}

#[test]
fn published_runs_have_their_papers_settings() {
    let mut wrong = Vec::new();
    for model in ["qwen2_5_vl_3b", "qwen2_5_vl_7b", "qwen2_5_vl_32b"] {
        wrong.extend(compare(model, "vgpo", &[VGPO, DAPO, VISION, ADAMW]));
        wrong.extend(compare(model, "dapo", &[DAPO, VISION, ADAMW]));
        wrong.extend(compare(model, "vppo", &[VPPO, DAPO, VISION, ADAMW]));
        wrong.extend(compare(model, "papo_g", &[PAPO, PAPO_ENTROPY, VISION, ADAMW]));
        wrong.extend(compare(model, "grpo", &[GRPO, ADAMW]));
    }
    wrong.extend(compare("qwen2_5_vl_3b", "papo_g_3b", &[PAPO, PAPO_NO_ENTROPY, VISION, ADAMW]));
    assert!(wrong.is_empty(), "{} settings differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A test of values that cannot fail compares nothing: a key that is not there and a value that is another are both
/// seen.
#[test]
fn the_comparison_sees_a_wrong_value() {
    let compare = |setting: Setting| compare("qwen2_5_vl_7b", "vgpo", &[&[setting]]);
    assert_eq!(compare(("algorithm.vgpo.beta", "0.3")), [] as [String; 0]);
    for wrong in [("algorithm.vgpo.beta", "0.4"), ("algorithm.vgpo.betta", "0.3"), ("rollout.n", "8.0")] {
        assert_eq!(compare(wrong).len(), 1, "{wrong:?}");
    }
}
