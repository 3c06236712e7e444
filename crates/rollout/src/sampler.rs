//! From hidden states to sampled tokens, on the device.
//!
//! One uniform number per row decides ([`kernels::sampling`]). It depends on (seed, prompt, response, position) alone:
//! batching, order and grouping do not change what is sampled. Vision tokens have probability zero.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use kernels::sampling::{RowChoice, sample_tokens};
use kernels::{Kernels, LmHead};

/// How tokens are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus; 1 samples among all tokens.
    pub top_p: f64,
    /// Root of all randomness.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

/// The uniform number in `(0, 1)` of one token: a hash, so that it needs no state.
pub fn uniform(seed: u64, prompt: u64, response: u64, position: u64) -> f32 {
    let mut z = seed;
    for part in [prompt, response, position] {
        // SplitMix64's finaliser over each part in turn.
        z = z.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_add(part.wrapping_mul(0xD1B5_4A32_D192_ED03));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
    }
    ((z >> 41) as f32 + 0.5) / (1u64 << 23) as f32
}

/// What may never be sampled, as an additive mask `[1, V]` on the device; none if everything may.
pub(crate) fn suppression<B: Backend>(ids: &[u32], vocab: usize, device: &B::Device) -> Option<Tensor<B, 2>> {
    let mut mask = vec![0f32; vocab];
    for &id in ids {
        if let Some(m) = mask.get_mut(id as usize) {
            *m = -1e30;
        }
    }
    (!ids.is_empty()).then(|| Tensor::from_data(TensorData::new(mask, [1, vocab]), device))
}

