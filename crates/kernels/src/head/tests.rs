//! The divergence of two predictions over the full vocabulary, and the head that ranks share out.

use burn::tensor::{Tensor, TensorData};
use comm::threads;

use crate::head::{LmHead, VocabShards};
use crate::{Gradients, Kernels, head, source};

/// The tests of one backend.
macro_rules! on {
    ($backend:ident, $type:ty: $($test:ident)*) => {
        mod $backend {
            $(
                #[test]
                fn $test() {
                    super::$test::<$type>();
                }
            )*
        }
    };
}

fn values<B: Kernels, const D: usize>(t: Tensor<B, D>) -> Vec<f32> {
    t.into_data().convert::<f32>().to_vec().unwrap()
}

/// `KL(softmax(p W^T / temperature) || softmax(q W^T / temperature))` of each row, dense and in f64.
fn dense(p: &[f32], q: &[f32], weight: &[f32], d: usize, temperature: f64) -> Vec<f64> {
    let log_softmax = |h: &[f32]| -> Vec<f64> {
        let dot = |w: &[f32]| w.iter().zip(h).map(|(w, h)| f64::from(*w) * f64::from(*h)).sum::<f64>();
        let z: Vec<f64> = weight.chunks(d).map(|w| dot(w) / temperature).collect();
        let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
        z.iter().map(|z| z - lse).collect()
    };
    let one =
        |(p, q): (&[f32], &[f32])| log_softmax(p).iter().zip(log_softmax(q)).map(|(lp, lq)| lp.exp() * (lp - lq)).sum();
    p.chunks(d).zip(q.chunks(d)).map(one).collect()
}

fn tensor<B: Kernels>(values: &[f32], shape: [usize; 2]) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Default::default())
}

/// Against the dense form, at several temperatures; where the rows are cut does not matter.
fn as_dense_in_any_chunks<B: Kernels>() {
    let (m, d, vocab) = (7, 16, 50);
    let (p, q, weight): (Tensor<B, 2>, Tensor<B, 2>, Tensor<B, 2>) =
        (source::random([m, d]), source::random([m, d]), source::random([vocab, d]));
    let host = |t: &Tensor<B, 2>| values(t.clone());
    for temperature in [0.7, 1.0, 2.5] {
        let expected = dense(&host(&p), &host(&q), &host(&weight), d, temperature);
        let close = |found: Vec<f32>, what: &str| {
            assert_eq!(found.len(), m);
            for (found, expected) in found.iter().zip(&expected) {
                let gap = (f64::from(*found) - expected).abs();
                assert!(gap < 1e-5 * (1.0 + expected), "{what}, temperature {temperature}: {found} {expected}");
            }
        };
        close(values(head::kl_divergence(p.clone(), q.clone(), &weight, temperature)), "the head's own chunks");
        // One row at a time, though not even one fits; two; six and one; all.
        for most in [1, 200, 650, 1 << 22] {
            let found = head::plain_kl_divergence(p.clone(), q.clone(), &weight, temperature, most);
            close(values(found), &format!("{most} logits"));
        }
    }
}

/// Two words: `P = (3/4, 1/4)` against `Q = (1/2, 1/2)` is `3/4 ln(3/2) - 1/4 ln 2 = 0.130812`; the other way round
/// `1/2 ln(2/3) + 1/2 ln 2 = 0.143841`.
fn by_hand<B: Kernels>() {
    let identity = tensor::<B>(&[1.0, 0.0, 0.0, 1.0], [2, 2]);
    let (sharp, even) = (tensor::<B>(&[2.0 * 3f32.ln(), 0.0], [1, 2]), tensor::<B>(&[0.0, 0.0], [1, 2]));
    let kl = |p: &Tensor<B, 2>, q: &Tensor<B, 2>| values(head::kl_divergence(p.clone(), q.clone(), &identity, 2.0))[0];
    assert!((kl(&sharp, &even) - 0.130_812).abs() < 1e-6, "{}", kl(&sharp, &even));
    assert!((kl(&even, &sharp) - 0.143_841).abs() < 1e-6, "{}", kl(&even, &sharp));
}

/// 0 for equal states, never below, and right where rounding the logits is larger than the divergence.
fn never_below_zero<B: Kernels>() {
    let (m, d, vocab) = (40, 16, 3000);
    let (p, noise): (Tensor<B, 2>, Tensor<B, 2>) = (source::random([m, d]), source::random([m, d]));
    let weight: Tensor<B, 2> = source::random([vocab, d]).mul_scalar(2.0);
    assert_eq!(values(head::kl_divergence(p.clone(), p.clone(), &weight, 1.0)), vec![0.0; m]);
    for size in [1e-6, 1e-4, 1e-2, 3.0] {
        let q = p.clone().add(noise.clone().mul_scalar(size));
        let expected = dense(&values(p.clone()), &values(q.clone()), &values(weight.clone()), d, 1.0);
        for (found, expected) in values(head::kl_divergence(p.clone(), q, &weight, 1.0)).iter().zip(expected) {
            assert!(*found >= 0.0, "{found}");
            let gap = (f64::from(*found) - expected).abs();
            assert!(gap < 2e-6 + 1e-3 * expected, "noise {size}: {found} {expected}");
        }
    }
    let broken = tensor::<B>(&[f32::NAN; 16], [1, 16]);
    assert!(values(head::kl_divergence(broken, p.clone().slice([0..1, 0..16]), &weight, 1.0))[0].is_nan());
    let none = || tensor::<B>(&[], [0, 16]);
    assert!(values(head::kl_divergence(none(), none(), &weight, 1.0)).is_empty());
}

