//! What the metrics of a step say that a person should hear: a run that goes on and learns nothing looks like any
//! other.

use crate::config::Config;
use crate::experience::Metrics;

/// From this share on a thing happens nearly always.
const NEARLY_ALL: f64 = 0.95;

/// Every optimizer step of a training step was skipped for its gradient.
pub(crate) const NOT_FINITE: &str = "every optimizer step of this training step was skipped, because its gradient was \
     not finite, so nothing was learned (actor/grad_norm is null); if it goes on, the weights are broken or about to \
     be: go back to a checkpoint before it and lower actor.optim.lr";

/// Every optimizer step was skipped because it held nothing but responses that were cut.
const ALL_TRUNCATED: &str = "every response of this step was cut at data.max_response_length, and \
     actor.mask_truncated leaves those out of the loss, so nothing was learned (actor/grad_norm is null); raise the \
     length or set it to false";

/// The warnings of an RL step: each with a name under which it is given once per run.
pub(crate) fn of_step(metrics: &Metrics, config: &Config) -> Vec<(&'static str, String)> {
    let of = |key: &str| metrics.get(key).copied().unwrap_or(0.0);
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    let mut found = Vec::new();

    let cut = of("response_length/clip_ratio");
    if cut >= NEARLY_ALL {
        found.push((
            "truncated",
            format!(
                "{} of the responses of this step were cut at data.max_response_length = {} \
                 (response_length/clip_ratio): hardly one ends by itself or comes to an answer; raise the length, or \
                 see in rollouts/step_N.jsonl whether the model emits an end token that is not in its config.json or \
                 generation_config.json",
                percent(cut),
                config.data.max_response_length
            ),
        ));
    }
    let clipped = ["low", "high", "dual"].map(|side| of(&format!("actor/clip_fraction_{side}"))).iter().sum::<f64>();
    if clipped >= NEARLY_ALL {
        found.push((
            "clipped",
            format!(
                "the clip acts on {} of the tokens of this step (actor/clip_fraction_*), so hardly any moves the \
                 policy as its advantage says; the policy has left the one that sampled: lower actor.optim.lr or \
                 actor.ppo_epochs, or widen actor.clip_ratio_low = {} and actor.clip_ratio_high = {}",
                percent(clipped),
                config.actor.clip_ratio_low,
                config.actor.clip_ratio_high
            ),
        ));
    }
    if of("actor/skipped_steps") >= 1.0 {
        // Steps without a response have no loss, and those with one have.
        found.push(match metrics.contains_key("actor/loss") {
            true => ("skipped", NOT_FINITE.to_string()),
            false => ("all truncated", ALL_TRUNCATED.to_string()),
        });
    }
    let flat = of("group/zero_variance_share");
    let algorithm = &config.algorithm;
    if algorithm.online_filtering && algorithm.needs_group() && flat > 0.0 {
        found.push((
            "flat",
            format!(
                "{} of the prompts that algorithm.filter_key = \"{}\" kept have responses that all earned the same \
                 reward: their advantages (\"{}\") are 0 and they teach nothing; set algorithm.filter_zero_variance \
                 = true, or filter by \"overall\"",
                percent(flat),
                algorithm.filter_key,
                algorithm.adv_estimator
            ),
        ));
    }
    found
}

/// What is said when `rounds` rounds of dynamic sampling, all that are allowed, have not filled the batch.
pub(crate) fn not_filled(config: &Config, kept: usize, rounds: usize) -> String {
    let algorithm = &config.algorithm;
    match kept {
        0 => format!(
            "warning: no prompt had a mean {} between {} and {} in {rounds} rounds, so this step updates nothing; the \
             task is too hard or too easy for this model, or trainer.max_try_make_batch is too small",
            algorithm.filter_key, algorithm.filter_low, algorithm.filter_high
        ),
        kept => format!(
            "warning: only {kept} of {} prompts were kept in {rounds} rounds (trainer.max_try_make_batch)",
            config.data.rollout_batch_size
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(metrics: &[(&str, f64)], config: &Config) -> Vec<&'static str> {
        let metrics = metrics.iter().map(|(key, value)| (key.to_string(), *value)).collect();
        of_step(&metrics, config).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn what_is_nearly_always_so_is_said() {
        let config = Config::default();
        let quiet = [
            ("response_length/clip_ratio", 0.94),
            ("actor/clip_fraction_low", 0.5),
            ("actor/clip_fraction_high", 0.4),
            ("actor/skipped_steps", 0.75),
            ("actor/loss", 0.1),
            ("group/zero_variance_share", 1.0),
        ];
        assert!(kinds(&quiet, &config).is_empty());
        assert!(kinds(&[], &config).is_empty());
        assert_eq!(kinds(&[("response_length/clip_ratio", 0.96)], &config), ["truncated"]);
        let clipped =
            [("actor/clip_fraction_low", 0.5), ("actor/clip_fraction_high", 0.4), ("actor/clip_fraction_dual", 0.06)];
        assert_eq!(kinds(&clipped, &config), ["clipped"]);
        assert_eq!(kinds(&[("actor/skipped_steps", 1.0), ("actor/loss", f64::NAN)], &config), ["skipped"]);
        assert_eq!(kinds(&[("actor/skipped_steps", 1.0)], &config), ["all truncated"]);
    }

    #[test]
    fn flat_groups_matter_where_they_were_meant_to_be_filtered() {
        let mut config = Config::default();
        let flat = [("group/zero_variance_share", 0.25)];
        assert!(kinds(&flat, &config).is_empty(), "nothing was filtered");
        config.algorithm.online_filtering = true;
        config.algorithm.filter_key = "format".into();
        assert_eq!(kinds(&flat, &config), ["flat"]);
        let metrics = flat.map(|(key, value)| (key.to_string(), value)).into();
        let text = &of_step(&metrics, &config)[0].1;
        assert!(text.starts_with("25% of the prompts that algorithm.filter_key = \"format\" kept"), "{text}");
        // These compare with other things than the group.
        for estimator in ["remax", "reinforce_plus_plus"] {
            config.algorithm.adv_estimator = estimator.to_string();
            assert!(kinds(&flat, &config).is_empty());
        }
    }
}
