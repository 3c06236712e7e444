//! Every GPU kernel against its default in plain tensor operations, on wgpu and CUDA.
//! Where the default multiplies matrices it runs on the CPU: what Burn's own products do on a GPU is not relied on.

use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels::Kernels;
use kernels::attention::{AttentionPlan, ResponseRows, backward, forward};
use kernels::head::{plain_log_probs, plain_log_probs_backward};
use kernels::layers::BlockShape;
use kernels::ops::plain;
use kernels::params::cast_to;
use kernels::rope::Rotary;
use vgpo::{Prototype, RowPrototypes};

use crate::products::{batches, contractions, few_rows};
use crate::source::random;

pub(crate) type Cpu = burn_ndarray::NdArray<f32>;

pub(crate) fn values<B: Kernels, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap()
}

/// Each value within `tolerance` of the largest, and of the expected type.
pub(crate) fn within<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, tolerance: f32, what: &str) {
    assert_eq!((a.dims(), a.dtype()), (b.dims(), b.dtype()), "{what}");
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len(), "{what}");
    let largest = b.iter().fold(1e-3f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "{what}: {a}, not {b}, at {i}; largest {largest}");
    }
}

pub(crate) fn close<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>, what: &str) {
    within(a, b, 3e-5, what);
}

/// The same numbers on the CPU.
pub(crate) fn host<B: Kernels, const D: usize>(t: &Tensor<B, D>) -> Tensor<Cpu, D> {
    Tensor::from_data(t.to_data(), &Default::default())
}

/// Integers on the CPU.
pub(crate) fn host_int<B: Kernels>(t: Tensor<B, 1, Int>) -> Vec<i32> {
    t.into_data().convert::<i32>().to_vec().unwrap()
}

/// As [`close`], of a tensor that the CPU made.
pub(crate) fn as_host<B: Kernels, const D: usize>(a: Tensor<B, D>, b: Tensor<Cpu, D>, what: &str) {
    close(host(&a), b, what);
}

/// The 16-bit types that the device has, each with how much coarser than f16 it is.
pub(crate) fn halves<B: Kernels>() -> impl Iterator<Item = (DType, f32)> {
    let has = |(dtype, _): &(DType, f32)| B::supports_dtype(&Default::default(), *dtype);
    [(DType::F16, 1.0), (DType::BF16, 8.0)].into_iter().filter(has)
}

fn swiglu<B: Kernels>() {
    for (n, m) in [(1, 1), (3, 17), (70, 128), (33, 1000), (0, 8)] {
        let what = format!("swiglu {n} x {m}");
        let (gate_up, dy) = (random::<B, 2>([n, 2 * m]), random::<B, 2>([n, m]));
        if n == 0 {
            assert_eq!(B::swiglu(gate_up.clone()).dims(), [0, m]);
            assert_eq!(B::swiglu_backward(gate_up, dy).dims(), [0, 2 * m]);
            continue;
        }
        let gate_up = gate_up.mul_scalar(3.0);
        close(B::swiglu(gate_up.clone()), plain::swiglu(gate_up.clone()), &what);
        let back = host(&plain::swiglu_backward(gate_up.clone(), dy.clone()));
        // Beside what something else holds, then in its place.
        as_host(B::swiglu_backward(gate_up.clone(), dy.clone()), back.clone(), &what);
        as_host(B::swiglu_backward(gate_up, dy), back, &what);
    }
    // A part of a matrix, and one that is turned; gates at which a careless sigmoid overflows.
    let both = random::<B, 2>([31, 93]);
    let (gate_up, dy) = (both.clone().slice([0..31, 0..62]), both.slice([0..31, 62..93]).transpose());
    close(B::swiglu(gate_up.clone()), plain::swiglu(gate_up.clone()), "views");
    close(B::swiglu_backward(gate_up.clone(), dy.clone()), plain::swiglu_backward(gate_up, dy), "views");
    let far = Tensor::<B, 2>::from_data([[-200.0, 200.0, 0.0, 1.0, 1.0, 1.0]], &Default::default());
    let one = Tensor::<B, 2>::ones([1, 3], &Default::default());
    assert_eq!(values(B::swiglu(far.clone()))[1..], [200.0, 0.0]);
    assert!(values(B::swiglu_backward(far, one)).iter().all(|x| x.is_finite()));
    for (half, loose) in halves::<B>() {
        let (gate_up, dy) = (cast_to(random::<B, 2>([9, 80]), half), cast_to(random::<B, 2>([9, 40]), half));
        within(B::swiglu(gate_up.clone()), plain::swiglu(gate_up.clone()), 2e-3 * loose, "half");
        let ours = B::swiglu_backward(gate_up.clone(), dy.clone());
        within(ours, plain::swiglu_backward(gate_up, dy), 1e-3 * loose, "half, backward");
    }
}

