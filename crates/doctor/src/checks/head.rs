//! The log-prob head and divergences of predictions.

use burn::tensor::{DType, Tensor};
use kernels::head::{plain_kl_divergence, plain_log_probs, plain_log_probs_backward};
use kernels::sampling::RowChoice;
use kernels::{Kernels, host};
use rl::TrainError;

use crate::finding::Comparisons;
use crate::sides::flat;
use crate::sides::{Cpu, Sides};

/// Rows, hidden size and vocabulary: the run's hidden size over few words, and its vocabulary over narrow states. Both
/// together would be gigabytes on the CPU.
fn cases<B: Kernels>(sides: &Sides<B>) -> [[usize; 3]; 2] {
    let text = &sides.config.text;
    [[5, text.hidden_size, 999], [3, 64, text.vocab_size]]
}

/// Weights that make logits of a few units: where one word has all the probability, an entropy is its rounding error.
fn head<B: Kernels>(sides: &Sides<B>, v: usize, d: usize, dtype: DType) -> (Tensor<B, 2>, Tensor<Cpu, 2>) {
    sides.both(sides.values(v * d, 2.0 / (d as f32).sqrt(), dtype), [v, d], dtype)
}

pub(crate) fn log_probs<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let cases = cases(sides);
    let mut tally = Comparisons::new(format!(
        "log-probs, entropies and gradients over {} and {} words beside plain operations",
        cases[0][2], cases[1][2]
    ));
    for ([m, d, v], dtype) in cases.into_iter().flat_map(|case| sides.dtypes().into_iter().map(move |t| (case, t))) {
        let ((h, ph), (w, pw)) = (sides.random([m, d], dtype), head(sides, v, d, dtype));
        let (targets, plain_targets) = sides.indices((0..m).map(|i| (i * 7919 + v - 1) % v).collect());
        let [(dl, pdl), (de, pde)] = [(); 2].map(|()| sides.random([m], DType::F32));
        let temperature = 0.7;
        let device = || {
            let out = B::log_probs(h.clone(), &w, targets.clone(), temperature, true);
            let (t, dl, de) = (targets.clone(), dl.clone(), Some(de.clone()));
            let (dh, dw) = B::log_probs_backward(h.clone(), &w, t, temperature, dl, de, true);
            let entropy = out.entropy.into_iter();
            [out.log_probs].into_iter().chain(entropy).chain([flat(dh)]).chain(dw.map(flat)).collect()
        };
        let out = plain_log_probs(ph.clone(), &pw, plain_targets.clone(), temperature, true);
        let (dh, dw) = plain_log_probs_backward(ph, &pw, plain_targets, temperature, pdl, Some(pde), true);
        let cpu = [out.log_probs].into_iter().chain(out.entropy).chain([flat(dh)]).chain(dw.map(flat)).collect();
        let what = format!("head of {d} and {v} words in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype).max(2e-4), &what, device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn kl_divergence<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let cases = cases(sides);
    let mut tally = Comparisons::new(format!(
        "two predictions over {} and {} words beside plain operations",
        cases[0][2], cases[1][2]
    ));
    for ([m, d, v], dtype) in cases.into_iter().flat_map(|case| sides.dtypes().into_iter().map(move |t| (case, t))) {
        let ((p, pp), (q, pq)) = (sides.random([m, d], dtype), sides.random([m, d], dtype));
        let (w, pw) = head(sides, v, d, dtype);
        let device = || vec![B::kl_divergence(p.clone(), q.clone(), &w, 1.0)];
        let cpu = vec![plain_kl_divergence(pp, pq, &pw, 1.0, 1 << 22)];
        let what = format!("divergence over {v} words in {dtype:?}");
        sides.compare(&mut tally, sides.product_bound(dtype).max(2e-4), &what, device, cpu)?;
    }
    Ok(tally)
}

/// How the rows of the check choose: the likeliest, by their number, by their number among the likeliest.
fn choices() -> Vec<RowChoice> {
    let row = |temperature, top_p, uniform| RowChoice { temperature, top_p, uniform };
    vec![row(0.0, 1.0, 0.5), row(1.0, 1.0, 0.02), row(0.7, 1.0, 0.5), row(1.0, 1.0, 0.97), row(1.0, 0.8, 0.4)]
}

/// How far a chosen token is from what its row's number and settings say, as probability; and its log-prob.
fn misses(logits: &[f32], choice: &RowChoice, id: usize) -> (f64, f64) {
    let temperature = if choice.temperature == 0.0 { 1.0 } else { choice.temperature };
    let z: Vec<f64> = logits.iter().map(|z| f64::from(*z) / temperature).collect();
    let max = z.iter().fold(f64::MIN, |m, z| m.max(*z));
    let lse = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
    let Some(own) = z.get(id) else { return (f64::INFINITY, f64::NAN) };
    let p = |z: &f64| (z - lse).exp();
    let likelier: f64 = z.iter().filter(|z| *z > own).map(p).sum();
    let miss = if choice.temperature == 0.0 {
        likelier
    } else if choice.top_p < 1.0 {
        // What is likelier than a token of the nucleus does not fill it.
        (likelier - choice.top_p).max(0.0)
    } else {
        let (below, u) = (z[..id].iter().map(p).sum::<f64>(), f64::from(choice.uniform));
        (below - u).max(u - below - p(own)).max(0.0)
    };
    (miss, own - lse)
}

pub(crate) fn sample<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let v = sides.config.text.vocab_size;
    let choices = choices();
    let mut tally = Comparisons::new(format!(
        "tokens of {} rows of {v} words, greedy, by number and by nucleus, beside the distribution in f64",
        choices.len()
    ));
    for dtype in sides.dtypes() {
        let values = sides.values(choices.len() * v, 2.0, dtype);
        let logits = sides.upload(values.clone(), [choices.len(), v], dtype);
        let draw = || -> Result<(Vec<i32>, Vec<f32>), TrainError> {
            let (ids, log_probs) = B::sample(logits.clone(), &choices, None);
            Ok((host::ints(ids)?, host::floats(log_probs)?))
        };
        let (ids, log_probs) = draw()?;
        let bytes = |ids: &[i32]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
        tally.equal(&bytes(&ids), &bytes(&draw()?.0), || format!("sampling in {dtype:?}"));
        for (row, choice) in choices.iter().enumerate() {
            let (miss, log_prob) = misses(&values[row * v..(row + 1) * v], choice, ids[row] as usize);
            let what = |part: &str| format!("{part} of a token drawn with {choice:?} in {dtype:?}");
            tally.add(miss, 1e-4, || what("the place"));
            // In nats; the sum goes over the vocabulary in f32.
            tally.add((f64::from(log_probs[row]) - log_prob).abs(), 1e-3, || what("the log-prob"));
        }
    }
    Ok(tally)
}