/// Hidden states, weight, targets and temperature of a test, on the host.
struct Case {
    dims: [usize; 3],
    hidden: Vec<f32>,
    weight: Vec<f32>,
    targets: Vec<i32>,
    temperature: f64,
}

impl Case {
    fn new<B: Kernels>(m: usize, d: usize, vocab: usize, temperature: f64) -> Self {
        let (hidden, weight): (Tensor<B, 2>, Tensor<B, 2>) = (source::random([m, d]), source::random([vocab, d]));
        let targets = (0..m).map(|i| (i * 37 % vocab) as i32).collect();
        Self { dims: [m, d, vocab], hidden: values(hidden), weight: values(weight), targets, temperature }
    }

    /// Entropies of the rows, in f64.
    fn entropies(&self) -> Vec<f32> {
        let [_, d, _] = self.dims;
        let entropy = |h: &[f32]| {
            let dot = |w: &[f32]| w.iter().zip(h).map(|(w, h)| f64::from(*w) * f64::from(*h)).sum::<f64>();
            let z: Vec<f64> = self.weight.chunks(d).map(|w| dot(w) / self.temperature).collect();
            let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = z.iter().map(|z| (z - top).exp()).sum();
            (sum.ln() - z.iter().map(|z| (z - top) * (z - top).exp()).sum::<f64>() / sum) as f32
        };
        self.hidden.chunks(d).map(entropy).collect()
    }

    /// Log-probs, entropies, divergences from the states in reverse, logits of two rows, the gradient of the states,
    /// and that of the weight's rows `ids`.
    fn numbers<B: Kernels>(&self, head: LmHead<B>) -> [Vec<f32>; 6] {
        let [m, d, _] = self.dims;
        let hidden = tensor::<B>(&self.hidden, [m, d]);
        let targets = || Tensor::from_data(TensorData::new(self.targets.clone(), [m]), &hidden.device());
        let out = head::log_probs(hidden.clone(), head, targets(), self.temperature, true);
        let kl = head::kl_divergence(hidden.clone(), hidden.clone().flip([0]), head, self.temperature);
        let logits = head.logits(hidden.clone().slice([0..2, 0..d]));
        let d_of = |k: usize| {
            let values: Vec<f32> = (0..m).map(|i| ((i * k % 19) as f32 - 9.0) / 10.0).collect();
            Tensor::from_data(TensorData::new(values, [m]), &hidden.device())
        };
        let mut grads = Gradients::default();
        let (t, dl, de) = (self.temperature, d_of(37), Some(d_of(11)));
        let dh = head::log_probs_backward(hidden.clone(), head, targets(), t, dl, de, "head", &mut grads);
        let dw = grads.remove("head").unwrap();
        [values(out.log_probs), values(out.entropy.unwrap()), values(kl), values(logits), values(dh), values(dw)]
    }
}

/// Vocabularies in equal and unequal parts, in one chunk of rows and in several: the numbers of one rank, up to the
/// rounding of sums in another order.
fn many_ranks_are_one<B: Kernels>() {
    for (m, vocab, sizes) in [(7, 50, &[2, 3, 4, 7][..]), (3000, 3001, &[2])] {
        for temperature in [0.7, 1.0] {
            let case = Case::new::<B>(m, 16, vocab, temperature);
            let alone = case.numbers(LmHead::from(&tensor::<B>(&case.weight, [vocab, 16])));
            for &size in sizes {
                let all = threads::run(size, |ranks| {
                    let shared = VocabShards::new(vocab, ranks);
                    let own = shared.own();
                    let rows = tensor::<B>(&case.weight[own.start * 16..own.end * 16], [own.len(), 16]);
                    case.numbers(LmHead { weight: &rows, shared: Some(&shared), frozen: false })
                });
                let [.., dw] = &alone;
                let whole: Vec<f32> = all.iter().flat_map(|of_rank| of_rank[5].clone()).collect();
                // A sum over all rows, which are cut into other chunks.
                close(&whole, dw, 5e-6, &format!("{size} ranks: gradient of the weight"));
                for of_rank in &all {
                    assert!(of_rank[..5] == all[0][..5], "{size} ranks came apart");
                }
                // One rank's entropies, differences of larger numbers, are the coarser ones.
                close(&all[0][1], &case.entropies(), 1.5e-6, &format!("{size} ranks: entropies in f64"));
                let numbers = ["log-probs", "entropies", "divergences", "logits", "gradient"];
                for (k, (what, bound)) in numbers.into_iter().zip([1e-6, 2e-5, 3e-6, 1e-6, 5e-6]).enumerate() {
                    close(&all[0][k], &alone[k], bound, &format!("{size} ranks: {what}"));
                }
            }
        }
    }
}

/// Within `bound` of the largest, or of 1.
fn close(found: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1f32, |m, v| m.max(v.abs()));
    let gap = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap <= bound * largest, "{what}: {gap:.1e} beside {largest}");
}

#[cfg(feature = "flex")]
on!(flex, burn_flex::Flex<f32, i32>: as_dense_in_any_chunks by_hand never_below_zero many_ranks_are_one);
#[cfg(feature = "ndarray")]
on!(ndarray, burn_ndarray::NdArray<f32>: as_dense_in_any_chunks by_hand never_below_zero many_ranks_are_one);
