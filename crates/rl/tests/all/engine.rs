//! Scores, gradients and one optimizer step do not depend on how the work is cut, ordered or recomputed.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{difference, mixed_prompts, model, pairs, processor, rollout, sample, score};
use ::vgpo::PrototypeMode;
use burn::tensor::{DType, Tensor};
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Gradients, Kernels, ParamVisitor, QwenVl, Shard};
use reward::{Reward, RewardConfig, Score};
use rl::config::{Config, Source, resolve};
use rl::experience::{Experience, StepContext, grade, make};
use rl::image_cache::ImageCache;
use rl::learn::optimizer::AdamW;
use rl::learn::update::{Learner, UpdateSchedule, UpdateSettings, update};
use rl::learn::{GradientOptions, GroupRef, MicroGradients, Pass, ScoreRequest, accumulate, passes};
use rl::prompts::Item;
use rl::recipe::Recipe;
use rl::shaping::Training;
use rl::streams::perception::{perception_span, unperceived_log_probs};
use rl::trajectory::ScoredGroup;

/// Prompts and sampled responses; five groups of four, 20 to 80 tokens each.
struct Batch {
    prompts: Vec<Prompt>,
    responses: Vec<Vec<Vec<u32>>>,
}

fn batch<B: Kernels>(model: &QwenVl<B>) -> Batch {
    let prompts = mixed_prompts(model);
    // Lengths from 1 to 17 that differ within and between groups.
    let responses = (0..prompts.len())
        .map(|g| {
            (0..4)
                .map(|r| (0..1 + (7 * g + 5 * r) % 17).map(|t| ((13 * g + 29 * r + 7 * t) % 50) as u32).collect())
                .collect()
        })
        .collect();
    Batch { prompts, responses }
}

impl Batch {
    fn groups(&self) -> Vec<GroupRef<'_>> {
        self.prompts
            .iter()
            .zip(&self.responses)
            .map(|(prompt, rs)| GroupRef { prompt, responses: rs.iter().map(|r| &r[..]).collect() })
            .collect()
    }
}

/// Token budgets: each response alone, groups split, one group or two at a time, everything at once.
const BUDGETS: [usize; 5] = [1, 45, 70, 120, 100_000];

