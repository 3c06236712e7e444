//! The same numbers as transformers 5.23.0, f32 on the CPU backends.

use crate::common::{Golden, cases, largest_difference, load, values};
use kernels::attention::decode::DecodeCache;
use kernels::{Kernels, head, host::int_tensor};
use model_qwen2vl::{QwenVl, model::Images};
use policy::{PackedBatch, Prompt};

const CASES: &[&str] = &[
    "one_image_tied",
    "one_image_untied",
    "two_images",
    "text_only",
    "partial_windows",
    "sharded_bf16",
    "f16",
    "old_layout",
    "qwen2_vl_tied_gqa",
    "qwen2_vl_untied_two_images",
    "qwen2_vl_text_only",
    "qwen3_vl_tied_gqa",
    "qwen3_vl_untied_two_images",
    "qwen3_vl_text_only",
];
const TOLERANCE: f32 = 1e-3;

/// `old_layout` holds the weights of `one_image_tied`, and so its golden.
fn golden(case: &str) -> Golden {
    Golden::open(if case == "old_layout" { "one_image_tied" } else { case })
}

fn hidden<B: Kernels>(model: &QwenVl<B>, groups: &[(&Prompt, Vec<&[u32]>)]) -> (PackedBatch<B>, Vec<f32>) {
    let device = model.device();
    let batch = PackedBatch::new(&model.config, groups, &device);
    let images = Images::new(&model.config, groups.iter().map(|g| g.0), &device);
    let hidden = model.hidden(&batch, images.map(|i| model.encode_images(&i)));
    (batch, values(hidden))
}

fn forward_matches<B: Kernels>() {
    let mut table =
        String::from("case                       positions image_embeds deepstack hidden_last logits   logprobs\n");
    for case in &cases(CASES) {
        let model = load::<B>(case);
        let golden = golden(case);
        let prompt = golden.prompt(&model);
        let positions: Vec<i64> = prompt.position_ids.concat();
        assert_eq!(positions, golden.ints("position_ids"), "{case}");
        let device = model.device();
        let images = Images::new(&model.config, [&prompt], &device);
        let embeds = images.as_ref().map(|i| model.encode_images(i));
        let own = embeds.clone().map_or(vec![], |e| values(model.embeddings_of(e)));
        let e = largest_difference(&own, &golden.floats("image_embeds"));
        let width = model.config.vision.features_width() - model.config.text.hidden_size;
        let deep = embeds.clone().filter(|_| width > 0);
        let deep = deep.map_or(vec![], |e| values(e.narrow(1, model.config.text.hidden_size, width)));
        let deep = largest_difference(&deep, &golden.floats("deepstack"));
        let generated = golden.ids("generated_ids");
        let batch = PackedBatch::new(&model.config, &[(&prompt, vec![&generated])], &device);
        let all = model.hidden(&batch, embeds);
        let d = all.dims()[1];
        let of_prompt = all.clone().slice([0..prompt.len(), 0..d]);
        let h = largest_difference(&values(of_prompt.clone()), &golden.floats("hidden_last"));
        let l = largest_difference(&values(model.logits(of_prompt)), &golden.floats("logits"));
        let predicting = all.select(0, int_tensor(batch.predicting_rows(), &device));
        let targets = int_tensor(generated.iter().map(|&i| i as usize), &device);
        let lp = head::log_probs(predicting, model.head().0, targets, 1.0, false).log_probs;
        let p = largest_difference(&values(lp), &golden.floats("generated_logprobs"));
        table.push_str(&format!("{case:26} equal     {e:<12.1e} {deep:<9.1e} {h:<11.1e} {l:<8.1e} {p:.1e}\n"));
        assert!(e.max(deep).max(h).max(l).max(p) < TOLERANCE, "{table}");
    }
    println!("{table}");
}