fn rotate_qkv<B: Kernels>() {
    for (n, heads, kv_heads, hd) in [(1, 1, 1, 16), (5, 4, 2, 32), (70, 7, 1, 64), (9, 3, 3, 80), (0, 2, 1, 16)] {
        let shape = BlockShape { heads, kv_heads, head_dim: hd };
        let what = format!("{heads} and {kv_heads} heads of {hd}, {n} tokens");
        let rotary = Rotary::<B> { cos: random([n, 1, hd]), sin: random([n, 1, hd]) };
        let qkv = random::<B, 2>([n, (heads + 2 * kv_heads) * hd]);
        let d_qkv = [heads, kv_heads, kv_heads].map(|heads| random::<B, 3>([n, heads, hd]));
        let ours = B::rotate_qkv(qkv.clone(), shape, &rotary);
        let back = B::rotate_qkv_backward(d_qkv.clone(), &rotary);
        if n == 0 {
            assert_eq!((ours.map(|t| t.dims()[1]), back.dims()), ([2, 1, 1], [0, 64]));
            continue;
        }
        for (ours, plain) in ours.into_iter().zip(plain::rotate_qkv(qkv.clone(), shape, &rotary)) {
            close(ours, plain, &what);
        }
        close(back, plain::rotate_qkv_backward(d_qkv.clone(), &rotary), &what);
        for (half, loose) in halves::<B>() {
            let (qkv, d_qkv) = (cast_to(qkv.clone(), half), d_qkv.clone().map(|t| cast_to(t, half)));
            let ours = B::rotate_qkv(qkv.clone(), shape, &rotary).into_iter();
            for (ours, plain) in ours.zip(plain::rotate_qkv(qkv, shape, &rotary)) {
                within(ours, plain, 1e-3 * loose, &what);
            }
            let plain = plain::rotate_qkv_backward(d_qkv.clone(), &rotary);
            within(B::rotate_qkv_backward(d_qkv, &rotary), plain, 1e-3 * loose, &what);
        }
    }
}

fn rotate<B: Kernels>() {
    for (n, h, hd) in [(1, 1, 16), (5, 3, 32), (70, 4, 64), (9, 7, 128), (3, 2, 80), (0, 2, 16)] {
        let what = format!("rotate {n} x {h} x {hd}");
        let rotary = Rotary::<B> { cos: random([n, 1, hd]), sin: random([n, 1, hd]) };
        let x = random::<B, 3>([n, h, hd]);
        if n == 0 {
            assert_eq!(B::rotate(x, &rotary).dims(), [0, h, hd]);
            continue;
        }
        close(B::rotate(x.clone(), &rotary), plain::rotate(x.clone(), &rotary), &what);
        close(B::rotate_backward(x.clone(), &rotary), plain::rotate_backward(x, &rotary), &what);
        // Every order of strides.
        let y = random::<B, 3>([hd, h, n]).swap_dims(0, 2);
        close(B::rotate(y.clone(), &rotary), plain::rotate(y, &rotary), &what);
        let z = random::<B, 3>([h, n, hd]).swap_dims(0, 1);
        close(B::rotate_backward(z.clone(), &rotary), plain::rotate_backward(z.clone(), &rotary), &what);
        for (half, loose) in halves::<B>() {
            let z = cast_to(z.clone(), half);
            within(B::rotate(z.clone(), &rotary), plain::rotate(z, &rotary), 1e-3 * loose, &what);
        }
    }
}

