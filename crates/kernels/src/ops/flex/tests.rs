//! Every specialisation against its default, on the same inputs.

use burn::tensor::{Int, Tensor, TensorData};

use super::{F, activations, attention, decode, head, layer_norm, linear, rows, sample};
use crate::attention::decode::{DecodeKv, NewTokens, OwnKv, PromptRows};
use crate::attention::{self as plain_attention, AttentionPlan, ResponseRows};
use crate::head::{plain_log_probs, plain_log_probs_backward};
use crate::layers::BlockShape;
use crate::ops::{Activation, AdamWParameter, AdamWStep, Kernels, Rounding, plain, plain_adamw};
use crate::rope::Rotary;
use crate::sampling::{self, RowChoice};
use crate::source;

fn random<const D: usize>(shape: [usize; D]) -> Tensor<F, D> {
    source::random(shape)
}

/// Of the largest value. What the order of sums makes of f32, which the processor's instructions decide, stays ten
/// times below it; a mistake is far above.
const TOLERANCE: f32 = 3e-5;
/// Of the head against its exact values: the fused one, and the default, which sums a whole row of a vocabulary in f32.
const HEAD: [f64; 2] = [2e-5, 2e-4];

/// Equal but for the order of sums, which the processor's instructions decide: a mistake is far larger.
fn close<const D: usize>(a: Tensor<F, D>, b: Tensor<F, D>, what: &str) {
    within(a, b, TOLERANCE, what);
}

/// Equal but for `tolerance` of the largest value.
fn within<const D: usize>(a: Tensor<F, D>, b: Tensor<F, D>, tolerance: f32, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let largest = b.clone().abs().max().into_scalar().max(1e-3);
    let gap = a.sub(b).abs().max().into_scalar();
    assert!(gap <= tolerance * largest, "{what}: {gap} of {largest}");
}

#[test]
fn rows_are_the_defaults() {
    for (n, d) in [(1, 8), (3, 17), (70, 128), (300, 384)] {
        let (x, dy) = (random([n, d]), random([n, d]));
        let w = random([d]);
        close(rows::rms_norm(x.clone(), w.clone(), 1e-6), plain::rms_norm(x.clone(), w.clone(), 1e-6), "rms_norm");
        let (a, b) = (
            rows::rms_norm_backward(x.clone(), w.clone(), 1e-6, dy.clone()),
            plain::rms_norm_backward(x.clone(), w, 1e-6, dy.clone(), None),
        );
        close(a.0, b.0, "rms_norm dx");
        close(a.1.unsqueeze(), b.1, "rms_norm dw");
        let gate_up = random([n, 2 * d]).mul_scalar(4.0);
        close(rows::swiglu(gate_up.clone()), plain::swiglu(gate_up.clone()), "swiglu");
        close(
            rows::swiglu_backward(gate_up.clone(), dy.clone()),
            plain::swiglu_backward(gate_up, dy),
            "swiglu backward",
        );
        let y = random([n, d]);
        let ours = rows::add_rms_norm(x.clone(), y.clone(), random([d]).ones_like(), 1e-6);
        let plain = plain::add_rms_norm(x.clone(), y, random([d]).ones_like(), 1e-6);
        close(ours.0, plain.0, "sum");
        close(ours.1, plain.1, "the norm of the sum");
        // A view is read where it lies.
        let view = x.clone().slice([0..n, 1..d]);
        let w = random([d - 1]);
        close(rows::rms_norm(view.clone(), w.clone(), 1e-6), plain::rms_norm(view, w, 1e-6), "rms_norm of a view");
    }
}

