//! What decoding launches for each token: every kernel against its default.

use burn::tensor::{Int, Tensor, TensorData};
use kernels::Kernels;
use kernels::attention::decode::{DecodeKv, NewTokens, OwnKv, PromptRows};
use kernels::layers::BlockShape;
use kernels::ops::plain;
use kernels::params::cast_to;
use kernels::rope::Rotary;
use kernels::sampling::{RowChoice, sample as plain_sample};

use crate::operations::{Cpu, as_host, halves, host, host_int, values, within};
use crate::source::random;

fn ints<B: Kernels>(values: impl IntoIterator<Item = usize>) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), &Default::default())
}

fn take_rows<B: Kernels>() {
    for (n, d) in [(1, 1), (3, 17), (64, 384), (5, 3584)] {
        let table = random::<B, 2>([50, d]);
        let rows = ints::<B>((0..n).map(|i| (i * 17 + 49) % 50));
        let taken = values(B::take_rows(&table, rows.clone()));
        assert_eq!(taken, values(plain::take_rows(&table, rows)), "{n} x {d}");
    }
    // A table that is turned.
    let (table, rows) = (random::<B, 2>([7, 9]).transpose(), ints::<B>([8, 0, 8]));
    assert_eq!(values(B::take_rows(&table, rows.clone())), values(plain::take_rows(&table, rows)));
}

fn parts_norm<B: Kernels>() {
    for (s, n, d) in [(1, 1, 1), (3, 3, 17), (8, 64, 384), (2, 5, 3584)] {
        let what = format!("{s} parts of {n} x {d}");
        let (x, parts, w) = (random::<B, 2>([n, d]), random::<B, 3>([s, n, d]), random::<B, 1>([d]));
        for (dtype, tolerance) in
            std::iter::once((x.dtype(), 3e-5)).chain(halves::<B>().map(|(half, loose)| (half, 3e-3 * loose)))
        {
            let (x, w) = (cast_to(x.clone(), dtype), cast_to(w.clone(), dtype));
            let (sum, normed) = B::add_parts_rms_norm(x.clone(), parts.clone(), w.clone(), 1e-6);
            let plain = plain::add_rms_norm(x, plain::whole(parts.clone(), dtype), w, 1e-6);
            within(sum, plain.0, tolerance, &what);
            within(normed, plain.1, tolerance, &what);
        }
    }
}

fn parts_swiglu<B: Kernels>() {
    for (s, n, m) in [(1, 1, 1), (3, 3, 17), (8, 64, 130), (2, 5, 1000), (2, 0, 8)] {
        let parts = random::<B, 3>([s, n, 2 * m]);
        for (dtype, tolerance) in
            std::iter::once((parts.dtype(), 3e-5)).chain(halves::<B>().map(|(half, loose)| (half, 3e-3 * loose)))
        {
            let ours = B::swiglu_parts(parts.clone(), dtype);
            assert_eq!((ours.dims(), ours.dtype()), ([n, m], dtype));
            if n > 0 {
                let plain = plain::swiglu(plain::whole(parts.clone(), dtype));
                within(ours, plain, tolerance, &format!("{s} parts of {n} x {m}"));
            }
        }
    }
}

/// Lanes of rows, each with the capacity of its cache and the columns that are written.
type Lanes<'a> = &'a [(usize, usize, usize)];