fn head<B: Kernels>() {
    let device = Default::default();
    for (m, d, v) in [(1, 8, 3), (5, 16, 300), (3, 64, 20_000), (1, 64, 151_936), (900, 64, 5000), (0, 8, 10)] {
        // Logits of a few units: where one token has all the probability the default's entropy is its rounding error.
        let (hidden, weight) = (random::<B, 2>([m, d]), random::<B, 2>([v, d]).mul_scalar(0.3));
        let targets: Vec<i32> = (0..m).map(|i| ((i * 7919 + v - 1) % v) as i32).collect();
        let targets: Tensor<B, 1, Int> = Tensor::from_data(TensorData::new(targets, [m]), &device);
        for (temperature, with_entropy) in [(1.0, false), (0.7, true)] {
            let what = format!("head of {m} x {d} x {v}, temperature {temperature}");
            let ours = B::log_probs(hidden.clone(), &weight, targets.clone(), temperature, with_entropy);
            assert_eq!((ours.log_probs.dims(), ours.entropy.is_some()), ([m], with_entropy), "{what}");
            let dl = random::<B, 1>([m]);
            let de = with_entropy.then(|| random::<B, 1>([m]));
            let (h, t) = (hidden.clone(), targets.clone());
            let (dh, dw) = B::log_probs_backward(h, &weight, t, temperature, dl.clone(), de.clone(), true);
            let dw = dw.unwrap();
            assert_eq!((dh.dims(), dw.dims()), ([m, d], [v, d]), "{what}");
            if m == 0 {
                continue;
            }
            let (h, w, t) = (host(&hidden), host(&weight), Tensor::from_data(targets.to_data(), &Default::default()));
            let plain = plain_log_probs(h.clone(), &w, t, temperature, with_entropy);
            as_host(ours.log_probs, plain.log_probs, &what);
            if let (Some(ours), Some(plain)) = (ours.entropy, plain.entropy) {
                // The default subtracts two numbers of the size of the logits.
                within(host(&ours), plain, 1e-4, &what);
            }
            let (dl, de, t) =
                (host(&dl), de.as_ref().map(host), Tensor::from_data(targets.to_data(), &Default::default()));
            let (ph, pw) = plain_log_probs_backward(h, &w, t, temperature, dl, de, true);
            // Sums over the vocabulary in the order of some matmul, of exponentials that differ in the last bits.
            within(host(&dh), ph, 1e-4, &what);
            within(host(&dw), pw.unwrap(), 1e-4, &what);
        }
    }
}

/// Attention inside image windows, if there are any, or over prompts and their responses.
fn attention_plan<B: Kernels>(windows: &[usize], groups: &[(usize, &[usize])]) -> AttentionPlan<B> {
    let device = Default::default();
    if !windows.is_empty() {
        return AttentionPlan::bidirectional(windows, &device);
    }
    let (mut prompts, mut responses, mut at) = (vec![], vec![], 0);
    let mut rows = |len: usize| {
        at += len;
        at - len..at
    };
    for (prompt, (len, lens)) in groups.iter().enumerate() {
        prompts.push(rows(*len));
        responses.extend(lens.iter().map(|len| ResponseRows { rows: rows(*len), prompt }));
    }
    AttentionPlan::causal(&prompts, &responses, &device)
}