/// Rows that choose alike and each in its own way, with no mask, one for all, and one each; several tasks and one.
#[test]
fn sampling_is_the_default() {
    for (n, vocab) in [(1, 1), (7, 5), (40, 101), (64, 3000)] {
        let logits = random::<2>([n, vocab]).mul_scalar(6.0);
        let ban = |rows: usize| random::<2>([rows, vocab]).lower_elem(0.0).float().mul_scalar(-1e30);
        let row = |i: usize, (temperature, top_p): (f64, f64)| RowChoice {
            temperature,
            top_p,
            uniform: (i as f32 + 0.37) / n as f32,
        };
        let settings = [(1.0, 1.0), (0.7, 0.9), (0.0, 1.0), (1.3, 0.3)];
        let alike = settings.map(|s| (0..n).map(|i| row(i, s)).collect::<Vec<_>>());
        let mixed = (0..n).map(|i| row(i, settings[i % 4])).collect::<Vec<_>>();
        for choices in alike.iter().chain([&mixed]) {
            for mask in [None, Some(ban(1)), Some(ban(n))] {
                let (ids, log_probs) = sample::sample(logits.clone(), choices, mask.as_ref());
                let (plain_ids, plain) = sampling::sample(logits.clone(), choices, mask.as_ref());
                let what = format!("{n} x {vocab}, {:?}, masks {:?}", choices[0], mask.map(|m| m.dims()[0]));
                assert_eq!(ids.into_data(), plain_ids.into_data(), "{what}");
                close(log_probs, plain, &what);
            }
        }
    }
}

#[test]
fn layer_norm_is_the_default() {
    for (n, d) in [(1, 8), (3, 17), (70, 128), (300, 384)] {
        let (x, dy, w, b) = (random([n, d]), random([n, d]), random([d]), random([d]));
        // A mean that squares would drown in.
        for x in [x.clone(), x.add_scalar(300.0)] {
            let expected = plain::layer_norm(x.clone(), w.clone(), b.clone(), 1e-6);
            let gap = layer_norm::layer_norm(x.clone(), w.clone(), b.clone(), 1e-6).sub(expected.clone()).abs().max();
            assert!(gap.into_scalar() <= 1e-3 * expected.abs().max().into_scalar(), "layer_norm {n} x {d}");
            let (dx, dw, db) = layer_norm::layer_norm_backward(x.clone(), w.clone(), 1e-6, dy.clone());
            let (px, pw, pb) = plain::layer_norm_backward(x, w.clone(), 1e-6, dy.clone());
            assert!(dx.sub(px.clone()).abs().max().into_scalar() <= 1e-3 * px.abs().max().into_scalar(), "dx");
            assert!(dw.sub(pw.clone()).abs().max().into_scalar() <= 1e-3 * pw.abs().max().into_scalar(), "dw");
            close(db, pb, "layer_norm db");
        }
        let view = random::<2>([n, d + 1]).slice([0..n, 1..d + 1]);
        let expected = plain::layer_norm(view.clone(), w.clone(), b.clone(), 1e-6);
        close(layer_norm::layer_norm(view, w, b, 1e-6), expected, "layer_norm of a view");
    }
}

#[test]
fn activations_are_the_defaults() {
    for (n, m) in [(1, 5), (70, 129), (300, 384)] {
        let (x, dy) = (random([n, m]).mul_scalar(4.0), random([n, m]));
        for act in [Activation::QuickGelu, Activation::GeluTanh] {
            let z = activations::sigmoid_of(act).unwrap();
            close(activations::activate(x.clone(), z), plain::activate(x.clone(), act), "activate");
            let ours = activations::activate_backward(x.clone(), z, dy.clone());
            close(ours, plain::activate_backward(x.clone(), act, dy.clone()), "activate backward");
        }
    }
}

/// The slopes are those of the functions: central differences. The functions are those of their papers, at points whose
/// values torch 2.15 gives.
#[test]
fn activations_have_their_slopes() {
    let device = Default::default();
    let x = Tensor::<F, 2>::from_data([[-3.0, -1.0, -0.25, 0.0, 0.5, 2.0]], &device);
    for (act, values) in [
        (Activation::Gelu, [-0.004_050_2, -0.158_655, -0.100_323_4, 0.0, 0.345_731, 1.954_5]),
        (Activation::GeluTanh, [-0.003_637_4, -0.158_808, -0.100_324, 0.0, 0.345_714, 1.954_598]),
        (Activation::QuickGelu, [-0.018_071_3, -0.154_204_2, -0.098_800_3, 0.0, 0.350_388_4, 1.935_658_6]),
    ] {
        let y: Vec<f32> = plain::activate(x.clone(), act).into_data().to_vec().unwrap();
        assert!(y.iter().zip(values).all(|(y, v)| (y - v).abs() < 2e-5), "{act:?}: {y:?}");
        let one = Tensor::ones_like(&x);
        let slope = plain::activate_backward(x.clone(), act, one);
        let (up, down) = (x.clone().add_scalar(1e-2), x.clone().sub_scalar(1e-2));
        let differences = plain::activate(up, act).sub(plain::activate(down, act)).div_scalar(2e-2);
        assert!(slope.sub(differences).abs().max().into_scalar() < 2e-4, "{act:?}");
    }
}

