//! The tower sees a picture once per policy version: what is kept of it changes no result, and never stands for another
//! picture.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::{difference, mixed_prompts, model, pairs, rollout, score};
use ::vgpo::PrototypeMode;
use burn::tensor::Tensor;
use burn_flex::Flex;
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Gradients, QwenVl};
use rl::image_cache::ImageCache;
use rl::learn::{GradientOptions, GroupRef, MicroGradients, ResponseScores, ScoreRequest, accumulate};
use rl::policy::Scoring;
use rl::rollout::{Job, generate};

type B = Flex<f32, i32>;

const REQUEST: ScoreRequest = ScoreRequest {
    temperature: 1.0,
    entropy: false,
    focus: Some(PrototypeMode::Mean),
    dependency: false,
    token_budget: 60,
};

fn pictured(prompts: &[Prompt]) -> usize {
    prompts.iter().filter(|p| !p.image_grid_thw.is_empty()).count()
}

fn groups<'a>(prompts: &'a [Prompt], responses: &'a [Vec<u32>]) -> Vec<GroupRef<'a>> {
    prompts.iter().map(|prompt| GroupRef { prompt, responses: responses.iter().map(|r| &r[..]).collect() }).collect()
}

fn responses() -> Vec<Vec<u32>> {
    (0..4u32).map(|r| (0..3 + 4 * r).map(|t| (29 * r + 7 * t) % 50).collect()).collect()
}

fn same(a: &[Vec<ResponseScores>], b: &[Vec<ResponseScores>]) -> bool {
    pairs(a, b).flat_map(|(a, b)| pairs(a, b)).all(|(a, b)| {
        let focus = match (&a.visual_focus, &b.visual_focus) {
            (Some(a), Some(b)) => difference(a, b) < 1e-5,
            (a, b) => a.is_none() && b.is_none(),
        };
        focus && difference(&a.log_probs, &b.log_probs) < 1e-4
    })
}

/// Gradients with a tower that is frozen or learns.
fn gradients(
    model: &QwenVl<B>,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    train_vision: bool,
) -> BTreeMap<String, Vec<f32>> {
    let options =
        GradientOptions { temperature: 1.0, entropy: false, token_budget: 60, train_vision, recompute: false };
    let mut grads = Gradients::default();
    accumulate(model, images, groups, &options, &mut grads, |micro| -> Result<_, ()> {
        let count = micro.lengths.iter().sum();
        let weights: Vec<f32> = (0..count).map(|t: usize| (t as f32).sin()).collect();
        Ok(MicroGradients { log_probs: Tensor::from_floats(&weights[..], &model.device()), entropy: None })
    })
    .unwrap();
    grads.iter().map(|(name, g)| (name.clone(), g.to_data().to_vec().unwrap())).collect()
}

#[test]
fn a_picture_is_computed_once_from_rollout_to_update() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let responses = responses();
    let groups = groups(&prompts, &responses);
    let (none, kept) = (&mut ImageCache::default(), &mut ImageCache::new(1.0));
    let jobs: Vec<Job> = prompts.iter().enumerate().map(|(i, prompt)| Job { prompt, key: i as u64 }).collect();
    let sample = |images: &mut ImageCache<B>| {
        let config = rollout(&model, 3, 8);
        generate(&model, &jobs, &config, images, &AtomicBool::new(false), |_, _, _| {}).unwrap().0
    };
    assert_eq!(sample(none), sample(kept));
    assert_eq!((none.encoded(), kept.encoded()), (pictured(&prompts), pictured(&prompts)));
    assert_eq!(none.bytes(), 0);
    assert!(kept.bytes() > 0);
    let expected = score(&model, none, &groups, &REQUEST);
    // Clones of a prompt share its pixels.
    let clones = prompts.clone();
    assert!(same(&expected, &score(&model, kept, &self::groups(&clones, &responses), &REQUEST)));
    let frozen = gradients(&model, none, &groups, false);
    let from_kept = gradients(&model, kept, &groups, false);
    assert!(frozen.keys().all(|name| !name.starts_with("visual.")));
    assert_eq!(frozen.keys().collect::<Vec<_>>(), from_kept.keys().collect::<Vec<_>>());
    for (name, values) in &frozen {
        let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(difference(values, &from_kept[name]) <= 1e-4 * largest, "{name}");
    }
    assert_eq!((none.encoded(), kept.encoded()), (3 * pictured(&prompts), pictured(&prompts)));
    // A tower that learns does not read what is kept.
    assert!(gradients(&model, kept, &groups, true).keys().any(|name| name.starts_with("visual.")));
    kept.clear();
    assert_eq!(kept.bytes(), 0);
    assert!(same(&expected, &score(&model, kept, &groups, &REQUEST)));
    assert_eq!(kept.encoded(), 2 * pictured(&prompts));
}