/// Sums of the last layer's attention against transformers' `output_attentions` (tools/make_attention_fixture.py), for
/// a response alone and for three copies of it, of which one is cut short, behind one prompt.
fn attention_masses_match<B: Kernels>() {
    let path = crate::common::fixtures().join("golden/attention.json");
    let all: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut table = String::new();
    for (case, expected) in all.as_object().unwrap() {
        let model = load::<B>(case);
        let golden = Golden::open(case);
        let prompt = golden.prompt(&model);
        let generated = golden.ids("generated_ids");
        let short = generated.len() - 2;
        let device = model.device();
        for responses in [vec![&generated[..]], vec![&generated[..], &generated[..short], &generated[..]]] {
            let batch = PackedBatch::new(&model.config, &[(&prompt, responses.clone())], &device);
            let embeds = Images::new(&model.config, [&prompt], &device).map(|i| model.encode_images(&i));
            let plain = values(model.hidden(&batch, embeds.clone()));
            let (hidden, masses) = model.hidden_with_attention(&batch, embeds).unwrap();
            assert_eq!(values(hidden), plain, "{case}");
            assert_eq!(masses.len(), responses.len());
            for (mass, response) in masses.iter().zip(&responses) {
                for (kind, got) in [("image", &mass.image), ("prompt", &mass.prompt), ("generated", &mass.generated)] {
                    let want: Vec<f32> =
                        expected[kind].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
                    let gap = largest_difference(got, &want[..response.len()]);
                    table.push_str(&format!("{case} {kind} {gap:.1e}\n"));
                    assert!(gap < 1e-4, "{table}");
                }
            }
        }
    }
    println!("{table}");
}

fn argmax(model_logits: &[f32], suppress: &[u32]) -> u32 {
    (0..model_logits.len() as u32)
        .filter(|i| !suppress.contains(i))
        .max_by(|&a, &b| model_logits[a as usize].total_cmp(&model_logits[b as usize]))
        .unwrap()
}

/// Greedy decoding of several prompts with one cache; prompts of different lengths share a lane.
fn greedy<B: Kernels>(model: &QwenVl<B>, prompts: &[&Prompt], suppress: &[u32], steps: usize) -> Vec<Vec<u32>> {
    let device = model.device();
    let groups: Vec<_> = prompts.iter().map(|&p| (p, vec![])).collect();
    let batch = PackedBatch::new(&model.config, &groups, &device);
    let images = Images::new(&model.config, prompts.iter().copied(), &device);
    let (hidden, kv) = model.prefill(&batch, images.map(|i| model.encode_images(&i)));
    let mut cache: DecodeCache<B> = model.cache(steps);
    cache.add_lane(&kv, &batch.prompts, 1);
    let mut last = hidden.select(0, int_tensor(batch.prompts.iter().map(|r| r.end - 1), &device));
    let v = model.config.text.vocab_size;
    let mut out = vec![Vec::new(); prompts.len()];
    for t in 0..steps {
        let logits = values(model.logits(last));
        let next: Vec<u32> = logits.chunks(v).map(|row| argmax(row, suppress)).collect();
        out.iter_mut().zip(&next).for_each(|(o, &n)| o.push(n));
        let positions: Vec<i64> = prompts.iter().map(|p| p.next_position() + t as i64).collect();
        last = model.decode(int_tensor(next.iter().map(|&i| i as usize), &device), &positions, &mut cache);
    }
    out
}

fn greedy_tokens_match<B: Kernels>() {
    for case in &cases(CASES) {
        let model = load::<B>(case);
        let golden = golden(case);
        let expected = golden.ids("generated_ids");
        let suppress: Vec<u32> = (model.config.vision_start_token_id..=model.config.video_token_id).collect();
        let got = greedy(&model, &[&golden.prompt(&model)], &suppress, expected.len());
        assert_eq!(got[0], expected, "{case}");
    }
}

/// Prompts of different sizes, with and without images, batched: each as alone, with and without the cache.
fn batched_is_single<B: Kernels>() {
    batched::<B>(&["one_image_tied", "two_images", "text_only", "partial_windows"]);
    batched::<B>(&["qwen2_vl_tied_gqa", "qwen2_vl_text_only", "qwen2_vl_tied_gqa"]);
    batched::<B>(&["qwen3_vl_tied_gqa", "qwen3_vl_text_only", "qwen3_vl_tied_gqa"]);
}