#[test]
fn linear_is_the_default() {
    for (m, k, n) in
        [(1, 8, 5), (7, 33, 19), (16, 384, 1024), (24, 64, 7), (49, 100, 30), (96, 40, 50), (300, 128, 352)]
    {
        let (x, w, b) = (random([m, k]), random([n, k]), random([n]));
        for bias in [None, Some(&b)] {
            close(linear::affine(x.clone(), &w, bias), plain::affine(x.clone(), &w, bias), "linear");
        }
        // A row's result does not depend on the rows that come with it, as long as the same kernel serves them.
        if m > 1 && m <= 96 {
            let alone = linear::affine(x.clone().slice([m - 1..m, 0..k]), &w, Some(&b));
            let together = linear::affine(x, &w, Some(&b)).slice([m - 1..m, 0..n]);
            assert_eq!(alone.to_data(), together.to_data());
        }
    }
}

/// Matrices where they lie: turned, cut out, with rows backwards (which Burn copies), and with nothing to sum.
#[test]
fn products_of_views_are_the_defaults() {
    for (m, n, k) in [(1, 5, 3), (17, 33, 9), (130, 70, 96), (300, 260, 40)] {
        let (a, b) = (random([m, k]), random([k, n]));
        let want = a.clone().matmul(b.clone());
        close(F::matmul(a.clone(), b.clone()), want.clone(), "as they are");
        let turned = |x: &Tensor<F, 2>| x.clone().transpose().add_scalar(0.0).transpose();
        close(F::matmul(turned(&a), turned(&b)), want.clone(), "turned");
        let cut = |x: &Tensor<F, 2>| {
            let [rows, columns] = x.dims();
            Tensor::cat(vec![random([rows, 2]), x.clone(), random([rows, 1])], 1).slice([0..rows, 2..2 + columns])
        };
        close(F::matmul(cut(&a), cut(&b)), want.clone(), "cut out");
        close(F::matmul(a.clone().flip([0]), b.clone()), want.clone().flip([0]), "backwards");
        close(F::weight_gradient(a.clone().transpose(), b), want, "a weight's gradient");
    }
    let none = |columns: usize| random([4, columns]).slice([0..0, 0..columns]);
    assert_eq!(F::weight_gradient(none(3), none(2)).dims(), [3, 2]);
    let batch = (random([3, 4, 5]), random([3, 5, 6]));
    close(F::matmul(batch.0.clone(), batch.1.clone()), batch.0.matmul(batch.1), "a batch");
}

#[test]
fn rotation_is_the_default() {
    for (n, h, hd) in [(1, 1, 4), (5, 3, 32), (400, 6, 64)] {
        let x = random([n, h, hd]);
        let rotary = Rotary { cos: random([n, 1, hd]), sin: random([n, 1, hd]) };
        close(rows::rotate(x.clone(), &rotary, 1.0), plain::rotate(x.clone(), &rotary), "rotate");
        close(rows::rotate(x.clone(), &rotary, -1.0), plain::rotate_backward(x, &rotary), "rotate back");
        for kv_heads in [1, h] {
            let shape = BlockShape { heads: h, kv_heads, head_dim: hd };
            let qkv = random([n, (h + 2 * kv_heads) * hd]);
            let pairs = rows::rotate_qkv(qkv.clone(), shape, &rotary).into_iter();
            pairs.zip(plain::rotate_qkv(qkv, shape, &rotary)).for_each(|(a, b)| close(a, b, "q, k, v"));
            let d_qkv = [h, kv_heads, kv_heads].map(|heads| random([n, heads, hd]));
            let plain = plain::rotate_qkv_backward(d_qkv.clone(), &rotary);
            close(rows::rotate_qkv_backward(d_qkv, &rotary), plain, "q, k, v back");
        }
    }
}