/// The same rows twice in a batch, and prompts with two pictures; in one pass, and in parts of one response.
#[test]
fn twins_and_several_pictures() {
    let model = model::<B>();
    let single = mixed_prompts(&model);
    let join = |a: &Prompt, b: &Prompt| {
        let pixels = [&a.pixel_values[..], &b.pixel_values[..]].concat();
        let grids = [&a.image_grid_thw[..], &b.image_grid_thw[..]].concat();
        model.prompt([&a.input_ids[..], &b.input_ids[..]].concat(), pixels, grids).unwrap()
    };
    let double = join(&single[0], &single[1]);
    assert_eq!(double.image_grid_thw.len(), 2);
    let prompts = [double.clone(), single[1].clone(), double.clone(), single[3].clone(), single[1].clone()];
    let responses = responses();
    let groups = groups(&prompts, &responses);
    for focus in [PrototypeMode::Mean, PrototypeMode::PerImage] {
        let request = |token_budget| ScoreRequest { focus: Some(focus), token_budget, ..REQUEST };
        let expected: Vec<_> = groups
            .iter()
            .flat_map(|group| score(&model, &mut ImageCache::default(), std::slice::from_ref(group), &request(100_000)))
            .collect();
        for budget in [1, 100_000] {
            let kept = &mut ImageCache::new(1.0);
            assert!(same(&expected, &score(&model, kept, &groups, &request(budget))), "{focus:?}, budget {budget}");
            assert_eq!(kept.encoded(), 2, "budget {budget}");
            assert!(same(&expected, &score(&model, kept, &groups, &request(budget))), "{focus:?}, budget {budget}");
            assert!(same(&expected, &score(&model, &mut ImageCache::default(), &groups, &request(budget))));
        }
    }
}

#[test]
fn another_picture_is_never_taken_for_it() {
    let model = model::<B>();
    let responses = responses();
    let kept = &mut ImageCache::new(1.0);
    let mut prompt = mixed_prompts(&model).into_iter().find(|p| !p.image_grid_thw.is_empty()).unwrap();
    for round in 0..20 {
        // The old pixels are freed first, so that the allocator may hand out their place again.
        let values: Vec<f32> = prompt.pixel_values.iter().map(|v| v * 0.9 + 0.01 * round as f32).collect();
        prompt.pixel_values = Arc::default();
        prompt.pixel_values = Arc::new(values);
        let prompts = [prompt.clone()];
        let groups = groups(&prompts, &responses);
        let expected = score(&model, &mut ImageCache::default(), &groups, &REQUEST);
        assert!(same(&expected, &score(&model, kept, &groups, &REQUEST)), "round {round}");
    }
    // In place, too.
    drop(score(&model, kept, &groups(&[prompt.clone()], &responses), &REQUEST));
    Arc::make_mut(&mut prompt.pixel_values).iter_mut().for_each(|v| *v = -*v);
    let prompts = [prompt];
    let groups = groups(&prompts, &responses);
    let expected = score(&model, &mut ImageCache::default(), &groups, &REQUEST);
    assert!(same(&expected, &score(&model, kept, &groups, &REQUEST)));
}

#[test]
fn what_does_not_fit_is_computed_again() {
    let model = model::<B>();
    let prompts = mixed_prompts(&model);
    let responses = responses();
    let groups = groups(&prompts, &responses);
    let all = &mut ImageCache::new(1.0);
    let expected = score(&model, all, &groups, &REQUEST);
    let half = all.bytes() as f64 / 2.0;
    let some = &mut ImageCache::new(half / (1u64 << 30) as f64);
    for pass in 1..4 {
        assert!(same(&expected, &score(&model, some, &groups, &REQUEST)), "pass {pass}");
        assert!(some.bytes() as f64 <= half);
    }
    assert!(some.encoded() > pictured(&prompts) && some.encoded() < 3 * pictured(&prompts), "{}", some.encoded());
    // What belongs to prompts that are gone makes room.
    let full = &mut ImageCache::new(all.bytes() as f64 / (1u64 << 30) as f64);
    for _ in 0..3 {
        let prompts: Vec<Prompt> =
            prompts.iter().map(|p| Prompt { pixel_values: Arc::new(p.pixel_values.to_vec()), ..p.clone() }).collect();
        let groups = self::groups(&prompts, &responses);
        let before = full.encoded();
        score(&model, full, &groups, &REQUEST);
        score(&model, full, &groups, &REQUEST);
        assert_eq!(full.encoded() - before, pictured(&prompts));
    }
}
