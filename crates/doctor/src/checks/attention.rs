//! Attention over packed groups and while decoding, and the cache.

use burn::tensor::{DType, Tensor};
use kernels::attention::decode::{DecodeKv, NewTokens, OwnKv, PromptRows};
use kernels::attention::{backward, forward};
use kernels::layers::BlockShape;
use kernels::ops::plain;
use kernels::rope::Rotary;
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

/// Prompts that two lanes share, packed, and the columns that their responses have written.
const PROMPTS: [&[usize]; 2] = [&[70, 33], &[64]];
/// Responses a prompt in each lane.
const RESPONSES: [usize; 2] = [4, 3];
/// Columns that each cache has room for.
const CAPACITY: usize = 64;

/// Rows of the packed prompts of a lane.
fn prompt_rows(lane: &[usize]) -> Vec<std::ops::Range<usize>> {
    let mut at = 0;
    let mut rows = |len: &usize| {
        at += len;
        at - len..at
    };
    lane.iter().map(&mut rows).collect()
}

pub(crate) fn decode<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let text = &sides.config.text;
    let (h, hkv, hd) = (text.num_attention_heads, text.num_key_value_heads, text.head_dim);
    let rows: usize = std::iter::zip(PROMPTS, RESPONSES).map(|(lane, n)| lane.len() * n).sum();
    let mut tally = Comparisons::new(format!(
        "{rows} rows of {h} heads of {hd} over prompts of {PROMPTS:?} keys and 1, 33 and {CAPACITY} of their own"
    ));
    for (len, dtype) in [1, 33, CAPACITY].into_iter().flat_map(|len| sides.dtypes().into_iter().map(move |t| (len, t)))
    {
        let (q, plain_q) = sides.random([rows, h, hd], dtype);
        let (mut past, mut plain_past) = (Vec::new(), Vec::new());
        for (lane, n) in std::iter::zip(PROMPTS, RESPONSES) {
            let (tokens, rows): (usize, usize) = (lane.iter().sum(), lane.len() * n);
            let [(pk, ppk), (pv, ppv)] = [(); 2].map(|()| sides.random([tokens, hkv, hd], dtype));
            let [(k, pok), (v, pov)] = [(); 2].map(|()| sides.random([rows, CAPACITY, hkv, hd], dtype));
            let prompts = PromptRows::new(prompt_rows(lane), &sides.device);
            past.push(DecodeKv { prefix: (pk, pv), prompts, n, own: OwnKv { k, v, len } });
            let prompts = PromptRows::new(prompt_rows(lane), &Default::default());
            plain_past.push(DecodeKv { prefix: (ppk, ppv), prompts, n, own: OwnKv { k: pok, v: pov, len } });
        }
        let device = || vec![flat(B::decode_attention(q.clone(), &past))];
        let cpu = vec![flat(plain::decode_attention(plain_q, &plain_past))];
        let what = format!("decoding over {len} columns in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype), &what, device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn decode_heads<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let text = &sides.config.text;
    let shape =
        BlockShape { heads: text.num_attention_heads, kv_heads: text.num_key_value_heads, head_dim: text.head_dim };
    let (hkv, hd) = (shape.kv_heads, shape.head_dim);
    let width = (shape.heads + 2 * hkv) * hd;
    let lanes = [(5, 9, 8), (3, CAPACITY, 0)]; // rows, capacity, columns written
    let rows: usize = lanes.iter().map(|lane| lane.0).sum();
    let mut tally = Comparisons::new(format!(
        "{rows} new tokens of {} heads of {hd}, with biases and norms and without, turned and written to their caches",
        shape.heads
    ));
    for (with, dtype) in [false, true].into_iter().flat_map(|with| sides.dtypes().into_iter().map(move |t| (with, t))) {
        let ((x, plain_x), (bias, plain_bias)) = (sides.random([rows, width], dtype), sides.random([width], dtype));
        let [(q_norm, plain_q_norm), (k_norm, plain_k_norm)] = [(); 2].map(|()| sides.random([hd], dtype));
        let (cos, plain_cos) = sides.random([40, 1, hd], DType::F32);
        let (sin, plain_sin) = sides.random([40, 1, hd], DType::F32);
        let (angles, plain_angles) = (Rotary { cos, sin }, Rotary { cos: plain_cos, sin: plain_sin });
        let (positions, plain_positions) = sides.indices((0..rows).map(|i| (i * 7 + 39) % 40).collect());
        let caches: Vec<_> = lanes
            .iter()
            .map(|&(rows, capacity, len)| ([(); 2].map(|()| sides.random([rows, capacity, hkv, hd], dtype)), len))
            .collect();
        let tokens = NewTokens {
            shape,
            bias: with.then_some(&bias),
            qk_norm: with.then_some([(&q_norm, 1e-6), (&k_norm, 1e-6)]),
            angles: &angles,
            positions: &positions,
        };
        let plain_tokens = NewTokens {
            shape,
            bias: with.then_some(&plain_bias),
            qk_norm: with.then_some([(&plain_q_norm, 1e-6), (&plain_k_norm, 1e-6)]),
            angles: &plain_angles,
            positions: &plain_positions,
        };
        let device = || {
            // Copies that nothing else holds, so that they are written in place.
            let own = |t: &Tensor<B, 4>| t.clone().mul_scalar(1.0);
            let own = caches.iter().map(|([k, v], len)| OwnKv { k: own(&k.0), v: own(&v.0), len: *len }).collect();
            let (q, own) = B::decode_heads(x.clone(), tokens, own);
            [flat(q)].into_iter().chain(own.into_iter().flat_map(|kv| [flat(kv.k), flat(kv.v)])).collect()
        };
        let own = caches.iter().map(|([k, v], len)| OwnKv { k: k.1.clone(), v: v.1.clone(), len: *len }).collect();
        let (q, own) = plain::decode_heads(plain_x, plain_tokens, own);
        let cpu = [flat(q)].into_iter().chain(own.into_iter().flat_map(|kv| [flat(kv.k), flat(kv.v)])).collect();
        sides.compare(&mut tally, sides.bound(dtype), &format!("new tokens in {dtype:?}, {with}"), device, cpu)?;
    }
    Ok(tally)
}