#[test]
fn adamw_is_the_default() {
    let rounding = Rounding { seed: 7, first: 3, param: false, moments: true };
    let h = AdamWStep {
        lr: 1e-2,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 3,
        grad_scale: 0.5,
        rounding: Rounding::default(),
    };
    for n in [1, 100, 70_000] {
        let (param, grad) = (random([n]), random([n]));
        let p = AdamWParameter { param, m: random([n]), v: random([n]).powi_scalar(2), master: None };
        let kept = p.param.clone();
        let before = kept.to_data();
        for h in [h, AdamWStep { rounding, ..h }] {
            let (a, b) = (F::adamw(p.clone(), grad.clone(), &h), plain_adamw(p.clone(), grad.clone(), &h));
            for (a, b) in [(a.param, b.param), (a.m, b.m), (a.v, b.v)] {
                // By chance two numbers that differ in their last bit may be rounded apart.
                within(a, b, if h.rounding.moments { 1.0 / 128.0 } else { TOLERANCE }, "adamw");
            }
        }
        // Another holder of the parameter keeps its values.
        assert_eq!(before, kept.to_data());
    }
}

fn plans() -> Vec<(&'static str, AttentionPlan<F>)> {
    let device = Default::default();
    let group = |prompts: &[usize], responses: &[(usize, usize)]| {
        let (mut ranges, mut out, mut at) = (vec![], vec![], 0);
        for (g, len) in prompts.iter().enumerate() {
            ranges.push(at..at + len);
            at += len;
            for (_, t) in responses.iter().filter(|r| r.0 == g) {
                out.push(ResponseRows { rows: at..at + t, prompt: g });
                at += t;
            }
        }
        AttentionPlan::causal(&ranges, &out, &device)
    };
    vec![
        ("prompt alone", group(&[7], &[])),
        ("even groups", group(&[20, 20], &[(0, 9), (0, 9), (1, 9), (1, 9)])),
        (
            "ragged groups",
            group(&[3, 41, 1], &[(0, 1), (0, 30), (1, 17), (1, 2), (1, 5), (1, 8), (1, 33), (1, 1), (2, 150)]),
        ),
        ("windows", AttentionPlan::bidirectional(&[16, 16, 4, 16, 8], &device)),
        ("one window", AttentionPlan::bidirectional(&[300], &device)),
        (
            "a prompt computed before",
            AttentionPlan::continuing(
                13,
                &[13..20, 20..21, 21..60, 60..63, 63..80, 80..84].map(|rows| ResponseRows { rows, prompt: 0 }),
                &device,
            ),
        ),
    ]
}

#[test]
fn attention_is_the_default() {
    for (name, plan) in plans() {
        for (h, kv, hd) in [(4, 2, 16), (6, 2, 64), (3, 3, 20), (7, 1, 32)] {
            let n = plan.tokens;
            let [q, k, v] = [random([n, h, hd]), random([n, kv, hd]), random([n, kv, hd])];
            let (a, fused_saved) = attention::forward(q.clone(), k.clone(), v.clone(), &plan);
            let (b, saved) = plain_attention::forward(q.clone(), k.clone(), v.clone(), &plan);
            close(a.clone(), b.clone(), name);
            let d_o = random([n, h, hd]);
            let fused =
                attention::backward([q.clone(), k.clone(), v.clone()], a.clone(), &fused_saved, d_o.clone(), &plan);
            let again = attention::backward([q.clone(), k.clone(), v.clone()], a, &fused_saved, d_o.clone(), &plan);
            let default = plain_attention::backward([q, k, v], b, &saved, d_o, &plan);
            for ((x, y), (z, part)) in fused.into_iter().zip(default).zip(again.into_iter().zip(["dq", "dk", "dv"])) {
                close(x.clone(), y, &format!("{name} {part}"));
                assert_eq!(x.to_data(), z.to_data(), "{name} {part}: two runs differ");
            }
        }
    }
}

#[test]
fn attention_does_not_depend_on_the_threads() {
    for (name, plan) in [plans().remove(2), plans().remove(5)] {
        does_not_depend_on_the_threads(name, plan);
    }
}

fn does_not_depend_on_the_threads(name: &str, plan: AttentionPlan<F>) {
    let n = plan.tokens;
    let qkv = [random([n, 6, 32]), random([n, 2, 32]), random([n, 2, 32])];
    let d_o = random([n, 6, 32]);
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let [q, k, v] = qkv.clone();
            let (o, saved) = attention::forward(q, k, v, &plan);
            attention::backward(qkv.clone(), o, &saved, d_o.clone(), &plan).map(|t| t.to_data())
        })
    };
    assert_eq!(run(1), run(5), "{name}");
}

