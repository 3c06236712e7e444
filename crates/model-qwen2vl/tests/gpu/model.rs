//! The model on wgpu against transformers: one picture whose grid leaves partial windows, prefill and decoding. Few shapes on
//! purpose: a software device takes longer to compile kernels than to run them. `all/parity.rs` has all cases, on the CPU.

use crate::common::{Golden, largest_difference, load, values};
use burn::tensor::{Tensor, TensorData, backend::Backend};
use model_qwen2vl::{
    Kernels,
    attention::{AttentionPlan, Response},
    head,
    model::{Images, PackedBatch, int_tensor},
};

type B = burn_wgpu::Wgpu<f32, i32>;

#[test]
fn the_model_matches_on_wgpu() {
    let case = "partial_windows";
    let model = load::<B>(case);
    let golden = Golden::open(case);
    let prompt = golden.prompt(&model);
    let device = model.device();
    let images = Images::new(&model.config, [&prompt], &device);
    let embeds = images.as_ref().map(|i| model.encode_images(i));
    let e = embeds.clone().map_or(0.0, |e| largest_difference(&values(e), &golden.floats("image_embeds")));
    assert!(e < 1e-3, "image_embeds: {e:.1e}");

    let generated = golden.ids("generated_ids");
    let batch = PackedBatch::new(&model.config, &[(&prompt, vec![&generated])], &device);
    let all = model.hidden(&batch, embeds.clone());
    let d = all.dims()[1];
    let h = largest_difference(&values(all.clone().slice([0..prompt.len(), 0..d])), &golden.floats("hidden_last"));
    let predicting = all.select(0, int_tensor(batch.predicting_rows(), &device));
    let targets = int_tensor(generated.iter().map(|&i| i as usize), &device);
    let scored = values(head::log_probs(predicting, model.head().0, targets, 1.0, false).log_probs);
    let p = largest_difference(&scored, &golden.floats("generated_logprobs"));
    println!("image_embeds {e:.1e}, hidden_last {h:.1e}, logprobs {p:.1e}");
    assert!(h.max(p) < 1e-3, "hidden_last {h:.1e}, logprobs {p:.1e}");

    // Decoding with a cache finds the same tokens and hidden states.
    let batch = PackedBatch::new(&model.config, &[(&prompt, vec![])], &device);
    let (hidden, kv) = model.prefill(&batch, embeds);
    let mut cache = model.cache(8);
    cache.add_lane(&kv, &batch.prompts, 1);
    let mut last = hidden.select(0, int_tensor([prompt.len() - 1], &device));
    for (t, &expected) in generated.iter().enumerate().take(4) {
        let logits = values(model.logits(last));
        let special = model.config.vision_token_ids();
        let best = (0..logits.len()).filter(|&i| !special.contains(&(i as u32)));
        let best = best.max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        assert_eq!(best as u32, expected, "token {t}");
        let position = prompt.next_position() + t as i64;
        last = model.decode(int_tensor([best], &device), &[position], &mut cache);
    }
}

/// Attention over a shared prompt with its gradients, beside the CPU's (which finite differences check).
#[test]
fn attention_matches_on_wgpu() {
    fn run<B: Kernels>() -> Vec<Vec<f32>> {
        let device = Default::default();
        let (heads, kv_heads, hd, rows) = (4, 2, 16, 30);
        let wave = |seed: f32, h: usize| {
            let data: Vec<f32> = (0..rows * h * hd).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
            Tensor::<B, 3>::from_data(TensorData::new(data, [rows, h, hd]), &device)
        };
        // Two prompts of 7 and 5 tokens; three responses of 4, 6 and 1, and one of 7.
        let prompts = [0..7, 18..23];
        let response = |rows, prompt| Response { rows, prompt };
        let responses = [response(7..11, 0), response(11..17, 0), response(17..18, 0), response(23..30, 1)];
        let plan = AttentionPlan::<B>::causal(&prompts, &responses, &device);
        let (q, k, v, d_o) = (wave(0.1, heads), wave(0.2, kv_heads), wave(0.3, kv_heads), wave(0.4, heads));
        let (o, saved) = B::packed_attention(q.clone(), k.clone(), v.clone(), &plan);
        let grads = B::packed_attention_backward([q, k, v], o.clone(), &saved, d_o, &plan);
        std::iter::once(o).chain(grads).map(values).collect()
    }
    let (gpu, cpu) = (run::<B>(), run::<burn_flex::Flex<f32, i32>>());
    assert_eq!((gpu.len(), cpu.len()), (4, 4));
    for (name, (gpu, cpu)) in ["o", "dq", "dk", "dv"].iter().zip(gpu.iter().zip(&cpu)) {
        let gap = largest_difference(gpu, cpu);
        println!("{name} {gap:.1e}");
        assert!(gap < 2e-5, "{name}: {gap:.1e}");
    }
}

/// Sums of an odd and an even number of tiles, which Burn's matmul gets wrong if autotune may choose (docs/architecture.md).
#[test]
fn products_match_on_wgpu() {
    fn run<B: Backend>(k: usize) -> Vec<f32> {
        let wave = |seed: f32, shape: [usize; 2]| {
            let data: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32 * 0.37 + seed).sin()).collect();
            Tensor::<B, 2>::from_data(TensorData::new(data, shape), &Default::default())
        };
        values(wave(0.1, [3, k]).matmul(wave(0.2, [2000, k]).transpose()))
    }
    for k in [1, 3, 8, 15, 16, 24, 40, 72] {
        let gap = largest_difference(&run::<B>(k), &run::<burn_flex::Flex<f32, i32>>(k));
        assert!(gap < 1e-5, "{k} terms: {gap:.1e}");
    }
}