fn attention<B: Kernels>() {
    // query heads, K/V heads, head size; windows or groups. Padding, prefixes of different lengths, one token, and a
    // segment so long that the default takes its queries in chunks.
    type Case<'a> = (usize, usize, usize, &'a [usize], &'a [(usize, &'a [usize])]);
    let cases: [Case; 6] = [
        (4, 2, 16, &[], &[(7, &[4, 6, 1]), (5, &[7])]),
        (6, 1, 32, &[], &[(33, &[20, 20, 20]), (30, &[20, 20, 20])]),
        (2, 2, 64, &[64, 64, 16, 4, 64], &[]),
        (3, 3, 80, &[5, 5, 5], &[]),
        (1, 1, 16, &[], &[(300, &[1])]),
        (1, 1, 8, &[], &[(4200, &[])]),
    ];
    let check =
        |(h, hkv, hd): (usize, usize, usize), plan: AttentionPlan<B>, host_plan: AttentionPlan<Cpu>, what: &str| {
            let what = format!("attention of {h}/{hkv} heads of {hd}, {what}");
            let n = plan.tokens;
            let [q, k, v, d_o] = [h, hkv, hkv, h].map(|heads| random::<B, 3>([n, heads, hd]));
            let (o, saved) = B::packed_attention(q.clone(), k.clone(), v.clone(), &plan);
            let qkv = [q.clone(), k.clone(), v.clone()];
            let ours = B::packed_attention_backward(qkv, o.clone(), &saved, d_o.clone(), &plan);
            let [q, k, v, d_o] = [q, k, v, d_o].map(|t| host(&t));
            let (po, saved) = forward(q.clone(), k.clone(), v.clone(), &host_plan);
            as_host(o, po.clone(), &what);
            let plain = backward([q, k, v], po, &saved, d_o, &host_plan);
            for (name, (ours, plain)) in ["dq", "dk", "dv"].iter().zip(ours.into_iter().zip(plain)) {
                as_host(ours, plain, &format!("{what}: {name}"));
            }
        };
    for (h, hkv, hd, windows, groups) in cases {
        let plans = (attention_plan(windows, groups), attention_plan(windows, groups));
        check((h, hkv, hd), plans.0, plans.1, &format!("{windows:?} {groups:?}"));
    }
    // In pieces of some units and of some segments, with rows at the end that take no part.
    for scores in [6 * 40 * 192, 6 * 20 * 192, 1] {
        let groups: &[(usize, &[usize])] = &[(33, &[20, 20, 20]), (30, &[20, 19, 20]), (30, &[20, 20])];
        let mut plans = (attention_plan(&[], groups).with_idle(5), attention_plan(&[], groups).with_idle(5));
        plans.0.scores = scores;
        check((6, 2, 16), plans.0, plans.1, &format!("pieces of {scores}"));
    }
    // Units of one block that share a prompt: their shares of its gradients must not meet.
    fn apart<B: Kernels>() -> AttentionPlan<B> {
        let responses = [(14..20, 0), (20..25, 1), (25..31, 0)].map(|(rows, prompt)| ResponseRows { rows, prompt });
        AttentionPlan::causal(&[0..8, 8..14], &responses, &Default::default())
    }
    check((4, 2, 16), apart(), apart(), "a prompt of two units");
    // Responses behind a prompt of which only keys and values are there.
    let responses = [9..20, 20..21, 21..50].map(|rows| ResponseRows { rows, prompt: 0 });
    let (device, cpu) = (Default::default(), Default::default());
    let plans = (AttentionPlan::continuing(9, &responses, &device), AttentionPlan::continuing(9, &responses, &cpu));
    check((4, 2, 16), plans.0.with_idle(14), plans.1.with_idle(14), "a prompt computed before");
    let whole = || attention_plan::<B>(&[], &[(9, &[4, 3]), (9, &[5, 5])]);
    let continued = || AttentionPlan::continuing(9, &responses, &device);
    for (plan, (half, loose)) in halves::<B>().flat_map(|half| [(whole(), half), (continued(), half)]) {
        let [q, k, v, d_o] = [4, 2, 2, 4].map(|heads| cast_to(random::<B, 3>([plan.tokens, heads, 32]), half));
        let (o, saved) = B::packed_attention(q.clone(), k.clone(), v.clone(), &plan);
        let (po, plain_saved) = forward(q.clone(), k.clone(), v.clone(), &plan);
        let qkv = [q, k, v];
        let ours = B::packed_attention_backward(qkv.clone(), o.clone(), &saved, d_o.clone(), &plan);
        let plain = backward(qkv, po.clone(), &plain_saved, d_o, &plan);
        within(o, po, 3e-3 * loose, "attention, half");
        for (ours, plain) in ours.into_iter().zip(plain) {
            within(ours, plain, 1e-2 * loose, "attention's gradients, half");
        }
    }
}

