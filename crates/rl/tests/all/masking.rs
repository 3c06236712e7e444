//! Responses that did not end can be left out of the loss, whatever divides it and however the work is cut; a step of
//! nothing else, or without a finite gradient, is no step.

use std::collections::BTreeMap;

use crate::common::{difference, model};
use crate::engine::{Values, experience};
use model_qwen2vl::{Kernels, QwenVl};
use rl::config::{Config, Source, resolve};
use rl::experience::Experience;
use rl::image_cache::ImageCache;
use rl::learn::GradientOptions;
use rl::learn::optimizer::AdamW;
use rl::learn::update::{Learner, UpdateSchedule, UpdateSettings, update};
use rl::rollout::FinishReason;

fn config(settings: &[&str]) -> Config {
    let text = r#"
[data]
train_files = ["toy:sum"]
rollout_batch_size = 5
max_response_length = 12
[algorithm]
shaping = "vgpo"
[actor]
global_batch_size = 5
[actor.optim]
lr = 1e-2
eps = 1e-2
"#;
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    resolve(&[Source::new("test", text)], &settings).unwrap()
}

/// Parameters and metrics after an update.
fn updated<B: Kernels>(
    start: &QwenVl<B>,
    experience: &Experience,
    config: &Config,
) -> (Vec<f32>, BTreeMap<String, f64>, UpdateSchedule) {
    let mut policy = start.clone();
    let mut optimizer = AdamW::new(&config.actor.optim);
    let options = GradientOptions {
        temperature: 1.0,
        entropy: false,
        token_budget: config.actor.micro_batch_tokens,
        train_vision: true,
        recompute: false,
    };
    let mut schedule = UpdateSchedule { done: 0, total: 5 };
    let learner = Learner {
        policy: &mut policy,
        optimizer: &mut optimizer,
        images: &mut ImageCache::default(),
        ranks: &rl::comm::Ranks::solo(),
    };
    let settings = UpdateSettings { config, loss: &config.to_loss_config(), options: &options };
    let (metrics, _) = update(learner, experience, settings, &mut schedule).unwrap();
    (parameters(&policy), metrics, schedule)
}

fn parameters<B: Kernels>(policy: &QwenVl<B>) -> Vec<f32> {
    let mut values = Values(vec![]);
    policy.clone().visit(&mut values);
    values.0
}

/// Says of each response whether it ended: `is_cut(group, response)`.
fn cut(experience: &mut Experience, is_cut: impl Fn(usize, usize) -> bool) {
    for (g, group) in experience.groups.iter_mut().enumerate() {
        for (r, response) in group.trajectories.iter_mut().enumerate() {
            response.finish = if is_cut(g, r) { FinishReason::Length } else { FinishReason::Stop };
        }
    }
}

/// The same without the responses that did not end, as if they had never been sampled; their group's advantages stay.
fn without_cut(experience: &Experience) -> Experience {
    let mut out = experience.clone();
    for group in &mut out.groups {
        group.trajectories.retain(|t| t.finish == FinishReason::Stop);
    }
    out.groups.retain(|group| !group.trajectories.is_empty());
    out
}

fn same(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (key, value) in found {
        let d = (value - expected[key]).abs();
        assert!(d < 1e-5 * (1.0 + value.abs()), "{what}: {key} is {value}, not {}", expected[key]);
    }
}

