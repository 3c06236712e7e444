//! Attention over packed groups and while decoding, and the cache.

use burn::tensor::DType;
use kernels::attention::decode::{DecodeKv, NewTokens, OwnKv, PromptRows};
use kernels::attention::{backward, forward};
use kernels::host::int_tensor;
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

/// Rows of two prompts of unlike length, their caches, and how many columns a cache has.
const PROMPTS: [usize; 2] = [70, 33];
const RESPONSES: usize = 4;
const CAPACITY: usize = 64;

fn prompts<B: Kernels>(device: &B::Device) -> PromptRows<B> {
    PromptRows::new(vec![0..PROMPTS[0], PROMPTS[0]..PROMPTS[0] + PROMPTS[1]], device)
}

pub(crate) fn decode<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let text = &sides.config.text;
    let (h, hkv, hd) = (text.num_attention_heads, text.num_key_value_heads, text.head_dim);
    let (rows, tokens) = (PROMPTS.len() * RESPONSES, PROMPTS.iter().sum());
    let mut tally = Comparisons::new(format!(
        "{rows} rows of {h} heads of {hd} over prompts of {PROMPTS:?} keys, and 1, 33 and {CAPACITY} of their own"
    ));
    for (len, dtype) in [1, 33, CAPACITY].into_iter().flat_map(|len| sides.dtypes().into_iter().map(move |t| (len, t)))
    {
        let (q, pq) = sides.random([rows, h, hd], dtype);
        let [(pk, ppk), (pv, ppv)] = [(); 2].map(|()| sides.random([tokens, hkv, hd], dtype));
        let [(k, plain_k), (v, plain_v)] = [(); 2].map(|()| sides.random([rows, CAPACITY, hkv, hd], dtype));
        let (n, own) = (RESPONSES, OwnKv { k, v, len });
        let kv = DecodeKv { prefix: (pk, pv), prompts: prompts(&sides.device), n, own };
        let own = OwnKv { k: plain_k, v: plain_v, len };
        let plain_kv = DecodeKv::<Cpu> { prefix: (ppk, ppv), prompts: prompts(&Default::default()), n, own };
        let device = || vec![flat(B::decode_attention(q.clone(), std::slice::from_ref(&kv)))];
        let cpu = vec![flat(plain::decode_attention(pq, &[plain_kv]))];
        let what = format!("decoding over {len} columns in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype), &what, device, cpu)?;
    }
    Ok(tally)
}

/// Biases, norms where the model has them, turning and the write into the cache.
pub(crate) fn decode_heads<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let text = &sides.config.text;
    let (heads, kv_heads, head_dim) = (text.num_attention_heads, text.num_key_value_heads, text.head_dim);
    let shape = BlockShape { heads, kv_heads, head_dim };
    let (rows, width) = (PROMPTS.len() * RESPONSES, (heads + 2 * kv_heads) * head_dim);
    let mut tally =
        Comparisons::new(format!("queries of {rows} rows, keys and values in place, beside plain operations"));
    let places: Vec<usize> = (0..rows).map(|i| (i * 7 + 39) % 40).collect();
    let positions = int_tensor(places.iter().copied(), &sides.device);
    let plain_positions = int_tensor(places, &Default::default());
    let (cos, pcos) = sides.random([40, 1, head_dim], DType::F32);
    let (sin, psin) = sides.random([40, 1, head_dim], DType::F32);
    let (angles, plain_angles) = (Rotary { cos, sin }, Rotary { cos: pcos, sin: psin });
    for (len, dtype) in [0, 63].into_iter().flat_map(|len| sides.dtypes().into_iter().map(move |t| (len, t))) {
        // What the projections made, in two parts.
        let (x, px) = sides.random([2, rows, width], DType::F32);
        let ((bias, pbias), (norm, pnorm)) = (sides.random([width], dtype), sides.random([head_dim], dtype));
        let (cache, plain_cache) = sides.random([rows, CAPACITY, kv_heads, head_dim], dtype);
        let qk_norm = Some([(&norm, 1e-6); 2]);
        let tokens = NewTokens { shape, bias: Some(&bias), qk_norm, angles: &angles, positions: &positions };
        let device = || {
            // Copies that nothing else holds, so that they are written in place.
            let own = || cache.clone().mul_scalar(1.0);
            let (q, written) = B::decode_heads(x.clone(), tokens, vec![OwnKv { k: own(), v: own(), len }]);
            std::iter::once(flat(q)).chain(written.into_iter().flat_map(|kv| [flat(kv.k), flat(kv.v)])).collect()
        };
        let qk_norm = Some([(&pnorm, 1e-6); 2]);
        let plain_tokens =
            NewTokens { shape, bias: Some(&pbias), qk_norm, angles: &plain_angles, positions: &plain_positions };
        let own = vec![OwnKv { k: plain_cache.clone(), v: plain_cache, len }];
        let (q, written) = plain::decode_heads(px, plain_tokens, own);
        let cpu = std::iter::once(flat(q)).chain(written.into_iter().flat_map(|kv| [flat(kv.k), flat(kv.v)])).collect();
        sides.compare(&mut tally, sides.bound(dtype), &format!("column {len} in {dtype:?}"), device, cpu)?;
    }
    Ok(tally)
}