/// Against the CPU, as vgpo's equation multiplies matrices: tokens, width, images.
fn visual_focus<B: Kernels>() {
    for (t, d, images) in [(1, 1, 1), (3, 17, 1), (70, 129, 2), (33, 3584, 2), (300, 96, 1)] {
        let (hidden, means) = (random::<B, 2>([t, d]), random::<B, 2>([images, d]));
        let types = std::iter::once((DType::F32, 0.01)).chain(halves::<B>());
        for (dtype, loose) in types {
            let what = format!("focus of {t} x {d} on {images} in {dtype:?}");
            let hidden = cast_to(hidden.clone(), dtype);
            let on_host = cast_to(host(&hidden), DType::F32);
            let want = vgpo::visual_focus(on_host, &Prototype { means: host(&means) }, 1e-8);
            let got = B::visual_focus(hidden.clone(), &Prototype { means: means.clone() }, 1e-8);
            within(host(&got), want, 3e-3 * loose, &what);
            // Each row with prototypes of its own, one of them without any.
            let own = |row: usize| {
                let means = random::<B, 2>([1 + row % images, d]);
                (row != 1).then_some(Prototype { means })
            };
            let own: Vec<_> = (0..t).map(own).collect();
            let rows = RowPrototypes::new(&own.iter().map(Option::as_ref).collect::<Vec<_>>());
            let got = values(B::visual_focus_of_rows(hidden.clone(), &rows.unwrap(), 1e-8));
            assert_eq!(got.len(), t);
            for (row, prototype) in own.iter().enumerate().filter_map(|(row, p)| p.as_ref().map(|p| (row, p))) {
                let alone = B::visual_focus(hidden.clone().slice([row..row + 1, 0..d]), prototype, 1e-8);
                assert!((values(alone)[0] - got[row]).abs() < 1e-6, "{what}: row {row}");
            }
        }
    }
    let none = Prototype { means: random::<B, 2>([1, 8]) };
    assert_eq!(B::visual_focus(random([0, 8]), &none, 1e-8).dims(), [0]);
}

/// A chain of kernels and of Burn's operations, with tensors used again later.
fn chain<B: Kernels>() {
    let (x, w) = (random::<B, 2>([37, 48]), random::<B, 1>([48]));
    let run = |norm: fn(Tensor<B, 2>, Tensor<B, 1>, f64) -> Tensor<B, 2>, mix: fn(Tensor<B, 2>) -> Tensor<B, 2>| {
        let mut y = x.clone();
        for i in 0..4 {
            let z = norm(y.clone().add_scalar(0.5), w.clone(), 1e-6);
            y = y
                .add(mix(Tensor::cat(vec![z.clone().mul_scalar(1.5), z.exp().clamp_max(4.0)], 1)))
                .div_scalar(1.0 + i as f32);
        }
        y
    };
    close(run(B::rms_norm, B::swiglu), run(plain::rms_norm, plain::swiglu), "chain");
}

on_backends!([swiglu, rotate, rotate_qkv, head, attention, visual_focus, chain, contractions, few_rows, batches]);
