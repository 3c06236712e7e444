//! The toy model with sharper weights, and prompts of the toy world.
#![allow(dead_code)] // each test binary uses a part

use std::sync::atomic::AtomicBool;

use burn::tensor::{DType, Tensor, backend::Backend};
use data::{Dataset, FormatPrompt, Keys, Processor, build_prompt, toy};
use launch::{toy_config, write_toy_folder};
use model_qwen2vl::model::Prompt;
use model_qwen2vl::{Kernels, ParamVisitor, QwenVl, Shard};
use rl::image_cache::ImageCache;
use rl::learn::{GroupRef, ResponseScores, ScoreRequest};
use rl::policy::Scoring;
use rl::rollout::{Job, Response, RolloutConfig, generate};
use rl::sampler::Sampling;

/// Multiplies parameters, so that a random model has something to say.
struct Scale(f64);

impl<B: Backend> ParamVisitor<B> for Scale {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if !name.contains("norm") {
            *tensor = tensor.clone().mul_scalar(self.0);
        }
    }
}

/// The toy architecture with random weights of three times the usual size: its distributions are far from uniform and
/// depend on the picture.
pub(crate) fn model<B: Kernels>() -> QwenVl<B> {
    model_in(DType::F32)
}

/// The same in another number format.
pub(crate) fn model_in<B: Kernels>(dtype: DType) -> QwenVl<B> {
    let mut model = QwenVl::random(toy_config().unwrap(), 3, dtype, &Default::default());
    model.visit(&mut Scale(3.0));
    model
}

/// The toy tokenizer and image processor.
pub(crate) fn processor() -> Processor {
    let dir = tempfile::tempdir().unwrap();
    write_toy_folder(dir.path()).unwrap();
    Processor::from_folder(dir.path()).unwrap()
}

/// The first `n` problems of a toy source as prompts.
pub(crate) fn prompts<B: Kernels>(model: &QwenVl<B>, spec: &str, n: usize) -> Vec<Prompt> {
    let (processor, format) = (processor(), FormatPrompt::new("none").unwrap());
    let dataset = Dataset::open(&[spec.to_string().into()], &Keys::default(), None).unwrap();
    (0..n)
        .map(|i| {
            let encoded = build_prompt(&dataset.get(i).unwrap(), &format, &processor, None).unwrap();
            let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
            let pixels = encoded.images.into_iter().flat_map(|i| i.values).collect();
            model.prompt(encoded.input_ids, pixels, grids).unwrap()
        })
        .collect()
}

/// Prompts of four sizes, one of them without a picture.
pub(crate) fn mixed_prompts<B: Kernels>(model: &QwenVl<B>) -> Vec<Prompt> {
    let mut all = prompts(model, "toy:read?rows=1&cols=1", 1);
    all.extend(prompts(model, "toy:sum?rows=2&cols=2", 2));
    let ids = processor().encode_text("12 + 30 =").unwrap();
    all.push(model.prompt(ids, vec![], vec![]).unwrap());
    all.extend(prompts(model, "toy:read?rows=1&cols=3", 1));
    all
}

/// Sampling at temperature 1 without any restriction but the vision tokens'.
pub(crate) fn rollout<B: Kernels>(model: &QwenVl<B>, n: usize, max_new_tokens: usize) -> RolloutConfig {
    RolloutConfig {
        n,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: 5 },
        max_new_tokens,
        min_new_tokens: 0,
        // Several ends, so that responses end at different lengths.
        eos: [toy::special_ids().eos].into_iter().chain(0..6).collect(),
        suppress: Scoring::<B>::vision_token_ids(model),
        focus: None,
        max_batch_rows: 64,
        prefill_token_budget: 4096,
    }
}

/// [`rl::learn::score`] on a device that does not fail.
pub(crate) fn score<B: Kernels>(
    model: &QwenVl<B>,
    images: &mut ImageCache<B>,
    groups: &[GroupRef],
    request: &ScoreRequest,
) -> Vec<Vec<ResponseScores>> {
    rl::learn::score(model, images, groups, request).unwrap()
}

/// The responses to `prompts`, whose places are their keys.
pub(crate) fn sample<B: Kernels>(model: &QwenVl<B>, prompts: &[&Prompt], config: &RolloutConfig) -> Vec<Vec<Response>> {
    let jobs: Vec<Job> = prompts.iter().enumerate().map(|(i, prompt)| Job { prompt, key: i as u64 }).collect();
    generate(model, &jobs, config, &mut ImageCache::default(), &AtomicBool::new(false), |_, _, _| {}).unwrap().0
}

/// Largest difference of two ragged lists of the same shape.
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `|a - b| / |b|` over whole vectors.
pub(crate) fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut b.iter().map(|&b| f64::from(b))).max(1e-30)
}

/// Pairs of two lists, which must be of one length: `zip` would compare what both have and pass over the rest.
#[track_caller]
pub(crate) fn pairs<A: IntoIterator<IntoIter: ExactSizeIterator>, C: IntoIterator<IntoIter: ExactSizeIterator>>(
    a: A,
    b: C,
) -> std::iter::Zip<A::IntoIter, C::IntoIter> {
    let (a, b) = (a.into_iter(), b.into_iter());
    assert_eq!(a.len(), b.len(), "two lists of different lengths are compared");
    a.zip(b)
}
