//! Tests of the losses, in f64 so that finite differences are sharp.

mod averaging;
mod bandit;
mod config;
mod gradients;
mod terms;
mod values;

use super::*;
use crate::config::Algorithm;
use crate::registry::{MethodKind, Methods, SelectedLoss};
use burn::backend::Autodiff;
use burn::tensor::TensorData;
use burn_ndarray::NdArray;

/// Plain, and with autodiff.
pub(super) type B = NdArray<f64>;
pub(super) type A = Autodiff<B>;

/// The names of the losses.
pub(super) fn losses() -> Vec<&'static str> {
    Methods::default().of_kind(MethodKind::Loss)
}

/// A loss with the clip and the averaging of its paper, all else default.
pub(super) fn published(name: &str) -> LossConfig {
    let loss_type = SelectedLoss::built_in(name, &Algorithm::default()).unwrap();
    let config = LossConfig { loss_type, ..LossConfig::default() };
    match name {
        "gspo" | "gspo_token" => {
            LossConfig { clip_ratio_low: 3e-4, clip_ratio_high: 4e-4, loss_avg_mode: LossAvgMode::Seq, ..config }
        }
        "sapo" => LossConfig { loss_avg_mode: LossAvgMode::Seq, ..config },
        _ => config,
    }
}

/// PAPO-G's terms for 3B.
pub(super) fn papo_g() -> PapoConfig {
    PapoConfig { kl_prcp_coef: 0.02, ..PapoConfig::default() }
}

/// A batch as ragged host lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    pub log_probs: Vec<Vec<f64>>,
    pub old: Vec<Vec<f64>>,
    pub advantages: Vec<Vec<f64>>,
    pub policy_mask: Option<Vec<Vec<f64>>>,
    pub reference: Option<Vec<Vec<f64>>>,
    pub masked: Option<Vec<Vec<f64>>>,
    pub entropy: Option<Vec<Vec<f64>>>,
    pub rollout: Option<Vec<Vec<f64>>>,
}

impl Batch {
    pub(super) fn lengths(&self) -> Vec<usize> {
        self.log_probs.iter().map(Vec::len).collect()
    }

    pub(super) fn denominators(&self) -> Denominators {
        Denominators::of(&self.lengths())
    }

    /// The responses `rows` only.
    pub(super) fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let some = |x: &Option<Vec<Vec<f64>>>| x.as_ref().map(|x| x[rows.clone()].to_vec());
        Self {
            log_probs: self.log_probs[rows.clone()].to_vec(),
            old: self.old[rows.clone()].to_vec(),
            advantages: self.advantages[rows.clone()].to_vec(),
            policy_mask: some(&self.policy_mask),
            reference: some(&self.reference),
            masked: some(&self.masked),
            entropy: some(&self.entropy),
            rollout: some(&self.rollout),
        }
    }
}

/// Padded to the longest row plus `extra` columns; the padding is NaN, which nothing may read.
pub(super) fn tensor<T: Backend>(rows: &[Vec<f64>], extra: usize, filler: f64) -> Tensor<T, 2> {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0) + extra;
    let mut values = vec![filler; rows.len() * width];
    for (row, cells) in rows.iter().zip(values.chunks_exact_mut(width)) {
        cells[..row.len()].copy_from_slice(row);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), &Default::default())
}

/// What a run of the loss gives.
pub(super) struct Run {
    pub loss: f64,
    /// `d loss / d log_probs`, ragged.
    pub gradient: Vec<Vec<f64>>,
    /// `d loss / d entropy`, ragged, where there is an entropy.
    pub entropy_gradient: Option<Vec<Vec<f64>>>,
    pub metrics: MetricSums,
}

pub(super) fn run(config: &LossConfig, batch: &Batch, extra: usize, over: Denominators) -> Run {
    let lengths = batch.lengths();
    let ones: Vec<Vec<f64>> = lengths.iter().map(|&t| vec![1.0; t]).collect();
    let nan = |rows: &Vec<Vec<f64>>| tensor::<A>(rows, extra, f64::NAN);
    let leaf = nan(&batch.log_probs).require_grad();
    let entropy = batch.entropy.as_ref().map(|x| nan(x).require_grad());
    let inputs = LossInputs {
        log_probs: leaf.clone(),
        old_log_probs: nan(&batch.old),
        advantages: nan(&batch.advantages),
        mask: tensor(&ones, extra, 0.0),
        policy_mask: batch.policy_mask.as_ref().map(nan),
        ref_log_probs: batch.reference.as_ref().map(nan),
        masked_log_probs: batch.masked.as_ref().map(nan),
        pictured: None,
        entropy: entropy.clone(),
        rollout_log_probs: batch.rollout.as_ref().map(nan),
    };
    let output = policy_loss(config, &inputs, over).unwrap();
    let grads = output.loss.backward();
    let ragged = |gradient: Tensor<B, 2>| {
        let [_, width] = gradient.dims();
        let values: Vec<f64> = gradient.into_data().into_vec().unwrap();
        for (row, &length) in lengths.iter().enumerate() {
            let padding = &values[row * width + length..(row + 1) * width];
            assert!(padding.iter().all(|g| *g == 0.0), "gradient in the padding");
        }
        let rows = lengths.iter().enumerate();
        rows.map(|(row, &t)| values[row * width..][..t].to_vec()).collect::<Vec<_>>()
    };
    let mut metrics = MetricSums::default();
    metrics.add(&output.metrics).unwrap();
    Run {
        loss: output.loss.into_scalar(),
        gradient: leaf.grad(&grads).map(ragged).unwrap_or_else(|| lengths.iter().map(|&t| vec![0.0; t]).collect()),
        entropy_gradient: entropy.and_then(|e| e.grad(&grads)).map(ragged),
        metrics,
    }
}

/// The loss of one optimizer step in one piece.
pub(super) fn whole(config: &LossConfig, batch: &Batch) -> Run {
    run(config, batch, 0, batch.denominators())
}

/// A batch of one response.
pub(super) fn single(log_probs: &[f64], old: &[f64], advantages: &[f64]) -> Batch {
    Batch {
        log_probs: vec![log_probs.to_vec()],
        old: vec![old.to_vec()],
        advantages: vec![advantages.to_vec()],
        ..Batch::default()
    }
}

pub(super) fn close(found: f64, expected: f64) {
    let bound = 1e-9 * expected.abs().max(1.0);
    assert!((found - expected).abs() < bound, "{found} against {expected}");
}
