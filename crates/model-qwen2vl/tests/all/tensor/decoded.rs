//! Tokens that are sampled one by one.

use burn::tensor::{DType, Tensor};
use comm::threads;
use kernels::host::int_tensor;
use kernels::sampling::{RowChoice, sample_tokens};
use kernels::{Kernels, Shard};
use model_qwen2vl::{ParamVisitor, QwenVl};
use policy::{PackedBatch, Prompt, Scoring};

use super::CASES;
use crate::common::{Golden, folder, load, values};

/// Weights that make some tokens much likelier than others: those of a random model are all alike.
struct Sharpen;
impl<B: Kernels> ParamVisitor<B> for Sharpen {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if name == "model.norm.weight" {
            *tensor = tensor.clone().mul_scalar(8.0);
        }
    }
}

/// 24 tokens for each of four rows of two prompts, which choose in different ways, and their log-probs.
fn decoded<B: Kernels>(case: &str, mut model: QwenVl<B>) -> (Vec<i32>, Vec<f32>) {
    model.visit(&mut Sharpen);
    let device = model.device();
    let pictured = Golden::open(case).prompt(&model);
    let text = model.prompt((0..9).map(|i| 30 + 7 * i).collect(), vec![], vec![]).unwrap();
    let prompts: Vec<&Prompt> = vec![&pictured, &text];
    let groups: Vec<_> = prompts.iter().map(|p| (*p, vec![])).collect();
    let batch = PackedBatch::new(&model.config, &groups, &device);
    let (hidden, kv) = model.prefill(&batch, Scoring::encode_images(&model, &prompts));
    let mut cache = model.cache(24);
    cache.add_lane(&kv, &batch.prompts, 2);
    let ends = batch.prompts.iter().flat_map(|r| [r.end - 1, r.end - 1]);
    let mut states = hidden.select(0, int_tensor(ends, &device));
    let settings = [(0.0, 1.0), (1.0, 1.0), (0.7, 0.9), (1.3, 0.5)];
    let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
    for step in 0..24i64 {
        let choices: Vec<RowChoice> = (0..4)
            .map(|row| {
                let (temperature, top_p) = settings[row];
                let uniform = ((37 * step as usize + 11 * row) % 101) as f32 / 101.0 + 0.004;
                RowChoice { temperature, top_p, uniform }
            })
            .collect();
        let (next, lp) = sample_tokens(states, model.head().0, &choices, None);
        let on_host: Vec<i32> = next.to_data().convert::<i32>().to_vec().unwrap();
        ids.extend(on_host);
        log_probs.extend(values(lp));
        let at = |prompt: &Prompt| prompt.next_position() + step;
        states = model.decode(next, &[at(&pictured), at(&pictured), at(&text), at(&text)], &mut cache);
    }
    (ids, log_probs)
}

fn many_ranks_sample_what_one_samples<B: Kernels>() {
    let mut distinct = std::collections::BTreeSet::new();
    for (case, sizes) in CASES {
        let (ids, log_probs) = decoded(case, load::<B>(case));
        distinct.extend(ids.iter().copied());
        for &size in sizes {
            let all = threads::run(size, |ranks| {
                let model = QwenVl::<B>::load_parallel(&folder(case), DType::F32, &Default::default(), &ranks);
                decoded(case, model.unwrap())
            });
            assert!(all.iter().all(|of_rank| *of_rank == all[0]), "{case} over {size}: the ranks came apart");
            assert_eq!(all[0].0, ids, "{case} over {size}");
            let gap = crate::common::largest_difference(&all[0].1, &log_probs);
            assert!(gap < 5e-5, "{case} over {size}: log-probs {gap:.1e}");
        }
    }
    assert!(distinct.len() > 100, "hardly any token was drawn: {}", distinct.len());
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: many_ranks_sample_what_one_samples);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: many_ranks_sample_what_one_samples);
