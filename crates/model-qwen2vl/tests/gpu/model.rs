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