fn heads<B: Kernels>() {
    let cases: [(BlockShape, Lanes); 6] = [
        (BlockShape { heads: 1, kv_heads: 1, head_dim: 16 }, &[(1, 1, 0)]),
        (BlockShape { heads: 6, kv_heads: 2, head_dim: 32 }, &[(5, 9, 8), (3, 4, 0)]),
        (BlockShape { heads: 7, kv_heads: 1, head_dim: 64 }, &[(2, 64, 33)]),
        (BlockShape { heads: 8, kv_heads: 4, head_dim: 128 }, &[(4, 5, 2), (1, 3, 1), (6, 8, 7)]),
        (BlockShape { heads: 3, kv_heads: 3, head_dim: 80 }, &[(9, 2, 1)]),
        (BlockShape { heads: 2, kv_heads: 1, head_dim: 512 }, &[(2, 3, 1)]), // larger heads than the kernel takes
    ];
    for (shape, lanes) in cases {
        let BlockShape { heads, kv_heads, head_dim: hd } = shape;
        let rows = lanes.iter().map(|lane| lane.0).sum();
        let width = (heads + 2 * kv_heads) * hd;
        let angles = Rotary::<B> { cos: random([40, 1, hd]), sin: random([40, 1, hd]) };
        let positions = ints::<B>((0..rows).map(|i| (i * 7 + 39) % 40));
        let (x, bias) = (random::<B, 3>([1 + rows % 3, rows, width]), random::<B, 1>([width]));
        let norms = [random::<B, 1>([hd]), random::<B, 1>([hd])];
        let own: Vec<[Tensor<B, 4>; 2]> =
            lanes.iter().map(|&(rows, capacity, _)| [(); 2].map(|()| random([rows, capacity, kv_heads, hd]))).collect();
        for (biased, normed) in [(false, false), (true, false), (false, true), (true, true)] {
            let what = format!("{shape:?} {lanes:?} {biased} {normed}");
            for (dtype, tolerance) in
                std::iter::once((x.dtype(), 3e-5)).chain(halves::<B>().map(|(half, loose)| (half, 3e-3 * loose)))
            {
                let bias = cast_to(bias.clone(), dtype);
                let [q_norm, k_norm] = norms.clone().map(|w| cast_to(w, dtype));
                let tokens = NewTokens {
                    shape,
                    bias: biased.then_some(&bias),
                    qk_norm: normed.then_some([(&q_norm, 1e-6), (&k_norm, 1e-2)]),
                    angles: &angles,
                    positions: &positions,
                };
                let own = || {
                    let caches = own.iter().zip(lanes);
                    let cache = |([k, v], lane): (&[Tensor<B, 4>; 2], &(usize, usize, usize))| OwnKv {
                        k: cast_to(k.clone(), dtype),
                        v: cast_to(v.clone(), dtype),
                        len: lane.2,
                    };
                    caches.map(cache).collect::<Vec<_>>()
                };
                let x = x.clone();
                let before: Vec<Vec<f32>> = own().into_iter().map(|kv| values(kv.k)).collect();
                let (q, written) = B::decode_heads(x.clone(), tokens, own());
                let (pq, plain) = plain::decode_heads(x, tokens, own());
                within(q, pq, tolerance, &what);
                assert_eq!(written.len(), lanes.len());
                for (ours, plain) in written.into_iter().zip(plain) {
                    assert_eq!(ours.len, plain.len, "{what}");
                    within(ours.k, plain.k, tolerance, &format!("keys, {what}"));
                    within(ours.v, plain.v, tolerance, &format!("values, {what}"));
                }
                let after: Vec<Vec<f32>> = own().into_iter().map(|kv| values(kv.k)).collect();
                assert_eq!(before, after, "a cache that something else holds is not written");
            }
        }
    }
}

fn host_kv<B: Kernels>(kv: &DecodeKv<B>) -> DecodeKv<Cpu> {
    DecodeKv {
        prefix: (host(&kv.prefix.0), host(&kv.prefix.1)),
        prompts: PromptRows::new(kv.prompts.ranges.clone(), &Default::default()),
        n: kv.n,
        own: OwnKv { k: host(&kv.own.k), v: host(&kv.own.v), len: kv.own.len },
    }
}

