//! AdamW, sums of gradients and their norm against the defaults, in every combination of types that the device has.

use burn::tensor::{DType, Int, Tensor, TensorData};
use kernels::ops::{AdamWParameter, AdamWStep, Rounded, Rounding, noise, plain, plain_adamw};
use kernels::params::cast_to;
use kernels::{Gradients, Kernels};

use crate::operations::{halves, values, within};
use crate::source::random;

/// f32 and the 16-bit types of the device, with what their rounding makes of the largest value.
fn types<B: Kernels>() -> Vec<(DType, f32)> {
    [(DType::F32, 1e-5)].into_iter().chain(halves::<B>().map(|(half, loose)| (half, 1e-3 * loose))).collect()
}

fn step(step: usize, rounding: Rounding) -> AdamWStep {
    AdamWStep { lr: 0.01, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, step, grad_scale: 0.5, rounding }
}

/// Values of all parts, which something else may hold.
fn all<B: Kernels>(p: &AdamWParameter<B>) -> Vec<Vec<f32>> {
    [&p.param, &p.m, &p.v].into_iter().chain(&p.master).map(|t| values(t.clone())).collect()
}

fn check<B: Kernels>(ours: AdamWParameter<B>, plain: AdamWParameter<B>, tolerances: [f32; 2], what: &str) {
    within(ours.param, plain.param, tolerances[0], what);
    within(ours.m, plain.m, tolerances[1], what);
    within(ours.v, plain.v, tolerances[1], what);
    assert_eq!(ours.master.is_some(), plain.master.is_some(), "{what}");
    if let (Some(ours), Some(plain)) = (ours.master, plain.master) {
        within(ours, plain, 1e-5, what);
    }
}

/// A parameter and its gradient.
fn made<B: Kernels>(n: usize, [of, moments, grad]: [DType; 3], master: bool) -> (AdamWParameter<B>, Tensor<B, 1>) {
    let p = random::<B, 1>([n]);
    let (m, v) = (random::<B, 1>([n]), random::<B, 1>([n]).abs());
    let parameter = AdamWParameter {
        param: cast_to(p.clone(), of),
        m: cast_to(m, moments),
        v: cast_to(v, moments),
        master: master.then_some(p),
    };
    (parameter, cast_to(random::<B, 1>([n]), grad))
}

/// The same values in buffers that nothing else holds.
fn own<B: Kernels>(p: &AdamWParameter<B>) -> AdamWParameter<B> {
    let own = |t: &Tensor<B, 1>| t.clone().mul_scalar(1.0);
    AdamWParameter { param: own(&p.param), m: own(&p.m), v: own(&p.v), master: p.master.as_ref().map(own) }
}

fn adamw<B: Kernels>() {
    for (of, loose) in types::<B>() {
        for (moments, moments_loose) in types::<B>() {
            for (grad, _) in types::<B>() {
                for master in [false, true] {
                    let what = format!("AdamW of {of:?}, moments {moments:?}, gradient {grad:?}, master {master}");
                    let types = [of, moments, grad];
                    every_length::<B>(types, master, [loose, moments_loose], &what);
                }
            }
        }
    }
    let (p, g) = made::<B>(0, [DType::F32; 3], false);
    assert_eq!(B::adamw(p, g, &step(1, Rounding::default())).v.dims(), [0]);
}

fn every_length<B: Kernels>(types: [DType; 3], master: bool, tolerances: [f32; 2], what: &str) {
    let none = Rounding::default();
    for n in [1, 257, 1024, 70_004] {
        let (p, g) = made::<B>(n, types, master);
        let before = all(&p);
        let ours = B::adamw(p.clone(), g.clone(), &step(3, none));
        check(ours, plain_adamw(p.clone(), g.clone(), &step(3, none)), tolerances, what);
        assert_eq!(before, all(&p), "{what}: what something else holds keeps its values");
        // Two steps in place.
        let twice = |f: fn(AdamWParameter<B>, Tensor<B, 1>, &AdamWStep) -> AdamWParameter<B>, p: AdamWParameter<B>| {
            f(f(p, g.clone(), &step(1, none)), g.clone(), &step(2, none))
        };
        check(twice(B::adamw, own(&p)), twice(plain_adamw, own(&p)), tolerances.map(|t| 2.0 * t), what);
    }
}

/// One column of a matrix, and a slice that begins where no vector does.
fn adamw_of_views<B: Kernels>() {
    let column = |k: usize| random::<B, 2>([300, 3]).slice([0..300, k..k + 1]).reshape([300]);
    let p = AdamWParameter { param: column(0), m: column(1), v: column(2).abs(), master: None };
    let g = random::<B, 1>([307]).slice([7..307]);
    let h = step(1, Rounding::default());
    check(B::adamw(p.clone(), g.clone(), &h), plain_adamw(p, g, &h), [1e-5; 2], "AdamW of views");
}