fn scores_do_not_depend_on_the_budget<B: Kernels>() {
    let model = model::<B>();
    let batch = batch(&model);
    let groups = batch.groups();
    let request = |token_budget| ScoreRequest {
        temperature: 0.8,
        entropy: true,
        focus: Some(PrototypeMode::Mean),
        dependency: false,
        token_budget,
    };
    let all = score(&model, &mut ImageCache::default(), &groups, &request(100_000));
    let check = |name: &str, got: &[&Vec<rl::learn::ResponseScores>], expected: &[&Vec<rl::learn::ResponseScores>]| {
        for (a, b) in pairs(got, expected).flat_map(|(got, expected)| pairs(*got, *expected)) {
            assert!(difference(&a.log_probs, &b.log_probs) < 1e-4, "{name}");
            assert!(difference(a.entropy.as_ref().unwrap(), b.entropy.as_ref().unwrap()) < 1e-4, "{name}");
            assert_eq!(a.visual_focus.is_some(), b.visual_focus.is_some(), "{name}");
            if let (Some(a), Some(b)) = (&a.visual_focus, &b.visual_focus) {
                assert!(difference(a, b) < 1e-5, "{name}");
            }
        }
    };
    let expected: Vec<_> = all.iter().collect();
    for budget in BUDGETS {
        let got = score(&model, &mut ImageCache::default(), &groups, &request(budget));
        check(
            &format!("budget {budget}, {} passes", passes(&groups, budget).len()),
            &got.iter().collect::<Vec<_>>(),
            &expected,
        );
    }
    assert!(passes(&groups, 45).iter().any(|pass| matches!(pass, Pass::Parts(..))), "a group is split");
    for order in [[4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
        let groups: Vec<GroupRef> = order.iter().map(|&i| groups[i].clone()).collect();
        let got = score(&model, &mut ImageCache::default(), &groups, &request(120));
        check(
            &format!("order {order:?}"),
            &got.iter().collect::<Vec<_>>(),
            &order.iter().map(|&i| &all[i]).collect::<Vec<_>>(),
        );
    }
    // Alone, nothing is padded.
    for (g, group) in groups.iter().enumerate() {
        for (r, response) in group.responses.iter().enumerate() {
            let alone = score(
                &model,
                &mut ImageCache::default(),
                &[GroupRef { prompt: group.prompt, responses: vec![response] }],
                &request(1),
            );
            check("alone", &[&alone[0]], &[&vec![all[g][r].clone()]]);
        }
    }
}

/// Gradients of a loss with different weights on each token.
fn gradients<B: Kernels>(
    model: &QwenVl<B>,
    batch: &Batch,
    token_budget: usize,
    recompute: bool,
) -> BTreeMap<String, Vec<f32>> {
    let groups = batch.groups();
    let options = GradientOptions { temperature: 1.0, entropy: true, token_budget, train_vision: true, recompute };
    let mut grads = Gradients::default();
    let device = model.device();
    accumulate(model, &mut ImageCache::default(), &groups, &options, &mut grads, |micro| -> Result<_, ()> {
        let weights: Vec<f32> = micro
            .micro
            .iter()
            .flat_map(|(g, rs)| {
                rs.iter().flat_map(move |r| {
                    (0..batch.responses[*g][*r].len()).map(move |t| ((g + 2 * r + 3 * t) as f32).sin())
                })
            })
            .collect();
        let weights = Tensor::<B, 1>::from_floats(&weights[..], &device);
        Ok(MicroGradients { entropy: Some(weights.clone().mul_scalar(0.3)), log_probs: weights })
    })
    .unwrap();
    grads.iter().map(|(name, g)| (name.clone(), g.to_data().to_vec().unwrap())).collect()
}

fn gradients_do_not_depend_on_the_budget_or_on_recomputing<B: Kernels>() {
    let model = model::<B>();
    let batch = batch(&model);
    let expected = gradients(&model, &batch, 100_000, false);
    assert!(
        expected.keys().any(|k| k.starts_with("visual.")) && expected.keys().any(|k| k.starts_with("model.layers."))
    );
    let norm = expected.values().flatten().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    for (budget, recompute) in BUDGETS.into_iter().flat_map(|b| [(b, false), (b, true)]) {
        let got = gradients(&model, &batch, budget, recompute);
        assert_eq!(got.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        let d = got
            .iter()
            .flat_map(|(k, g)| pairs(g, &expected[k]))
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(d / norm < 1e-5, "budget {budget}, recompute {recompute}: relative difference {:.1e}", d / norm);
    }
}

/// All parameters, in order.
pub(crate) struct Values(pub Vec<f32>);

impl<B: Kernels> ParamVisitor<B> for Values {
    fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.extend(tensor.to_data().to_vec::<f32>().unwrap());
    }
}

/// Adds to every parameter.
struct Shift;

impl<B: Kernels> ParamVisitor<B> for Shift {
    fn visit<const D: usize>(&mut self, _: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        *tensor = tensor.clone().add_scalar(0.01);
    }
}

/// Prompts as rows whose names are their places.
pub(crate) fn items(prompts: &[Prompt]) -> Vec<Item> {
    let item = |(row, prompt): (usize, &Prompt)| Item {
        row,
        id: row.to_string(),
        problem: String::new(),
        answer: "3".into(),
        solution: None,
        task: None,
        columns: Default::default(),
        prompt: prompt.clone(),
        images: vec![],
        holder: 0,
        known_content: None,
    };
    prompts.iter().enumerate().map(item).collect()
}

/// Responses to all kinds of prompts, with rewards that differ.
pub(crate) fn sampled_groups<B: Kernels>(model: &QwenVl<B>) -> Vec<ScoredGroup> {
    let processor = processor();
    let prompts = mixed_prompts(model);
    let responses = sample(model, &prompts.iter().collect::<Vec<_>>(), &rollout(model, 4, 12));
    let mut groups =
        grade(items(&prompts), responses, &processor, &mut Reward::new(&RewardConfig::default()).unwrap()).unwrap();
    // An untrained model earns nothing: rewards that differ.
    for (g, group) in groups.iter_mut().enumerate() {
        for (r, trajectory) in group.trajectories.iter_mut().enumerate() {
            trajectory.score.overall = ((g + 3 * r) % 4) as f64 / 3.0;
        }
    }
    groups
}

/// Each record has the score and the text of its own response, and stands with its own row.
#[test]
fn grading_keeps_responses_rows_and_scores_together() {
    type B = burn_flex::Flex<f32, i32>;
    let (model, processor) = (model::<B>(), processor());
    let prompts = mixed_prompts(&model);
    let responses = sample(&model, &prompts.iter().collect::<Vec<_>>(), &rollout(&model, 4, 12));
    let expected: Vec<Vec<Vec<u32>>> =
        responses.iter().map(|group| group.iter().map(|response| response.ids.clone()).collect()).collect();
    // What a response earns names its text and its row.
    let worth = |text: &str, id: &str| text.bytes().map(f64::from).sum::<f64>() + 1e6 * id.parse::<f64>().unwrap();
    let mut reward = Reward::from_fn(move |r| Score { overall: worth(r.response, r.id), ..Score::default() });
    let groups = grade(items(&prompts), responses, &processor, &mut reward).unwrap();
    let mut worths = BTreeSet::new();
    for (row, (group, expected)) in pairs(&groups, &expected).enumerate() {
        assert_eq!(group.item.row, row);
        for (trajectory, ids) in pairs(&group.trajectories, expected) {
            let text = processor.decode(ids, true).unwrap();
            assert_eq!((&trajectory.ids, &trajectory.text), (ids, &text), "row {row}");
            assert_eq!(trajectory.score.overall, worth(&text, &row.to_string()));
            worths.insert(trajectory.score.overall.to_bits());
        }
    }
    assert!(worths.len() > 10, "responses are alike, so that confusing them would not show: {}", worths.len());
}

pub(crate) fn experience<B: Kernels>(model: &QwenVl<B>, config: &Config) -> Experience {
    let (groups, processor) = (sampled_groups(model), processor());
    let context = StepContext {
        config,
        recipe: &Recipe::new(config).unwrap(),
        processor: Some(&processor),
        step: 1,
        training: Training { step: 1, max_steps: 2 },
        ranks: &rl::comm::Ranks::solo(),
    };
    make(model, None, groups, &context, &mut ImageCache::default()).unwrap().0
}

/// Groups that an earlier policy sampled keep the log-probs that it reported; the others get this policy's.
fn carried_groups_keep_their_policy<B: Kernels>() {
    let config = resolve(&[Source::new("test", "[data]\ntrain_files = [\"toy:sum\"]")], &[]).unwrap();
    let (sampler, processor) = (model::<B>(), processor());
    let mut groups = sampled_groups(&sampler);
    groups.iter_mut().step_by(2).for_each(|group| group.carried = true);
    let mut moved = sampler.clone();
    moved.visit(&mut Shift);
    let context = StepContext {
        config: &config,
        recipe: &Recipe::new(&config).unwrap(),
        processor: Some(&processor),
        step: 1,
        training: Training { step: 1, max_steps: 2 },
        ranks: &rl::comm::Ranks::solo(),
    };
    let made = make(&moved, None, groups, &context, &mut ImageCache::default()).unwrap().0;
    for group in &made.groups {
        for t in &group.trajectories {
            let (old, rollout) = (&t.old_log_probs, &t.rollout_log_probs);
            assert_eq!(difference(old, rollout) < 1e-6, group.carried, "{old:?} {rollout:?}");
        }
    }
    assert!(made.metrics["mismatch/log_prob_abs_mean"] > 1e-3);
}

/// What a response is worth without its description: its tokens scored behind the prompt with the description left out.
fn a_description_is_taken_out<B: Kernels>() {
    let (model, processor) = (model::<B>(), processor());
    let prompts = mixed_prompts(&model);
    let request = ScoreRequest { temperature: 1.0, entropy: false, focus: None, dependency: false, token_budget: 4096 };
    let ids = |text: &str| processor.encode_text(text).unwrap();
    let described = ids("1 <perception>3 4</perception> is 7");
    let (plain, open) = (ids("7"), ids("<perception>3 4"));
    let span = perception_span(&processor, &described).unwrap().unwrap();
    assert_eq!(processor.decode(&described[span.clone()], false).unwrap(), "<perception>3 4</perception>");
    assert_eq!(perception_span(&processor, &plain).unwrap(), None);
    assert_eq!(perception_span(&processor, &open).unwrap(), None, "a description without an end");
    let group = GroupRef { prompt: &prompts[1], responses: vec![&plain, &described, &open] };
    let of = |responses: Vec<&[u32]>| -> Vec<Vec<f32>> {
        let group = GroupRef { prompt: &prompts[1], responses };
        score(&model, &mut ImageCache::default(), &[group], &request)
            .into_iter()
            .flatten()
            .map(|s| s.log_probs)
            .collect()
    };
    let old = of(group.responses.clone());
    let spans = vec![None, Some(span.clone()), None];
    let found =
        unperceived_log_probs(&model, &mut ImageCache::default(), &group, &spans, old.clone(), &request).unwrap();
    let short = [&described[..span.start], &described[span.end..]].concat();
    let expected = &of(vec![&short])[0];
    assert_eq!((&found[0], &found[2]), (&old[0], &old[2]));
    assert_eq!(found[1][..span.end], old[1][..span.end]);
    let rest = &found[1][span.end..];
    assert!(difference(rest, &expected[span.start..]) < 1e-4, "{rest:?} {expected:?}");
    assert!(difference(rest, &old[1][span.end..]) > 1e-3, "the description matters");
}

/// One optimizer step over all groups: parameters and metrics, whatever the micro-batches.
fn an_update_does_not_depend_on_micro_batch_tokens<B: Kernels>() {
    for (loss_type, mode) in [("ppo", "token"), ("gspo", "seq")] {
        let start = model::<B>();
        let toml = format!(
            "[data]\ntrain_files = [\"toy:sum\"]\nrollout_batch_size = 5\n[algorithm]\nshaping = \"vgpo\"\n[actor]\nglobal_batch_size = 5\nloss_type = \"{loss_type}\"\nloss_avg_mode = \"{mode}\"\nclip_ratio_low = 0.0003\nclip_ratio_high = 0.0004\n[actor.optim]\nlr = 1e-2\neps = 1e-2"
        );
        let config = |budget: usize| {
            resolve(&[Source::new("test", &toml)], &[format!("actor.micro_batch_tokens={budget}")]).unwrap()
        };
        let experience = experience(&start, &config(100_000));
        let run = |budget: usize, recompute: bool| {
            let (mut policy, config) = (start.clone(), config(budget));
            let mut optimizer = AdamW::new(&config.actor.optim);
            let options = GradientOptions {
                temperature: 1.0,
                entropy: false,
                token_budget: budget,
                train_vision: true,
                recompute,
            };
            let mut schedule = UpdateSchedule { done: 0, total: 1 };
            let (metrics, _) = update(
                Learner {
                    policy: &mut policy,
                    optimizer: &mut optimizer,
                    images: &mut ImageCache::default(),
                    ranks: &rl::comm::Ranks::solo(),
                },
                &experience,
                UpdateSettings { config: &config, loss: &config.to_loss_config(), options: &options },
                &mut schedule,
            )
            .unwrap();
            let mut values = Values(vec![]);
            policy.visit(&mut values);
            (values.0, metrics)
        };
        let (expected, metrics) = run(100_000, false);
        let mut before = Values(vec![]);
        start.clone().visit(&mut before);
        assert!(difference(&expected, &before.0) > 1e-4, "the step moves the weights");
        for (budget, recompute) in [(1, false), (45, true), (70, false), (120, true), (100_000, true)] {
            let (got, found) = run(budget, recompute);
            let d = difference(&got, &expected);
            assert!(d < 1e-5, "{loss_type}, budget {budget}: parameters differ by {d}");
            assert_eq!(found.keys().collect::<Vec<_>>(), metrics.keys().collect::<Vec<_>>());
            for (key, value) in &found {
                assert!(
                    (value - metrics[key]).abs() < 1e-5 * (1.0 + value.abs()),
                    "{loss_type}, budget {budget}: {key} is {value}, not {}",
                    metrics[key]
                );
            }
        }
    }
}

/// Several optimizer steps with image embeddings that are already there: read where the tower is frozen, not where it
/// learns.
fn an_update_knows_which_pictures_are_current<B: Kernels>() {
    let start = model::<B>();
    let toml = "[data]\ntrain_files = [\"toy:sum\"]\nrollout_batch_size = 5\n[algorithm]\nshaping = \"vgpo\"\n[actor]\nglobal_batch_size = 1\nppo_epochs = 2\nmicro_batch_tokens = 60\n[actor.optim]\nlr = 1e-2\neps = 1e-2";
    let config = resolve(&[Source::new("test", toml)], &[]).unwrap();
    let experience = experience(&start, &config);
    let prompts: Vec<&Prompt> = experience.groups.iter().map(|g| &g.item.prompt).collect();
    let run = |images: &mut ImageCache<B>, train_vision: bool, recompute: bool| {
        let mut policy = start.clone();
        let mut optimizer = AdamW::new(&config.actor.optim);
        let options = GradientOptions { temperature: 1.0, entropy: false, token_budget: 60, train_vision, recompute };
        let learner =
            Learner { policy: &mut policy, optimizer: &mut optimizer, images, ranks: &rl::comm::Ranks::solo() };
        let mut schedule = UpdateSchedule { done: 0, total: 10 };
        let settings = UpdateSettings { config: &config, loss: &config.to_loss_config(), options: &options };
        update(learner, &experience, settings, &mut schedule).unwrap();
        assert_eq!(schedule.done, 10);
        let mut values = Values(vec![]);
        policy.visit(&mut values);
        values.0
    };
    for (train_vision, recompute) in [(false, false), (false, true), (true, false)] {
        let expected = run(&mut ImageCache::default(), train_vision, recompute);
        let mut warm = ImageCache::new(1.0);
        // Of this tower where it is frozen; of another one where it learns.
        let mut other = start.clone();
        if train_vision {
            other.visit(&mut Shift);
        }
        warm.embed(&other, &prompts);
        let encoded = warm.encoded();
        let got = run(&mut warm, train_vision, recompute);
        let d = difference(&got, &expected);
        assert!(d < 1e-5, "train_vision {train_vision}, recompute {recompute}: parameters differ by {d}");
        assert_eq!(warm.encoded(), encoded);
        assert_eq!(warm.bytes() > 0, !train_vision, "what a learning tower made is forgotten");
    }
}

/// 16-bit weights: parts of a group find what one pass finds, up to what 16 bits hold.
#[test]
fn parts_in_16_bits() {
    type B = burn_flex::Flex<f32, i32>;
    let model = crate::common::model_in::<B>(DType::BF16);
    let batch = batch(&model);
    let groups = batch.groups();
    let request = |token_budget| ScoreRequest {
        temperature: 1.0,
        entropy: false,
        focus: Some(PrototypeMode::Mean),
        dependency: false,
        token_budget,
    };
    let all = |budget| -> Vec<f32> {
        let scores = score(&model, &mut ImageCache::default(), &groups, &request(budget));
        scores.into_iter().flatten().flat_map(|s| s.log_probs).collect()
    };
    let gap = difference(&all(1), &all(100_000));
    println!("log-probs {gap:.1e}");
    assert!(gap < 0.02, "{gap}");
    let whole = gradients(&model, &batch, 100_000, false);
    for recompute in [false, true] {
        let parts = gradients(&model, &batch, 45, recompute);
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let size = norm(&mut whole.values().flatten().map(|v| f64::from(*v)));
        let both = whole.iter().flat_map(|(name, g)| pairs(g, &parts[name]));
        let gap = norm(&mut both.map(|(a, b)| f64::from(a - b))) / size;
        println!("gradients, recompute {recompute}: {gap:.1e}");
        assert!(gap < 0.02, "recompute {recompute}: {gap}");
    }
}

on!(flex, burn_flex::Flex<f32, i32>: scores_do_not_depend_on_the_budget carried_groups_keep_their_policy a_description_is_taken_out
    gradients_do_not_depend_on_the_budget_or_on_recomputing an_update_does_not_depend_on_micro_batch_tokens an_update_knows_which_pictures_are_current);
on!(ndarray, burn_ndarray::NdArray<f32>: scores_do_not_depend_on_the_budget an_update_does_not_depend_on_micro_batch_tokens);
