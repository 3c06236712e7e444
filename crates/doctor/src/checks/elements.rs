//! What goes over elements: projections with their biases, activations, rotations, additions of rows, AdamW.

use burn::tensor::{DType, Tensor};
use kernels::Kernels;
use kernels::layers::BlockShape;
use kernels::ops::{Activation, AdamWParameter, AdamWStep, Rounding, plain, plain_adamw};
use kernels::params::cast_to;
use kernels::rope::Rotary;
use rl::TrainError;

use crate::finding::Comparisons;
use crate::sides::{Sides, flat};

/// Rows of the inputs: no multiple of anything.
const ROWS: usize = 37;

pub(crate) fn affine<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (d, kv) = (sides.config.text.hidden_size, sides.config.text.kv_width());
    let mut tally = Comparisons::new(format!("{d} to {kv} with a bias, 1 and {ROWS} rows, beside plain operations"));
    for (rows, dtype) in [1, ROWS].into_iter().flat_map(|rows| sides.dtypes().into_iter().map(move |t| (rows, t))) {
        let ((x, px), (w, pw)) = (sides.random([rows, d], dtype), sides.random([kv, d], dtype));
        let (b, pb) = sides.random([kv], dtype);
        let device = || {
            let parts = B::partial_affine(x.clone(), &w).sum_dim(0);
            vec![flat(B::affine(x.clone(), &w, Some(&b))), flat(parts)]
        };
        let cpu = vec![flat(plain::affine(px.clone(), &pw, Some(&pb))), flat(plain::affine(px, &pw, None))];
        let what = format!("affine of {rows} rows in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype), &what, device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn activate<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let wide = sides.config.vision.intermediate_size;
    let all = [Activation::QuickGelu, Activation::GeluTanh, Activation::Gelu];
    let mut tally = Comparisons::new(format!("three activations and their gradients, {ROWS} rows of {wide}"));
    for (act, dtype) in all.into_iter().flat_map(|act| sides.dtypes().into_iter().map(move |t| (act, t))) {
        let ((x, px), (dy, pdy)) = (sides.random([ROWS, wide], dtype), sides.random([ROWS, wide], dtype));
        let device = || vec![flat(B::activate(x.clone(), act)), flat(B::activate_backward(x.clone(), act, dy.clone()))];
        let cpu = vec![flat(plain::activate(px.clone(), act)), flat(plain::activate_backward(px, act, pdy))];
        sides.compare(&mut tally, sides.bound(dtype), &format!("{act:?} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn add_rows<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let d = sides.config.text.hidden_size;
    let mut tally = Comparisons::new(format!("5 of {ROWS} rows of {d} beside plain operations"));
    for dtype in sides.dtypes() {
        let ((x, px), (v, pv)) = (sides.random([ROWS, d], dtype), sides.random([5, d], dtype));
        let (rows, prows) = sides.indices(vec![3, 0, 36, 17, 20]);
        let device = || vec![flat(B::add_rows(x.clone(), rows.clone(), v.clone()))];
        let cpu = vec![flat(plain::add_rows(px, prows, pv))];
        sides.compare(&mut tally, sides.bound(dtype), &format!("add_rows in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn rotate<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (text, tower) = (&sides.config.text, &sides.config.vision);
    let heads = [(text.num_attention_heads, text.head_dim), (tower.num_heads, tower.head_dim())];
    let mut tally =
        Comparisons::new(format!("forth and back, {ROWS} rows of heads of {} and {}", heads[0].1, heads[1].1));
    for ((h, hd), dtype) in heads.into_iter().flat_map(|head| sides.dtypes().into_iter().map(move |t| (head, t))) {
        let (x, px) = sides.random([ROWS, h, hd], dtype);
        let (cos, pcos) = sides.random([ROWS, 1, hd], DType::F32);
        let (sin, psin) = sides.random([ROWS, 1, hd], DType::F32);
        let (table, plain_table) = (Rotary { cos, sin }, Rotary { cos: pcos, sin: psin });
        let device = || vec![flat(B::rotate(x.clone(), &table)), flat(B::rotate_backward(x.clone(), &table))];
        let cpu = vec![flat(plain::rotate(px.clone(), &plain_table)), flat(plain::rotate_backward(px, &plain_table))];
        sides.compare(&mut tally, sides.bound(dtype), &format!("rotate of {hd} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn rotate_qkv<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (text, tower) = (&sides.config.text, &sides.config.vision);
    let shapes = [
        BlockShape { heads: text.num_attention_heads, kv_heads: text.num_key_value_heads, head_dim: text.head_dim },
        BlockShape { heads: tower.num_heads, kv_heads: tower.num_heads, head_dim: tower.head_dim() },
    ];
    let mut tally = Comparisons::new(format!(
        "queries, keys and values of {ROWS} rows of heads of {} and {}, forth and back, beside plain operations",
        shapes[0].head_dim, shapes[1].head_dim
    ));
    for (shape, dtype) in shapes.into_iter().flat_map(|shape| sides.dtypes().into_iter().map(move |t| (shape, t))) {
        let (heads, hd) = ([shape.heads, shape.kv_heads, shape.kv_heads], shape.head_dim);
        let (qkv, plain_qkv) = sides.random([ROWS, heads.iter().sum::<usize>() * hd], dtype);
        let gradients = heads.map(|heads| sides.random([ROWS, heads, hd], dtype));
        let (d, plain_d) = (gradients.clone().map(|(d, _)| d), gradients.map(|(_, d)| d));
        let (cos, pcos) = sides.random([ROWS, 1, hd], DType::F32);
        let (sin, psin) = sides.random([ROWS, 1, hd], DType::F32);
        let (table, plain_table) = (Rotary { cos, sin }, Rotary { cos: pcos, sin: psin });
        let device = || {
            let back = B::rotate_qkv_backward(d.clone(), &table);
            B::rotate_qkv(qkv.clone(), shape, &table).map(flat).into_iter().chain([flat(back)]).collect()
        };
        let back = plain::rotate_qkv_backward(plain_d, &plain_table);
        let cpu = plain::rotate_qkv(plain_qkv, shape, &plain_table).map(flat).into_iter().chain([flat(back)]).collect();
        sides.compare(&mut tally, sides.bound(dtype), &format!("rotate_qkv of {hd} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn swiglu<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let widths = [sides.config.text.intermediate_size, sides.config.vision.intermediate_size];
    let mut tally = Comparisons::new(format!("values and gradients of {ROWS} rows of {} and {}", widths[0], widths[1]));
    for (m, dtype) in widths.into_iter().flat_map(|m| sides.dtypes().into_iter().map(move |t| (m, t))) {
        let (gate_up, plain_gate_up) = sides.random([ROWS, 2 * m], dtype);
        let (dy, plain_dy) = sides.random([ROWS, m], dtype);
        let (parts, plain_parts) = sides.random([3, ROWS, 2 * m], DType::F32);
        let device = || {
            let of_parts = B::swiglu_parts(parts.clone(), dtype);
            let back = B::swiglu_backward(gate_up.clone(), dy.clone());
            vec![flat(B::swiglu(gate_up.clone())), flat(back), flat(of_parts)]
        };
        let back = plain::swiglu_backward(plain_gate_up.clone(), plain_dy);
        let of_parts = plain::swiglu(plain::whole(plain_parts, DType::F32));
        let cpu = vec![flat(plain::swiglu(plain_gate_up)), flat(back), flat(of_parts)];
        sides.compare(&mut tally, sides.bound(dtype), &format!("swiglu of {m} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn take_rows<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (v, d) = (sides.config.text.vocab_size.min(999), sides.config.text.hidden_size);
    let mut tally = Comparisons::new(format!("{ROWS} rows of {v} of {d} beside plain operations"));
    for dtype in sides.dtypes() {
        let (table, plain_table) = sides.random([v, d], dtype);
        let (rows, plain_rows) = sides.indices((0..ROWS).map(|i| (i * 7919 + v - 1) % v).collect());
        let device = || vec![flat(B::take_rows(&table, rows.clone()))];
        let cpu = vec![flat(plain::take_rows(&plain_table, plain_rows))];
        // Copies: nothing is rounded.
        sides.compare(&mut tally, 0.0, &format!("take_rows in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

/// Copies that nothing else holds, so that they are written in place.
fn own<B: Kernels>(t: &Tensor<B, 1>) -> Tensor<B, 1> {
    t.clone().mul_scalar(1.0)
}

/// A step whose results are rounded by chance where they have 16 bits.
fn step(dtype: DType) -> AdamWStep {
    AdamWStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 3,
        grad_scale: 0.5,
        rounding: Rounding { seed: 7, first: 0, param: dtype != DType::F32, moments: dtype != DType::F32 },
    }
}

pub(crate) fn adamw<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let mut tally = Comparisons::new("a step of 257 and of 70,000 parameters, in place, beside plain operations");
    for (n, dtype) in [257, 70_000].into_iter().flat_map(|n| sides.dtypes().into_iter().map(move |t| (n, t))) {
        let (p, pp) = sides.random([n], dtype);
        let [(g, pg), (m, pm), (v, pv)] = [(); 3].map(|()| sides.random([n], dtype));
        let device = || {
            let state = AdamWParameter { param: own(&p), m: own(&m), v: own(&v).abs(), master: None };
            let AdamWParameter { param, m, v, .. } = B::adamw(state, g.clone(), &step(dtype));
            vec![param, m, v]
        };
        // In the run's number format: what is rounded by chance is rounded alike.
        let plain = [pp, pm, pv.abs()].map(|t| cast_to(t, dtype));
        let [param, m, v] = plain;
        let AdamWParameter { param, m, v, .. } =
            plain_adamw(AdamWParameter { param, m, v, master: None }, cast_to(pg, dtype), &step(dtype));
        let cpu = vec![param, m, v];
        sides.compare(&mut tally, sides.bound(dtype), &format!("adamw of {n} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}

/// The sums that gradients are collected in, and their norm.
pub(crate) fn sums<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let d = sides.config.text.hidden_size;
    let mut tally =
        Comparisons::new(format!("sums of gradients of {d} and their norm, in place, beside plain operations"));
    for dtype in sides.dtypes() {
        let ((sum, psum), (grad, pgrad)) = (sides.random([d], dtype), sides.random([d], dtype));
        let ((table, ptable), (rows, prows)) = (sides.random([9 * d], dtype), sides.random([ROWS, d], dtype));
        // Rows repeat.
        let (at, pat) = sides.indices((0..ROWS).map(|i| i * 7 % 9).collect());
        let device = || {
            vec![
                B::accumulate(own(&sum), grad.clone()),
                B::accumulate_columns(own(&sum), rows.clone()),
                B::accumulate_rows(own(&table), at.clone(), rows.clone()),
                B::squared_norm(vec![grad.clone(), table.clone()], &sides.device),
            ]
        };
        let cpu = vec![
            plain::accumulate(psum.clone(), pgrad.clone()),
            plain::accumulate_columns(psum, prows.clone()),
            plain::accumulate_rows(ptable.clone(), pat, prows),
            plain::squared_norm(vec![pgrad, ptable], &Default::default()),
        ];
        sides.compare(&mut tally, sides.bound(dtype), &format!("sums in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}