/// The bits of f32 that bf16 has not, plus noise, cut off.
fn cut(x: f32, noise: u32) -> f32 {
    f32::from_bits((x.to_bits() + noise) & 0xFFFF_0000)
}

/// What is rounded by chance is the unrounded result with the noise of its place, to the bit: parameters, moments, and
/// not what has a master. Kept in f32, which every device has, and in bf16 where it is.
fn rounding_by_chance<B: Kernels>() {
    let bf16 = B::supports_dtype(&Default::default(), DType::BF16);
    for dtype in [Some(DType::F32), bf16.then_some(DType::BF16)].into_iter().flatten() {
        for (param, moments, master) in
            [(true, true, false), (true, false, false), (false, true, false), (true, true, true)]
        {
            let what = format!("{dtype:?}, rounded: parameter {param}, moments {moments}; master {master}");
            let seed = 0xFEDC_BA98_7654_3210;
            let (p, g) = made::<B>(70_004, [dtype, dtype, DType::F32], master);
            let wide = |t: &Tensor<B, 1>| cast_to(t.clone(), DType::F32);
            let exact =
                AdamWParameter { param: wide(&p.param), m: wide(&p.m), v: wide(&p.v), master: p.master.clone() };
            let exact = all(&B::adamw(exact, g.clone(), &step(5, Rounding::default())));
            // At the beginning of a tensor; a part that begins where no vector does; one over which the seed
            // changes, at a place that wgpu can bind.
            let first = [0, 3, (1 << 30) - 128][usize::from(moments) + usize::from(param && master)];
            let rounding = Rounding { seed, first, param, moments };
            let ours = all(&B::adamw(p.clone(), g.clone(), &step(5, rounding)));
            let rounded = [(Rounded::Param, param && !master), (Rounded::M, moments), (Rounded::V, moments)];
            for (k, (of, by_chance)) in rounded.into_iter().enumerate() {
                for (i, (ours, exact)) in ours[k].iter().zip(&exact[k]).enumerate() {
                    let nearest = match dtype {
                        DType::BF16 => half::bf16::from_f32(*exact).to_f32(),
                        _ => *exact,
                    };
                    let expected = if by_chance { cut(*exact, noise(seed, first + i, of)) } else { nearest };
                    assert_eq!(*ours, expected, "{what}: {of:?} {i}");
                }
            }
            let again = all(&B::adamw(p.clone(), g.clone(), &step(5, rounding)));
            assert_eq!(ours, again, "{what}: again");
            let other = Rounding { seed: seed ^ (1 << 40), ..rounding };
            let other = all(&B::adamw(p, g, &step(5, other)));
            assert_eq!(ours[0] == other[0], !rounded[0].1, "{what}: another seed");
        }
    }
}

/// Steps much smaller than the distance of two numbers of bf16 add up to what they are on average.
fn small_steps_add_up<B: Kernels>() {
    let n = 40_000;
    let device = Default::default();
    let full = |x: f32| Tensor::<B, 1>::full([n], x, &device);
    let mut p = AdamWParameter { param: full(1.0), m: full(0.0), v: full(0.0), master: None };
    for t in 1..=20 {
        let rounding = Rounding { seed: t as u64, first: 0, param: true, moments: true };
        let h = AdamWStep { lr: 1e-4, weight_decay: 0.0, eps: 0.0, grad_scale: 1.0, ..step(t, rounding) };
        p = B::adamw(p, full(0.3), &h);
    }
    // Adam's steps are lr each when all gradients agree; numbers of bf16 below 1 are 0.0039 apart.
    let moved = 1.0 - values(p.param).iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
    assert!((moved / 2e-3 - 1.0).abs() < 0.03, "{moved}");
}

fn accumulate<B: Kernels>() {
    for (kept, loose) in types::<B>() {
        for (of, _) in types::<B>() {
            for n in [0, 1, 257, 70_004] {
                let (sum, grad) = (cast_to(random::<B, 1>([n]), kept), cast_to(random::<B, 1>([n]), of));
                let before = values(sum.clone());
                let ours = B::accumulate(sum.clone(), grad.clone());
                within(ours, plain::accumulate(sum.clone(), grad.clone()), loose, "accumulate");
                assert_eq!(before, values(sum.clone()), "what something else holds keeps its values");
                let own = sum.clone().mul_scalar(1.0);
                within(B::accumulate(own, grad.clone()), plain::accumulate(sum, grad), loose, "accumulate in place");
            }
        }
    }
}