/// A lane of prompts of these lengths behind some other tokens, `n` responses each.
fn past(prompts: &[usize], n: usize, [kv_heads, hd]: [usize; 2], [capacity, len]: [usize; 2]) -> DecodeKv<F> {
    let mut at = 3;
    let ranges = prompts.iter().map(|p| {
        at += p;
        at - p..at
    });
    let prompts = PromptRows::new(ranges.collect(), &Default::default());
    let (tokens, rows) = (at + 2, prompts.ranges.len() * n);
    DecodeKv {
        prefix: (random([tokens, kv_heads, hd]), random([tokens, kv_heads, hd])),
        prompts,
        n,
        own: OwnKv { k: random([rows, capacity, kv_heads, hd]), v: random([rows, capacity, kv_heads, hd]), len },
    }
}

#[test]
fn decoding_is_the_default() {
    for (kv_heads, g, hd) in [(1, 1, 32), (2, 2, 16), (4, 3, 32)] {
        let lanes = [
            past(&[5], 1, [kv_heads, hd], [1, 1]),
            past(&[20, 3, 1], 3, [kv_heads, hd], [64, 7]),
            past(&[194, 120], 8, [kv_heads, hd], [64, 60]),
        ];
        for past in [&lanes[..1], &lanes[1..2], &lanes] {
            let rows = past.iter().map(|kv| kv.own.k.dims()[0]).sum();
            let q = random([rows, kv_heads * g, hd]);
            close(decode::attention(q.clone(), past), plain::decode_attention(q, past), "decode");
        }
    }
}

#[test]
fn new_heads_are_the_defaults() {
    let shape = BlockShape { heads: 6, kv_heads: 2, head_dim: 32 };
    let (width, rows) = (10 * 32, 7);
    let (x, bias, norms) = (random([2, rows, width]), random([width]), [random([32]), random([32])]);
    let angles = Rotary { cos: random([20, 1, 32]), sin: random([20, 1, 32]) };
    let positions = Tensor::from_data(TensorData::new(vec![3i32, 0, 19, 4, 4, 7, 1], [rows]), &Default::default());
    let own = || [(5, 4, 2), (2, 3, 0)].map(|(rows, capacity, len)| (random([rows, capacity, 2, 32]), len)).to_vec();
    for (biased, normed) in [(false, false), (true, false), (true, true)] {
        let tokens = NewTokens {
            shape,
            bias: biased.then_some(&bias),
            qk_norm: normed.then_some([(&norms[0], 1e-6), (&norms[1], 1e-2)]),
            angles: &angles,
            positions: &positions,
        };
        let own: Vec<OwnKv<F>> = own().into_iter().map(|(k, len)| OwnKv { v: k.clone().neg(), k, len }).collect();
        let kept: Vec<_> = own.iter().map(|kv| kv.k.to_data()).collect();
        let (q, ours) = decode::heads(x.clone(), tokens, own.clone());
        let (pq, plain) = plain::decode_heads(x.clone(), tokens, own.clone());
        close(q, pq, "queries");
        for (ours, plain) in ours.into_iter().zip(plain) {
            assert_eq!(ours.len, plain.len);
            close(ours.k, plain.k, "keys");
            close(ours.v, plain.v, "values");
        }
        let after: Vec<_> = own.iter().map(|kv| kv.k.to_data()).collect();
        assert_eq!(kept, after, "another holder keeps its values");
        // What nothing else holds is written where it is.
        let alone: Vec<OwnKv<F>> =
            own.into_iter().map(|kv| OwnKv { k: kv.k.mul_scalar(2.0), v: kv.v.mul_scalar(2.0), len: kv.len }).collect();
        let places = |own: &[OwnKv<F>]| -> Vec<_> {
            own.iter().map(|kv| super::host::Host::new(&kv.k).values().as_ptr()).collect()
        };
        let before = places(&alone);
        assert_eq!(before, places(&decode::heads(x.clone(), tokens, alone).1));
    }
}

/// The head in f64: log-probs, entropies and, of given gradients of the two, those of the states and the weight.
struct Exact {
    log_probs: Vec<f64>,
    entropy: Vec<f64>,
    dh: Vec<f64>,
    dw: Vec<f64>,
}

