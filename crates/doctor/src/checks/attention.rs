//! Attention over packed groups and while decoding, and the cache.

use burn::tensor::{DType, Tensor};
use kernels::attention::decode::{DecodeKv, decode_attention};
use kernels::attention::{backward, forward};
use kernels::ops::plain;
use kernels::{AttentionPlan, Kernels, ResponseRows};
use rl::TrainError;

use crate::finding::Comparisons;
use crate::sides::{Cpu, Sides, flat};

/// Two prompts of unlike length with their responses, of which some are padded together.
fn groups<B: Kernels>(device: &B::Device) -> AttentionPlan<B> {
    let response = |rows, prompt| ResponseRows { rows, prompt };
    let responses =
        [response(33..53, 0), response(53..73, 0), response(73..74, 0), response(104..124, 1), response(124..141, 1)];
    AttentionPlan::causal(&[0..33, 74..104], &responses, device)
}

/// Windows of the tower: whole ones, one at an edge, and a whole picture.
fn windows<B: Kernels>(device: &B::Device) -> AttentionPlan<B> {
    AttentionPlan::bidirectional(&[64, 64, 16, 4, 32], device)
}

/// Heads, K/V heads and size of a head, and the plan on both sides.
type Case<B> = ((usize, usize, usize), AttentionPlan<B>, AttentionPlan<Cpu>);

pub(crate) fn packed<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (text, tower) = (&sides.config.text, &sides.config.vision);
    let cpu = Default::default();
    let cases: [Case<B>; 2] = [
        ((text.num_attention_heads, text.num_key_value_heads, text.head_dim), groups(&sides.device), groups(&cpu)),
        ((tower.num_heads, tower.num_heads, tower.head_dim()), windows(&sides.device), windows(&cpu)),
    ];
    let mut tally = Comparisons::new(format!(
        "groups of {} heads of {} and windows of {} heads of {} with their gradients, beside plain operations",
        text.num_attention_heads,
        text.head_dim,
        tower.num_heads,
        tower.head_dim()
    ));
    for ((h, hkv, hd), plan, plain_plan) in cases {
        for dtype in sides.dtypes() {
            let n = plan.tokens;
            let [(q, pq), (k, pk), (v, pv), (d_o, pd)] =
                [h, hkv, hkv, h].map(|heads| sides.random([n, heads, hd], dtype));
            let device = || {
                let (o, saved) = B::packed_attention(q.clone(), k.clone(), v.clone(), &plan);
                let qkv = [q.clone(), k.clone(), v.clone()];
                let [dq, dk, dv] = B::packed_attention_backward(qkv, o.clone(), &saved, d_o.clone(), &plan);
                vec![flat(o), flat(dq), flat(dk), flat(dv)]
            };
            let (o, saved) = forward(pq.clone(), pk.clone(), pv.clone(), &plain_plan);
            let [dq, dk, dv] = backward([pq, pk, pv], o.clone(), &saved, pd, &plain_plan);
            let plain = vec![flat(o), flat(dq), flat(dk), flat(dv)];
            // Four products one after the other.
            let bound = 2.0 * sides.product_bound(dtype);
            sides.compare(&mut tally, bound, &format!("attention of {h} heads in {dtype:?}"), device, plain)?;
        }
    }
    Ok(tally)
}

pub(crate) fn decode<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let text = &sides.config.text;
    let (hkv, hd) = (text.num_key_value_heads, text.head_dim);
    let g = text.num_attention_heads / hkv;
    let (b, n, p, capacity) = (2, 4, 70, 64);
    let mut tally = Comparisons::new(format!(
        "{} rows of {} heads of {hd} over {p} keys of their prompt, some masked, and 1, 33 and {capacity} of their own",
        b * n,
        text.num_attention_heads
    ));
    for (len, dtype) in [1, 33, capacity].into_iter().flat_map(|len| sides.dtypes().into_iter().map(move |t| (len, t)))
    {
        let a = b * hkv;
        let (q, pq) = sides.random([a * n, g, hd], dtype);
        let [(pk, ppk), (pv, ppv)] = [(); 2].map(|()| sides.random([a, p, hd], dtype));
        let [(ok, pok), (ov, pov)] = [(); 2].map(|()| sides.random([a * n, capacity, hd], dtype));
        let mask: Vec<f32> = (0..a * p).map(|i| if i % p >= p - i / p { -1e30 } else { 0.0 }).collect();
        // Not by `both`: a mask has no wrong numbers, only other ones.
        let mask_of = |values: Vec<f32>| burn::tensor::TensorData::new(values, [a, 1, p]);
        let (mask, plain_mask): (Tensor<B, 3>, Tensor<Cpu, 3>) = (
            Tensor::from_data(mask_of(mask.clone()), (&sides.device, DType::F32)),
            Tensor::from_data(mask_of(mask), &Default::default()),
        );
        let kv = DecodeKv { prefix: (pk, pv), prefix_mask: Some(mask), own: (ok, ov), n, len };
        let plain = DecodeKv { prefix: (ppk, ppv), prefix_mask: Some(plain_mask), own: (pok, pov), n, len };
        let device = || vec![flat(B::decode_attention(q.clone(), kv.clone()))];
        let cpu = vec![flat(decode_attention(pq, plain))];
        let what = format!("decoding over {len} columns in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype), &what, device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn write_column<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (rows, hd) = (8 * sides.config.text.num_key_value_heads, sides.config.text.head_dim);
    let mut tally = Comparisons::new(format!("a column of {rows} rows of {hd}, in place, beside plain operations"));
    for (at, dtype) in [0, 63].into_iter().flat_map(|at| sides.dtypes().into_iter().map(move |t| (at, t))) {
        let (cache, plain_cache) = sides.random([rows, 64, hd], dtype);
        let (value, plain_value) = sides.random([rows, 1, hd], dtype);
        let device = || vec![flat(B::write_column(cache.clone().mul_scalar(1.0), at, value.clone()))];
        let cpu = vec![flat(plain::write_column(plain_cache, at, plain_value))];
        // Copies: nothing is rounded.
        sides.compare(&mut tally, 0.0, &format!("column {at} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}