fn accumulate_columns<B: Kernels>() {
    for (kept, loose) in types::<B>() {
        for (of, _) in types::<B>() {
            for (n, d) in [(0, 8), (1, 1), (37, 64), (300, 130), (65, 68), (1000, 3)] {
                let (sum, rows) = (cast_to(random::<B, 1>([d]), kept), cast_to(random::<B, 2>([n, d]), of));
                let before = values(sum.clone());
                let ours = B::accumulate_columns(sum.clone(), rows.clone());
                let what = format!("columns of {n} x {d}, {of:?} to {kept:?}");
                within(ours, plain::accumulate_columns(sum.clone(), rows), loose, &what);
                assert_eq!(before, values(sum), "what something else holds keeps its values");
            }
        }
    }
}

fn accumulate_rows<B: Kernels>() {
    let device = Default::default();
    for (kept, loose) in types::<B>() {
        for (of, _) in types::<B>() {
            for (v, d, m) in [(3, 5, 40), (50, 128, 7), (9, 300, 1), (7, 4, 0)] {
                let rows: Vec<i32> = (0..m).map(|i| (i * i * 7 % v) as i32).collect();
                let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [m]), &device);
                let (table, values_of) = (cast_to(random::<B, 1>([v * d]), kept), cast_to(random([m, d]), of));
                let before = values(table.clone());
                let ours = B::accumulate_rows(table.clone(), rows.clone(), values_of.clone());
                let plain = plain::accumulate_rows(table.clone(), rows, values_of);
                within(ours, plain, loose, "accumulate_rows");
                assert_eq!(before, values(table), "what something else holds keeps its values");
            }
        }
    }
}

/// Gradients of three passes, in the type that they are kept in.
fn gradients_add_up<B: Kernels>() {
    for (kept, loose) in types::<B>() {
        let mut grads = Gradients::<B>::kept_in(kept);
        let parts: Vec<Tensor<B, 2>> = (0..3).map(|_| random([37, 5])).collect();
        parts.iter().for_each(|part| grads.add("a", part.clone()));
        let sum = parts.iter().skip(1).fold(parts[0].clone(), |sum, part| sum.add(part.clone()));
        within(cast_to(grads.get("a").unwrap().clone(), DType::F32), sum.reshape([185]), 3.0 * loose, "gradients");
    }
}

fn squared_norm<B: Kernels>() {
    let device = Default::default();
    assert_eq!(values(B::squared_norm(vec![], &device)), [0.0]);
    assert_eq!(values(B::squared_norm(vec![random([0])], &device)), [0.0]);
    // More tensors than a launch takes, of odd sizes, one of more than a block, and one that begins where no vector
    // does.
    let lengths = [1, 2, 3, 4, 5, 255, 256, 257, 65_535, 65_536, 65_537, 300_000, 131_072].into_iter().cycle();
    let grads = |types: &[DType]| -> Vec<Tensor<B, 1>> {
        let made = lengths.clone().take(75).enumerate();
        let mut made: Vec<_> = made.map(|(i, n)| cast_to(random([n]), types[i % types.len()])).collect();
        made.push(random::<B, 1>([1003]).slice([3..1003]));
        made
    };
    let types: Vec<DType> = types::<B>().into_iter().map(|(dtype, _)| dtype).collect();
    for types in [&types[..1], &types] {
        let grads = grads(types);
        let exact: f64 =
            grads.iter().flat_map(|g| values(cast_to(g.clone(), DType::F32))).map(|x| f64::from(x).powi(2)).sum();
        let ours = values(B::squared_norm(grads.clone(), &device))[0];
        assert!((f64::from(ours) / exact - 1.0).abs() < 2e-6, "{ours}, not {exact}");
        assert_eq!(ours.to_bits(), values(B::squared_norm(grads.clone(), &device))[0].to_bits(), "again");
        // One value that is none, anywhere.
        for (tensor, place) in [(0, 0), (11, 299_999), (40, 0), (75, 999)] {
            for wrong in [f32::NAN, f32::INFINITY, 3e38] {
                let mut grads = grads.clone();
                let mut bad = values(cast_to(grads[tensor].clone(), DType::F32));
                bad[place] = wrong;
                let len = bad.len();
                let bad = Tensor::<B, 1>::from_data(TensorData::new(bad, [len]), (&device, DType::F32));
                grads[tensor] = bad;
                let norm = values(B::squared_norm(grads, &device))[0];
                assert!(!norm.is_finite(), "{wrong} in tensor {tensor} is seen: {norm}");
            }
        }
    }
}

on_backends!([
    adamw,
    adamw_of_views,
    rounding_by_chance,
    small_steps_add_up,
    accumulate,
    accumulate_columns,
    accumulate_rows,
    gradients_add_up,
    squared_norm
]);