fn exact_head(h: &[f32], w: &[f32], d: usize, targets: &[i32], temperature: f64, dl: &[f32], de: &[f32]) -> Exact {
    let mut out = Exact { log_probs: vec![], entropy: vec![], dh: vec![0.0; h.len()], dw: vec![0.0; w.len()] };
    for (r, h) in h.chunks(d).enumerate() {
        let z = w.chunks(d).map(|w| w.iter().zip(h).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>() / temperature);
        let z: Vec<f64> = z.collect();
        let top = z.iter().copied().fold(f64::MIN, f64::max);
        let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        let entropy = -z.iter().map(|z| (z - lse).exp() * (z - lse)).sum::<f64>();
        let target = targets[r] as usize;
        out.log_probs.push(z[target] - lse);
        out.entropy.push(entropy);
        for (v, z) in z.iter().enumerate() {
            let (p, hit) = ((z - lse).exp(), f64::from(v == target));
            let dz = ((hit - p) * dl[r] as f64 - p * (z - lse + entropy) * de[r] as f64) / temperature;
            for i in 0..d {
                out.dh[r * d + i] += dz * w[v * d + i] as f64;
                out.dw[v * d + i] += dz * h[i] as f64;
            }
        }
    }
    out
}

/// Differences of large numbers, in which the default itself loses digits: both are compared with f64.
#[test]
fn head_is_exact() {
    fn check<const D: usize>(fused: Tensor<F, D>, default: Tensor<F, D>, exact: &[f64], what: &str) {
        // A row that is sure of its token has log-probs far smaller than the logits that they come of.
        let largest = exact.iter().fold(1f64, |m, x| m.max(x.abs()));
        let gap = |t: Tensor<F, D>| {
            let values = t.into_data().to_vec::<f32>().unwrap();
            assert_eq!(values.len(), exact.len(), "{what}");
            values.iter().zip(exact).map(|(a, b)| (*a as f64 - b).abs()).fold(0.0, f64::max)
        };
        let (fused, default) = (gap(fused), gap(default));
        let within = fused <= HEAD[0] * largest && default <= HEAD[1] * largest;
        assert!(within, "{what}: off by {fused}, the default by {default}, of {largest}");
    }
    let rows = |t: Tensor<F, 2>| t.into_data().to_vec::<f32>().unwrap();
    for (m, d, vocab, temperature) in [(1, 8, 5, 1.0), (37, 24, 61, 0.7), (700, 32, 9000, 1.0)] {
        let (h, w) = (random([m, d]), random([vocab, d]));
        let ids: Vec<i32> = (0..m).map(|i| (i * 7919 % vocab) as i32).collect();
        let targets = Tensor::<F, 1, Int>::from_data(TensorData::new(ids.clone(), [m]), &Default::default());
        for d_entropy in [None, Some(random([m]))] {
            let dl = random([m]);
            let upstream = |t: &Tensor<F, 1>| t.to_data().to_vec::<f32>().unwrap();
            let de = d_entropy.as_ref().map_or(vec![0.0; m], upstream);
            let exact = exact_head(&rows(h.clone()), &rows(w.clone()), d, &ids, temperature, &upstream(&dl), &de);
            let a = head::log_probs(h.clone(), &w, targets.clone(), temperature, true);
            let b = plain_log_probs(h.clone(), &w, targets.clone(), temperature, true);
            check(a.log_probs, b.log_probs, &exact.log_probs, "log_probs");
            check(a.entropy.unwrap(), b.entropy.unwrap(), &exact.entropy, "entropy");
            let (t, de) = (targets.clone(), d_entropy.clone());
            let a = head::log_probs_backward(h.clone(), &w, t.clone(), temperature, dl.clone(), de.clone(), true);
            let b = plain_log_probs_backward(h.clone(), &w, t.clone(), temperature, dl.clone(), de.clone(), true);
            check(a.0, b.0, &exact.dh, "head dh");
            check(a.1.unwrap(), b.1.unwrap(), &exact.dw, "head dw");
            // A frozen head has no gradient, and that of the states is the same.
            let frozen = head::log_probs_backward(h.clone(), &w, t.clone(), temperature, dl.clone(), de.clone(), false);
            let plain = plain_log_probs_backward(h.clone(), &w, t, temperature, dl, de, false);
            assert!(frozen.1.is_none() && plain.1.is_none());
            check(frozen.0, plain.0, &exact.dh, "dh of a frozen head");
        }
    }
}