fn attention<B: Kernels>() {
    // query heads a K/V head, K/V heads, head size; lanes of prompts, responses a prompt, capacity, written columns
    type Lane<'a> = (&'a [usize], usize, usize, usize);
    type Case<'a> = (usize, usize, usize, &'a [Lane<'a>]);
    let cases: [Case; 9] = [
        (1, 1, 16, &[(&[1], 1, 1, 1)]),
        (2, 2, 32, &[(&[33, 5], 3, 8, 5)]),
        (7, 1, 64, &[(&[100, 129, 127], 2, 64, 64)]),
        (8, 2, 128, &[(&[70, 300], 2, 40, 33), (&[9], 4, 8, 1)]),
        (3, 2, 80, &[(&[32, 32], 2, 400, 397)]), // several parts of own keys
        (5, 2, 128, &[(&[700], 1, 600, 520)]),
        (4, 1, 32, &[(&[3, 1, 2], 2, 7, 7), (&[128], 1, 4, 2), (&[127, 40], 1, 130, 129)]),
        (16, 1, 16, &[(&[20], 2, 9, 3)]),
        (1, 1, 160, &[(&[2], 1, 2, 1)]), // larger heads than the kernel takes
    ];
    for (g, kv_heads, hd, lanes) in cases {
        let what = format!("{g} heads for each of {kv_heads} of {hd}, {lanes:?}");
        let past: Vec<DecodeKv<B>> = lanes
            .iter()
            .map(|&(prompts, n, capacity, len)| {
                // Prompts lie behind others' tokens, the last first.
                let tokens = prompts.iter().sum::<usize>() + 11;
                let mut end = tokens - 4;
                let ranges = prompts.iter().map(|p| {
                    end -= p;
                    end..end + p
                });
                let prompts = PromptRows::new(ranges.collect(), &Default::default());
                let rows = prompts.ranges.len() * n;
                let prefix = [(); 2].map(|()| random::<B, 3>([tokens, kv_heads, hd]).mul_scalar(2.0));
                let [k, v] = [(); 2].map(|()| random::<B, 4>([rows, capacity, kv_heads, hd]).mul_scalar(2.0));
                DecodeKv { prefix: prefix.into(), prompts, n, own: OwnKv { k, v, len } }
            })
            .collect();
        let rows = past.iter().map(|kv| kv.own.k.dims()[0]).sum();
        let q = random::<B, 3>([rows, kv_heads * g, hd]).mul_scalar(3.0);
        let hosts: Vec<DecodeKv<Cpu>> = past.iter().map(host_kv).collect();
        let expected = plain::decode_attention(host(&q), &hosts);
        let ours = B::decode_attention(q.clone(), &past);
        as_host(ours.clone(), expected, &what);
        assert_eq!(values(ours), values(B::decode_attention(q.clone(), &past)), "twice, {what}");
        for (half, loose) in halves::<B>() {
            let past: Vec<DecodeKv<B>> = past
                .iter()
                .map(|kv| DecodeKv {
                    prefix: (cast_to(kv.prefix.0.clone(), half), cast_to(kv.prefix.1.clone(), half)),
                    own: OwnKv {
                        k: cast_to(kv.own.k.clone(), half),
                        v: cast_to(kv.own.v.clone(), half),
                        len: kv.own.len,
                    },
                    ..kv.clone()
                })
                .collect();
            let q = cast_to(q.clone(), half);
            let plain = plain::decode_attention(q.clone(), &past);
            within(B::decode_attention(q, &past), plain, 5e-3 * loose, &what);
        }
    }
    assert_eq!(B::decode_attention(random([0, 2, 16]), &[]).dims(), [0, 2, 16]);
}

/// Rows of each kind, alike or each in its own way, and how many masks they have.
fn choices(rows: usize) -> Vec<(Vec<RowChoice>, usize)> {
    let uniform = |i: usize| ((i * 7919 % 1000) as f32 + 0.5) / 1000.0;
    let row = |i: usize, temperature: f64, top_p: f64| RowChoice { temperature, top_p, uniform: uniform(i) };
    vec![
        ((0..rows).map(|i| row(i, 1.0, 1.0)).collect(), 0),
        ((0..rows).map(|i| row(i, 0.0, 1.0)).collect(), 1),
        ((0..rows).map(|i| row(i, 0.7, 0.9)).collect(), 1),
        ((0..rows).map(|i| row(i, [0.0, 0.5, 1.0, 1.3][i % 4], [1.0, 0.8, 0.3][i % 3])).collect(), rows),
    ]
}