fn batched<B: Kernels>(cases: &[&str]) {
    let model = load::<B>(cases[0]);
    let goldens: Vec<Golden> = cases.iter().map(|c| Golden::open(c)).collect();
    let prompts: Vec<Prompt> = goldens.iter().map(|g| g.prompt(&model)).collect();
    let suppress: Vec<u32> = (model.config.vision_start_token_id..=model.config.video_token_id).collect();
    let refs: Vec<&Prompt> = prompts.iter().collect();
    let steps = goldens.iter().map(|g| g.ids("generated_ids").len()).min().unwrap();
    let together = greedy(&model, &refs, &suppress, steps);
    assert_eq!(together.len(), goldens.len());
    for (golden, got) in goldens.iter().zip(&together) {
        assert_eq!(got[..], golden.ids("generated_ids")[..steps]);
    }
    // Scoring: groups with several responses of different lengths, packed together, against each response alone.
    let responses: Vec<Vec<u32>> =
        (0..7).map(|i| (0..[3, 9, 1, 40, 3, 2, 12][i]).map(|t| (7 * i as u32 + 11 * t) % 200).collect()).collect();
    let groups = vec![
        (&prompts[0], vec![&responses[0][..], &responses[1], &responses[2]]),
        (&prompts[2], vec![&responses[3][..]]),
        (&prompts[1], vec![&responses[4][..], &responses[5], &responses[6]]),
    ];
    let (batch, packed) = hidden(&model, &groups);
    let d = model.config.text.hidden_size;
    let mut i = 0;
    for (prompt, group) in &groups {
        for response in group {
            let (alone_batch, alone) = hidden(&model, &[(prompt, vec![response])]);
            let rows = |b: &PackedBatch<B>, i: usize| b.responses[i].rows.start * d..b.responses[i].rows.end * d;
            let difference = largest_difference(&packed[rows(&batch, i)], &alone[rows(&alone_batch, 0)]);
            assert!(difference < 2e-4, "response {i}: {difference}");
            i += 1;
        }
    }
}

/// Removing finished rows from the cache does not change the others.
fn compaction_keeps_rows<B: Kernels>() {
    let model = load::<B>("one_image_tied");
    let device = model.device();
    let prompts: Vec<Prompt> =
        ["one_image_tied", "text_only", "two_images"].iter().map(|c| Golden::open(c).prompt(&model)).collect();
    let groups: Vec<_> = prompts.iter().map(|p| (p, vec![])).collect();
    let batch = PackedBatch::new(&model.config, &groups, &device);
    let images = Images::new(&model.config, &prompts, &device);
    let (_, kv) = model.prefill(&batch, images.map(|i| model.encode_images(&i)));
    let token = |row: usize, t: usize| (row * 31 + t * 17) % 250;
    let n = 4;
    let run = |drop: bool| {
        let mut cache = model.cache(90);
        cache.add_lane(&kv, &batch.prompts[..1], n);
        cache.add_lane(&kv, &batch.prompts[1..], n);
        let mut rows: Vec<usize> = (0..3 * n).collect();
        let mut seen = vec![Vec::new(); 3 * n];
        for t in 0..80 {
            if drop && t == 3 {
                // Group 1 still has all of its responses, so its lane keeps its size: nothing may move.
                let keep: Vec<bool> = rows.iter().map(|&r| r != 8).collect();
                assert_eq!(cache.compact(&keep), rows);
            }
            if drop && t == 5 {
                // group 1 ends whole, one response of group 0 and two of group 2
                let keep: Vec<bool> =
                    rows.iter().map(|&r| !(4..8).contains(&r) && r != 1 && r != 8 && r != 11).collect();
                rows = cache.compact(&keep).into_iter().map(|i| rows[i]).collect();
                assert_eq!(rows, [0, 2, 3, 9, 10]);
            }
            let positions: Vec<i64> = rows.iter().map(|&r| prompts[r / n].next_position() + t as i64).collect();
            let hidden = model.decode(int_tensor(rows.iter().map(|&r| token(r, t)), &device), &positions, &mut cache);
            let d = hidden.dims()[1];
            for (row, h) in rows.iter().zip(values(hidden).chunks(d)) {
                seen[*row] = h.to_vec();
            }
        }
        seen
    };
    let (all, compacted) = (run(false), run(true));
    for row in [0, 2, 3, 9, 10] {
        let difference = largest_difference(&all[row], &compacted[row]);
        assert!(difference < 1e-4, "row {row}: {difference}");
    }
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: forward_matches greedy_tokens_match attention_masses_match batched_is_single
    compaction_keeps_rows);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: forward_matches greedy_tokens_match attention_masses_match batched_is_single
    compaction_keeps_rows);
