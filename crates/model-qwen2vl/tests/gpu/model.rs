//! The model on wgpu against transformers: one picture whose grid leaves partial windows, prefill and decoding. Few
//! shapes on purpose: a software device takes longer to compile kernels than to run them. `all/parity.rs` has all
//! cases, on the CPU.

use crate::common::{Golden, largest_difference, load, torch_gradients, values, worst_element};
use kernels::{head, host::int_tensor};
use model_qwen2vl::model::Images;
use policy::PackedBatch;

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

/// Every gradient of each family, tower included, is torch's.
#[test]
fn gradients_match_on_wgpu() {
    for case in ["qwen2_vl_tied_gqa", "qwen3_vl_tied_gqa", "one_image_tied"] {
        let (ours, theirs) = torch_gradients::<B>(case);
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{case}");
        let (worst, name) = worst_element(&ours, &theirs);
        println!("{case}: {} tensors, worst element {worst:.1e} of the tensor's largest ({name})", ours.len());
        assert!(worst < 1e-3, "{case}: {name} {worst:.1e}");
    }
}

/// Lanes of prompts of different lengths, one that enters later and rows that leave: the states are those of scoring.
/// With norms of queries and keys, with and without tied heads.
#[test]
fn decoding_is_scoring_on_wgpu() {
    for cases in [["qwen3_vl_tied_gqa", "qwen3_vl_text_only"], ["partial_windows", "text_only"]] {
        let model = load::<B>(cases[0]);
        let device = model.device();
        let prompts = cases.map(|case| Golden::open(case).prompt(&model));
        assert_ne!(prompts[0].len(), prompts[1].len());
        let tokens = |row: usize| -> Vec<u32> { (0..9).map(|t| (31 * row as u32 + 7 * t) % 200).collect() };
        // Rows: two of each prompt from the start, then one of the second prompt alone, which enters after three steps.
        let rows: Vec<(usize, Vec<u32>)> =
            [0, 0, 1, 1, 1].into_iter().enumerate().map(|(i, p)| (p, tokens(i))).collect();
        let scored: Vec<Vec<f32>> = rows
            .iter()
            .map(|(p, response)| {
                let batch = PackedBatch::new(&model.config, &[(&prompts[*p], vec![response])], &device);
                let images = Images::new(&model.config, [&prompts[*p]], &device);
                let all = model.hidden(&batch, images.map(|i| model.encode_images(&i)));
                let d = all.dims()[1];
                values(all.slice([prompts[*p].len()..prompts[*p].len() + response.len(), 0..d]))
            })
            .collect();
        let d = model.config.text.hidden_size;
        let prefill = |prompts: &[&policy::Prompt]| {
            let groups: Vec<_> = prompts.iter().map(|&p| (p, vec![])).collect();
            let batch = PackedBatch::new(&model.config, &groups, &device);
            let images = Images::new(&model.config, prompts.iter().copied(), &device);
            (model.prefill(&batch, images.map(|i| model.encode_images(&i))).1, batch.prompts)
        };
        let mut cache = model.cache(9);
        let (kv, ranges) = prefill(&[&prompts[0], &prompts[1]]);
        cache.add_lane(&kv, &ranges, 2);
        // (row, tokens decoded so far)
        let mut live: Vec<(usize, usize)> = (0..4).map(|row| (row, 0)).collect();
        for step in 0..8 {
            if step == 3 {
                let (kv, ranges) = prefill(&[&prompts[1]]);
                cache.add_lane(&kv, &ranges, 1);
                live.push((4, 0));
            }
            if step == 5 {
                // The first prompt's rows leave, and one of the second's.
                let left = cache.compact(&live.iter().map(|(row, _)| *row > 2).collect::<Vec<_>>());
                live = left.into_iter().map(|i| live[i]).collect();
                assert_eq!(live.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [3, 4]);
            }
            let ids = live.iter().map(|&(row, t)| rows[row].1[t] as usize);
            let positions: Vec<i64> =
                live.iter().map(|&(row, t)| prompts[rows[row].0].next_position() + t as i64).collect();
            let states = values(model.decode(int_tensor(ids, &device), &positions, &mut cache));
            for (state, (row, t)) in states.chunks(d).zip(&mut live) {
                let gap = largest_difference(state, &scored[*row][*t * d..][..d]);
                assert!(gap < 1e-4, "{cases:?}: row {row}, token {t}: {gap:.1e}");
                *t += 1;
            }
        }
    }
}