fn sample<B: Kernels>() {
    for (rows, vocab) in [(1, 1), (9, 5), (12, 300), (40, 1021), (6, 20_000), (3, 151_936)] {
        let logits = random::<B, 2>([rows, vocab]).mul_scalar(6.0);
        for (choices, masks) in choices(rows) {
            let what = format!("{rows} rows of {vocab}, {masks} masks, {:?}", choices[0]);
            // Each mask forbids other tokens, and none the last.
            let mask: Vec<f32> = (0..masks * vocab)
                .map(|i| (i / vocab, i % vocab))
                .map(|(mask, i)| if i % 3 == mask % 3 && i + 1 < vocab { -1e30 } else { 0.0 })
                .collect();
            let forbidden = (masks > 0)
                .then(|| Tensor::<B, 2>::from_data(TensorData::new(mask.clone(), [masks, vocab]), &Default::default()));
            let (ids, log_probs) = B::sample(logits.clone(), &choices, forbidden.as_ref());
            let (plain_ids, _) = plain_sample(host(&logits), &choices, forbidden.as_ref().map(host).as_ref());
            let (ids, plain_ids, log_probs) = (host_int(ids), host_int(plain_ids), values(log_probs));
            let all = values(logits.clone());
            let mut same = 0;
            for (row, choice) in choices.iter().enumerate() {
                let (id, other) = (ids[row] as usize, plain_ids[row] as usize);
                let inverse = if choice.temperature == 0.0 { 1.0 } else { 1.0 / choice.temperature };
                let z: Vec<f64> = all[row * vocab..][..vocab].iter().map(|z| f64::from(*z) * inverse).collect();
                let top = z.iter().copied().fold(f64::MIN, f64::max);
                let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
                let gap = (f64::from(log_probs[row]) - (z[id] - lse)).abs();
                assert!(gap < 1e-4, "{what}: {} is {gap} off", log_probs[row]);
                let allowed = masks == 0 || mask[(if masks == 1 { 0 } else { row }) * vocab + id] == 0.0;
                assert!(allowed, "{what}: row {row} drew {id}");
                // The same token, or one whose neighbourhood in the distribution is within what f32 sums lose.
                let between: f64 = (id.min(other) + 1..id.max(other)).map(|i| (z[i] - lse).exp()).sum();
                same += usize::from(id == other);
                assert!(id == other || (choice.temperature > 0.0 && between < 0.1), "{what}: row {row}: {id}, {other}");
            }
            assert!(same * 20 >= rows * 19, "{what}: {same} of {rows} are the default's");
        }
        for (half, _) in halves::<B>() {
            let logits = cast_to(logits.clone(), half);
            let greedy = &choices(rows)[1].0;
            let (ids, log_probs) = B::sample(logits.clone(), greedy, None);
            as_host(log_probs, plain_sample(host(&logits), greedy, None).1, "half");
            let z = values(logits);
            for (row, id) in host_int(ids).into_iter().enumerate() {
                let z = &z[row * vocab..][..vocab];
                assert!(z.iter().all(|other| *other <= z[id as usize]), "half");
            }
        }
    }
    frequencies::<B>();
    no_numbers::<B>();
}

/// Over a regular grid of uniform numbers they are the softmax of what may be drawn.
fn frequencies<B: Kernels>() {
    let (rows, vocab) = (2000, 37);
    let z: Vec<f32> = (0..vocab).map(|i| (i * 7 % 37) as f32 / 9.0).collect();
    let logits = Tensor::<B, 1>::from_data(TensorData::new(z.clone(), [vocab]), &Default::default());
    let logits = logits.reshape([1, vocab]).repeat_dim(0, rows);
    let choices: Vec<RowChoice> = (0..rows)
        .map(|i| RowChoice { temperature: 0.8, top_p: 1.0, uniform: (i as f32 + 0.5) / rows as f32 })
        .collect();
    let mut counts = vec![0.0; vocab];
    host_int(B::sample(logits, &choices, None).0).into_iter().for_each(|id| counts[id as usize] += 1.0 / rows as f64);
    let all: f64 = z.iter().map(|z| (f64::from(*z) / 0.8).exp()).sum();
    for (z, share) in z.iter().zip(counts) {
        assert!(((f64::from(*z) / 0.8).exp() / all - share).abs() < 1.1 / rows as f64);
    }
}

/// A row that is no number gives a token of the vocabulary and a log-prob that says so; others notice nothing.
fn no_numbers<B: Kernels>() {
    for bad in [f32::NAN, f32::INFINITY] {
        for choice in choices(1).into_iter().flat_map(|(choices, _)| choices) {
            let run = |middle: f32| {
                let rows = [[0.1, 0.2, 0.3, 0.4], [0.5, middle, 0.0, 1.0], [2.0, 1.0, 0.0, 0.0]];
                let rows = Tensor::<B, 2>::from_data(rows, &Default::default());
                let (ids, log_probs) = B::sample(rows, &[choice; 3], None);
                (host_int(ids), values(log_probs))
            };
            let ((ids, log_probs), (good_ids, good)) = (run(bad), run(0.1));
            assert!(ids.iter().all(|id| (0..4).contains(id)), "{choice:?} {bad}: {ids:?}");
            assert!(!log_probs[1].is_finite(), "{choice:?} {bad}: {log_probs:?}");
            for row in [0, 2] {
                assert_eq!((ids[row], log_probs[row]), (good_ids[row], good[row]), "{choice:?} {bad}");
            }
        }
    }
}

on_backends!([take_rows, parts_norm, parts_swiglu, heads, attention, sample]);
