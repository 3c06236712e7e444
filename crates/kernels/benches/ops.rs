//! Each specialised operation of the Flex backend beside its default in plain tensor operations, at the sizes of the
//! preset `small`: `cargo bench -p kernels`.

use burn::tensor::{Distribution, Int, Tensor, TensorData};
use divan::{Bencher, black_box};
use kernels::attention::decode::{DecodeKv, OwnKv, PromptRows};
use kernels::attention::{self, AttentionPlan, ResponseRows};
use kernels::head::{plain_log_probs, plain_log_probs_backward};
use kernels::ops::{AdamWParameter, AdamWStep, Kernels, Rounding, plain, plain_adamw};

type B = burn_flex::Flex<f32, i32>;

/// Rows of a packed micro-batch: two groups of 194 prompt tokens and 8 responses of 96.
const ROWS: usize = 2 * (194 + 8 * 96);
/// Hidden size, MLP size and vocabulary.
const D: usize = 384;
const M: usize = 1024;
const V: usize = 8192;
const OURS: [bool; 2] = [true, false];

fn main() {
    divan::main();
}

fn random<const N: usize>(shape: [usize; N]) -> Tensor<B, N> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Default::default())
}

fn plan() -> AttentionPlan<B> {
    let (mut prompts, mut responses) = (vec![], vec![]);
    for g in 0..2 {
        let start = g * (194 + 8 * 96);
        prompts.push(start..start + 194);
        for r in 0..8 {
            let at = start + 194 + r * 96;
            responses.push(ResponseRows { rows: at..at + 96, prompt: g });
        }
    }
    AttentionPlan::causal(&prompts, &responses, &Default::default())
}

#[divan::bench(args = OURS)]
fn rms_norm(bencher: Bencher, ours: bool) {
    let (x, w) = (random([ROWS, D]), random([D]));
    bencher.bench_local(|| {
        let (x, w) = (black_box(x.clone()), w.clone());
        if ours { B::rms_norm(x, w, 1e-6) } else { plain::rms_norm(x, w, 1e-6) }
    });
}

#[divan::bench(args = OURS)]
fn rms_norm_backward(bencher: Bencher, ours: bool) {
    let (x, w, dy) = (random([ROWS, D]), random([D]), random([ROWS, D]));
    bencher.bench_local(|| {
        let (x, w, dy) = (black_box(x.clone()), w.clone(), dy.clone());
        if ours { B::rms_norm_backward(x, w, 1e-6, dy, None) } else { plain::rms_norm_backward(x, w, 1e-6, dy, None) }
    });
}

#[divan::bench(args = OURS)]
fn swiglu(bencher: Bencher, ours: bool) {
    let gate_up = random([ROWS, 2 * M]);
    bencher.bench_local(|| {
        let gate_up = black_box(gate_up.clone());
        if ours { B::swiglu(gate_up) } else { plain::swiglu(gate_up) }
    });
}

/// A linear layer while decoding (some rows) and while training; the default is Burn's matmul.
#[divan::bench(args = [16, 32, 48, 64, 96, ROWS].into_iter().flat_map(|rows| OURS.map(|ours| (rows, ours))))]
fn affine(bencher: Bencher, (rows, ours): (usize, bool)) {
    let (x, w) = (random([rows, D]), random([M, D]));
    bencher.bench_local(|| {
        let x = black_box(x.clone());
        if ours { B::affine(x, &w, None) } else { plain::affine(x, &w, None) }
    });
}

#[divan::bench(args = OURS, sample_count = 20)]
fn packed_attention(bencher: Bencher, ours: bool) {
    let plan = plan();
    let (q, k, v) = (random([ROWS, 6, 64]), random([ROWS, 2, 64]), random([ROWS, 2, 64]));
    bencher.bench_local(|| {
        let (q, k, v) = (black_box(q.clone()), k.clone(), v.clone());
        if ours { B::packed_attention(q, k, v, &plan).0 } else { attention::forward(q, k, v, &plan).0 }
    });
}

#[divan::bench(args = OURS, sample_count = 20)]
fn packed_attention_backward(bencher: Bencher, ours: bool) {
    let plan = plan();
    let qkv = [random([ROWS, 6, 64]), random([ROWS, 2, 64]), random([ROWS, 2, 64])];
    let [q, k, v] = qkv.clone();
    let d_o = random([ROWS, 6, 64]);
    let (o, saved) = if ours { B::packed_attention(q, k, v, &plan) } else { attention::forward(q, k, v, &plan) };
    bencher.bench_local(|| {
        let (qkv, o, d_o) = (black_box(qkv.clone()), o.clone(), d_o.clone());
        if ours {
            B::packed_attention_backward(qkv, o, &saved, d_o, &plan)
        } else {
            attention::backward(qkv, o, &saved, d_o, &plan)
        }
    });
}

#[divan::bench(args = OURS)]
fn decode(bencher: Bencher, ours: bool) {
    let (groups, n, kv_heads, g, len) = (2, 8, 2, 3, 60);
    let prompts = (0..groups).map(|i| i * 194..(i + 1) * 194).collect();
    let past = [DecodeKv {
        prefix: (random([groups * 194, kv_heads, 64]), random([groups * 194, kv_heads, 64])),
        prompts: PromptRows::new(prompts, &Default::default()),
        n,
        own: OwnKv { k: random([groups * n, 96, kv_heads, 64]), v: random([groups * n, 96, kv_heads, 64]), len },
    }];
    let q = random([groups * n, kv_heads * g, 64]);
    bencher.bench_local(|| {
        let q = black_box(q.clone());
        if ours { B::decode_attention(q, &past) } else { plain::decode_attention(q, &past) }
    });
}

fn targets(rows: usize) -> Tensor<B, 1, Int> {
    let ids: Vec<i32> = (0..rows).map(|i| (i * 7919 % V) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [rows]), &Default::default())
}

#[divan::bench(args = OURS, sample_count = 5)]
fn log_probs(bencher: Bencher, ours: bool) {
    let (h, w, t) = (random([16 * 96, D]), random([V, D]), targets(16 * 96));
    bencher.bench_local(|| {
        let (h, t) = (black_box(h.clone()), t.clone());
        if ours { B::log_probs(h, &w, t, 1.0, false) } else { plain_log_probs(h, &w, t, 1.0, false) }
    });
}

#[divan::bench(args = OURS, sample_count = 5)]
fn log_probs_backward(bencher: Bencher, ours: bool) {
    let (h, w, t, d) = (random([16 * 96, D]), random([V, D]), targets(16 * 96), random([16 * 96]));
    bencher.bench_local(|| {
        let (h, t, d) = (black_box(h.clone()), t.clone(), d.clone());
        if ours {
            B::log_probs_backward(h, &w, t, 1.0, d, None, true)
        } else {
            plain_log_probs_backward(h, &w, t, 1.0, d, None, true)
        }
    });
}

#[divan::bench(args = OURS)]
fn adamw(bencher: Bencher, ours: bool) {
    let h = AdamWStep {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 3,
        grad_scale: 1.0,
        rounding: Rounding::default(),
    };
    let n = M * D;
    let g = random([n]);
    let p = AdamWParameter { param: random([n]), m: random([n]), v: random([n]).powi_scalar(2), master: None };
    bencher.bench_local(|| {
        let (p, g) = (black_box(p.clone()), g.clone());
        if ours { B::adamw(p, g, &h) } else { plain_adamw(p, g, &h) }
    });
}