/// Left out is as good as never sampled: the same weights and metrics for every average and every cut into
/// micro-batches.
#[test]
fn truncated_responses_are_out_of_the_loss_and_of_its_denominator() {
    type B = burn_flex::Flex<f32, i32>;
    let start = model::<B>();
    let mut full = experience(&start, &config(&[]));
    // One response in three, and the whole fourth group.
    cut(&mut full, |g, r| (g + r).is_multiple_of(3) || g == 3);
    let rest = without_cut(&full);
    let left = rest.trajectories().count();
    assert!(left > 8 && left < 14 && rest.groups.len() == 4);
    // What they hold must not matter.
    let mut wild = full.clone();
    for response in wild.trajectories_mut().filter(|t| t.finish == FinishReason::Length) {
        response.advantages.fill(f32::NAN);
        response.old_log_probs.fill(-1e30);
    }
    for mode in ["token", "seq", "constant"] {
        let mode = format!("actor.loss_avg_mode={mode}");
        let masked = |budget: usize| {
            config(&[&mode, "actor.mask_truncated=true", &format!("actor.micro_batch_tokens={budget}")])
        };
        let (expected, metrics, _) = updated(&start, &rest, &config(&[&mode]));
        assert!(difference(&expected, &parameters(&start)) > 1e-4, "the step moves the weights");
        for budget in [1, 60, 100_000] {
            let (got, found, _) = updated(&start, &wild, &masked(budget));
            let d = difference(&got, &expected);
            assert!(d < 1e-5, "{mode}, budget {budget}: parameters differ by {d}");
            same(&found, &metrics, &format!("{mode}, budget {budget}"));
        }
        let (unmasked, found, _) = updated(&start, &full, &config(&[&mode]));
        assert!(difference(&unmasked, &expected) > 1e-4, "{mode}: it changes something");
        assert!((found["actor/pg_loss"] - metrics["actor/pg_loss"]).abs() > 1e-4, "{mode}");
        if mode.ends_with("constant") {
            // Cut into micro-batches, without a mask.
            for budget in [1, 60] {
                let cut = config(&[&mode, &format!("actor.micro_batch_tokens={budget}")]);
                let (got, cut, _) = updated(&start, &full, &cut);
                assert!(difference(&got, &unmasked) < 1e-5, "budget {budget}");
                same(&cut, &found, &format!("constant, budget {budget}"));
            }
        }
    }
}

/// An optimizer step of nothing but truncated responses divides nothing by zero: it is skipped, and the others are
/// taken.
#[test]
fn a_mini_batch_of_truncated_responses_is_skipped() {
    type B = burn_flex::Flex<f32, i32>;
    let start = model::<B>();
    let alone = config(&["actor.mask_truncated=true", "actor.global_batch_size=1"]);
    let mut one = experience(&start, &alone);
    cut(&mut one, |g, _| g == 2);
    for mode in ["token", "seq", "constant"] {
        let alone =
            config(&["actor.mask_truncated=true", "actor.global_batch_size=1", &format!("actor.loss_avg_mode={mode}")]);
        let (expected, _, _) = updated(&start, &without_cut(&one), &alone);
        let (got, metrics, schedule) = updated(&start, &one, &alone);
        assert!(difference(&got, &expected) < 1e-6, "{mode}");
        assert_eq!((metrics["actor/skipped_steps"], schedule.done), (0.2, 5));
        assert!(metrics.values().all(|value| value.is_finite()), "{metrics:?}");
        assert!(metrics["actor/grad_norm"] > 0.0);

        let mut all = one.clone();
        cut(&mut all, |_, _| true);
        let (got, metrics, schedule) = updated(&start, &all, &alone);
        assert_eq!(difference(&got, &parameters(&start)), 0.0, "{mode}: nothing moves, not even by weight decay");
        assert!(metrics["actor/grad_norm"].is_nan(), "{metrics:?}");
        assert_eq!((metrics["actor/skipped_steps"], schedule.done), (1.0, 5));
        assert_eq!(metrics.keys().collect::<Vec<_>>(), ["actor/grad_norm", "actor/skipped_steps"]);
    }
}

/// Where no gradient was finite there is no norm to report: a 0 would look like a policy at rest.
#[test]
fn the_gradient_norm_of_no_step_is_not_a_number() {
    type B = burn_flex::Flex<f32, i32>;
    let start = model::<B>();
    let config = config(&["actor.global_batch_size=1"]);
    let mut experience = experience(&start, &config);
    experience.trajectories_mut().for_each(|t| t.advantages.fill(f32::NAN));
    let (got, metrics, _) = updated(&start, &experience, &config);
    assert_eq!(difference(&got, &parameters(&start)), 0.0);
    assert!(metrics["actor/grad_norm"].is_nan() && metrics["actor/skipped_steps"] == 1.0, "{metrics:?}");
    // One that was taken is the mean.
    experience.trajectories_mut().take(4).for_each(|t| t.advantages.fill(0.5));
    let (_, metrics, _) = updated(&start, &experience, &config);
    assert!(metrics["actor/grad_norm"] > 0.0 && (metrics["actor/skipped_steps"] - 0.8).abs() < 1e-12, "{metrics:?}");
}