/// Samples one token for each row of `hidden [S, d]` with the model's head, `[V, d]`: ids and log-probs `[S]`, both on
/// the device. `sampling` and `uniforms` have one entry per row. `forbidden` are added to the logits that are sampled
/// from, not to those the log-probs come from; one `[1, V]` mask for all rows or one `[S, V]` each. Ranks that share
/// the head out all call this with the same and get the same.
pub fn sample<'a, B: Kernels>(
    hidden: Tensor<B, 2>,
    head: impl Into<LmHead<'a, B>>,
    sampling: &[&Sampling],
    uniforms: &[f32],
    forbidden: Option<&Tensor<B, 2>>,
) -> (Tensor<B, 1, Int>, Tensor<B, 1>) {
    let head = head.into();
    let [rows, d] = hidden.dims();
    let vocab = head.vocab();
    let choices: Vec<RowChoice> = sampling
        .iter()
        .zip(uniforms)
        .map(|(s, &uniform)| RowChoice { temperature: s.temperature, top_p: s.top_p, uniform })
        .collect();
    let step = (B::logits_at_once() / head.widest().max(1)).clamp(1, rows.max(1));
    if step == rows {
        return sample_tokens(hidden, head, &choices, forbidden);
    }
    let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
    for a in (0..rows).step_by(step) {
        let b = (a + step).min(rows);
        let mask = forbidden.map(|m| if m.dims()[0] == 1 { m.clone() } else { m.clone().slice([a..b, 0..vocab]) });
        let states = hidden.clone().slice([a..b, 0..d]);
        let (i, l) = sample_tokens(states, head, &choices[a..b], mask.as_ref());
        ids.push(i);
        log_probs.push(l);
    }
    (Tensor::cat(ids, 0), Tensor::cat(log_probs, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    type B = burn_flex::Flex<f32, i32>;

    fn table(logits: &[f32]) -> (Tensor<B, 2>, Tensor<B, 2>) {
        let v = logits.len();
        let device = Default::default();
        // hidden = 1, so the logits are the weights
        (Tensor::ones([1, 1], &device), Tensor::from_data(TensorData::new(logits.to_vec(), [v, 1]), &device))
    }

    /// Frequencies over a regular grid of uniform numbers.
    fn frequencies(logits: &[f32], sampling: &Sampling, forbidden: &[u32]) -> Vec<f64> {
        let (hidden, weight) = table(logits);
        let n = 4000;
        let uniforms: Vec<f32> = (0..n).map(|i| (i as f32 + 0.5) / n as f32).collect();
        let mask = suppression(forbidden, logits.len(), &Default::default());
        let (ids, _) = sample(hidden.repeat_dim(0, n), &weight, &vec![sampling; n], &uniforms, mask.as_ref());
        let mut counts = vec![0.0; logits.len()];
        for id in ids.into_data().convert::<i32>().to_vec::<i32>().unwrap() {
            counts[id as usize] += 1.0 / n as f64;
        }
        counts
    }

    #[test]
    fn frequencies_are_the_softmax() {
        let logits: Vec<f32> = (0..101).map(|i| ((i * 37) % 101) as f32 / 20.0).collect();
        for temperature in [0.5, 1.0, 2.0] {
            let z: f64 = logits.iter().map(|l| (*l as f64 / temperature).exp()).sum();
            let got = frequencies(&logits, &Sampling { temperature, top_p: 1.0, seed: 0 }, &[]);
            for (l, f) in logits.iter().zip(got) {
                assert!(((*l as f64 / temperature).exp() / z - f).abs() < 6e-4);
            }
        }
    }

    #[test]
    fn nucleus_keeps_the_fewest_that_reach_top_p() {
        let p = [0.4f32, 0.05, 0.3, 0.05, 0.2];
        let logits: Vec<f32> = p.iter().map(|p| p.ln()).collect();
        let got = frequencies(&logits, &Sampling { temperature: 1.0, top_p: 0.75, seed: 0 }, &[]);
        for (g, e) in got.iter().zip([0.4 / 0.9, 0.0, 0.3 / 0.9, 0.0, 0.2 / 0.9]) {
            assert!((g - e).abs() < 2e-3, "{got:?}");
        }
        let got = frequencies(&logits, &Sampling { temperature: 1.0, top_p: 0.3, seed: 0 }, &[]);
        assert!((got[0] - 1.0).abs() < 1e-9);
    }

    #[test]
    fn forbidden_tokens_never_come() {
        let logits = [5.0, 1.0, 5.0, 0.0, 9.0];
        for u in [1e-7f32, 0.2, 0.5, 0.999_999_9] {
            let (hidden, weight) = table(&logits);
            let mask = suppression(&[0, 4, 2], 5, &Default::default());
            let (id, lp) =
                sample(hidden, &weight, &[&Sampling { temperature: 1.0, top_p: 1.0, seed: 0 }], &[u], mask.as_ref());
            let id = id.into_scalar();
            assert!([1, 3].contains(&id), "{id}");
            // The log-prob is the model's own: forbidden tokens count in the denominator.
            let z: f64 = logits.iter().map(|l: &f32| (*l as f64).exp()).sum();
            assert!((lp.into_scalar() as f64 - (logits[id as usize] as f64 - z.ln())).abs() < 1e-5);
        }
        let (hidden, weight) = table(&logits);
        let mask = suppression(&[4], 5, &Default::default());
        let (id, _) = sample(hidden, &weight, &[&Sampling::greedy()], &[0.5], mask.as_ref());
        assert_eq!(id.into_scalar(), 0);
    }

    /// Rows with settings of their own choose as each would alone.
    #[test]
    fn a_mixed_batch_equals_single_rows() {
        let device = Default::default();
        let vocab = 37;
        let weights: Vec<f32> = (0..vocab).map(|i| ((i * 17) % vocab) as f32 / 6.0 - 3.0).collect();
        let weight = Tensor::<B, 2>::from_data(TensorData::new(weights, [vocab, 1]), &device);
        let of = |temperature: f64, top_p: f64| Sampling { temperature, top_p, seed: 0 };
        let settings =
            [of(0.0, 1.0), of(0.7, 1.0), of(1.0, 0.8), of(1.0, 1.0), of(0.0, 0.5), of(1.9, 0.3), of(0.4, 0.95)];
        let rows = settings.len();
        let masks = [&[0u32, 5][..], &[], &[36], &[12, 13], &[], &[7], &[1, 2, 3]];
        let mask_of = |ids: &[u32]| suppression(ids, vocab, &device).unwrap_or(Tensor::zeros([1, vocab], &device));
        let mut drawn = std::collections::BTreeSet::new();
        for shift in 0..50 {
            let hidden: Vec<f32> = (0..rows).map(|r| 0.3 * ((r * 5 + shift) % 7) as f32 - 0.9).collect();
            let uniforms: Vec<f32> = (0..rows).map(|r| uniform(1, shift as u64, r as u64, 0)).collect();
            let draw = |range: std::ops::Range<usize>| {
                let n = range.len();
                let states =
                    Tensor::<B, 2>::from_data(TensorData::new(hidden[range.clone()].to_vec(), [n, 1]), &device);
                let mask = Tensor::cat(masks[range.clone()].iter().map(|ids| mask_of(ids)).collect(), 0);
                let sampling: Vec<&Sampling> = settings[range.clone()].iter().collect();
                let (ids, log_probs) = sample(states, &weight, &sampling, &uniforms[range], Some(&mask));
                let ids = ids.into_data().convert::<i64>().to_vec::<i64>().unwrap();
                (ids, log_probs.into_data().to_vec::<f32>().unwrap())
            };
            let (ids, log_probs) = draw(0..rows);
            for row in 0..rows {
                assert_eq!(draw(row..row + 1), (vec![ids[row]], vec![log_probs[row]]), "row {row}, shift {shift}");
            }
            drawn.extend(ids);
        }
        assert!(drawn.len() > 12, "hardly anything was drawn: {drawn:?}");
    }

    /// Logits that are no numbers give a token of the vocabulary and a log-prob that says so; other rows notice
    /// nothing.
    #[test]
    fn logits_that_are_no_numbers_show_in_the_log_prob() {
        let device = Default::default();
        let weight = Tensor::<B, 2>::from_data([[1.0f32], [2.0], [0.5], [-1.0], [0.0]], &device);
        let hidden = |rows: [[f32; 1]; 3]| Tensor::<B, 2>::from_data(rows, &device);
        let nucleus = Sampling { temperature: 1.0, top_p: 0.9, seed: 0 };
        let free = Sampling { top_p: 1.0, ..nucleus.clone() };
        for sampling in [Sampling::greedy(), free, nucleus] {
            for bad in [f32::NAN, f32::INFINITY] {
                let run = |middle: f32| {
                    let rows = hidden([[1.0], [middle], [-2.0]]);
                    let (ids, log_probs) = sample(rows, &weight, &[&sampling; 3], &[0.3, 0.6, 0.8], None);
                    let ids = ids.into_data().convert::<i64>().to_vec::<i64>().unwrap();
                    (ids, log_probs.into_data().to_vec::<f32>().unwrap())
                };
                let ((ids, log_probs), (good_ids, good)) = (run(bad), run(0.1));
                assert!(ids.iter().all(|id| (0..5).contains(id)), "{sampling:?} {bad}: {ids:?}");
                assert!(!log_probs[1].is_finite(), "{sampling:?} {bad}: {log_probs:?}");
                for row in [0, 2] {
                    assert_eq!((ids[row], log_probs[row]), (good_ids[row], good[row]), "{sampling:?} {bad}");
                }
            }
        }
    }

    #[test]
    fn uniforms_are_uniform_and_distinct() {
        let mut all: Vec<f32> =
            (0..40).flat_map(|p| (0..8).flat_map(move |r| (0..32).map(move |t| uniform(3, p, r, t)))).collect();
        let mean = all.iter().sum::<f32>() / all.len() as f32;
        assert!((mean - 0.5).abs() < 0.01 && all.iter().all(|u| *u > 0.0 && *u < 1.0));
        all.sort_by(f32::total_cmp);
        all.dedup();
        assert!(all.len() > 10_200); // 23 bits: a few collisions are expected
    }
}
