//! Hand-computed values of the terms beside the policy loss.

use super::*;
use crate::loss::{kl, metrics::TOKENS};

fn host(tensor: Tensor<B, 2>) -> Vec<f64> {
    tensor.into_data().into_vec().unwrap()
}

fn row(values: &[f64]) -> Tensor<B, 2> {
    tensor(&[values.to_vec()], 0, 0.0)
}

#[test]
fn kl_estimates() {
    let (own, reference) = ([-1.0, -2.0], [-1.5, -1.0]);
    let cases = [
        (KlPenalty::Kl, [0.5, -1.0]),
        (KlPenalty::Abs, [0.5, 1.0]),
        (KlPenalty::Mse, [0.125, 0.5]),
        (KlPenalty::LowVarKl, [(-0.5_f64).exp() + 0.5 - 1.0, 1.0_f64.exp() - 1.0 - 1.0]),
    ];
    for (penalty, expected) in cases {
        let found = host(kl::divergence(row(&own), row(&reference), penalty));
        for i in 0..2 {
            close(found[i], expected[i]);
            close(kl::divergence_of(own[i], reference[i], penalty), expected[i]);
        }
    }
    // k3 is bounded at 10, whatever the gap
    let far = kl::divergence(row(&[-100.0]), row(&[0.0]), KlPenalty::LowVarKl);
    assert_eq!(host(far), [10.0]);
}

#[test]
fn kl_in_the_loss() {
    let mut config = LossConfig::default();
    config.kl = KlConfig { disable_kl: false, use_kl_loss: true, kl_penalty: KlPenalty::Kl, kl_coef: 0.1, ..config.kl };
    let mut batch = single(&[-1.0, -2.0], &[-1.0, -2.0], &[0.0, 0.0]);
    batch.reference = Some(vec![vec![-1.5, -1.0]]);
    let run = whole(&config, &batch);
    close(run.loss, 0.1 * (0.5 - 1.0) / 2.0);
    let means = run.metrics.means();
    assert!((means["actor/kl"] + 0.25).abs() < 1e-6);
    assert!((means["actor/kl_loss"] + 0.025).abs() < 1e-6);
}

#[test]
fn kl_in_the_reward() {
    let own = [vec![-1.0, -2.0], vec![-1.0]];
    let reference = [vec![-1.5, -1.0], vec![-3.0]];
    let (rewards, mean) = kl::reward_penalty(&own, &reference, KlPenalty::Kl, 0.1);
    assert_eq!(rewards, [vec![-0.05, 0.1], vec![-0.2]]);
    close(mean, (-0.25 + 2.0) / 2.0);
    assert_eq!(kl::reward_penalty(&[], &[], KlPenalty::Kl, 0.1), (vec![], 0.0));
}

#[test]
fn the_adaptive_coefficient_follows_its_target() {
    let config = KlConfig {
        disable_kl: false,
        kl_type: KlType::Adaptive,
        kl_coef: 0.1,
        kl_target: 0.2,
        kl_horizon: 1000.0,
        ..KlConfig::default()
    };
    let mut controller = KlController::new(&config);
    controller.update(0.22, 100); // error .1
    close(controller.coef, 0.1 * 1.01);
    controller.update(9.0, 100); // clipped at .2
    close(controller.coef, 0.1 * 1.01 * 1.02);
    controller.update(0.0, 100); // clipped at -.2
    close(controller.coef, 0.1 * 1.01 * 1.02 * 0.98);
    controller.update(f64::NAN, 100);
    close(controller.coef, 0.1 * 1.01 * 1.02 * 0.98);
    let mut fixed = KlController::new(&KlConfig::default());
    fixed.update(9.0, 100);
    assert_eq!(fixed.coef, KlConfig::default().kl_coef);
    // a checkpoint restores it
}

#[test]
fn a_positive_entropy_coefficient_punishes_entropy() {
    let config = LossConfig { entropy_coef: 0.06, ..LossConfig::default() };
    let run = whole(&config, &single(&[-1.0, -3.0], &[-1.0, -3.0], &[0.0, 0.0]));
    close(run.loss, 0.06 * 2.0);
    // descending raises the log-probs: less entropy
    assert!(run.gradient[0].iter().all(|g| *g < 0.0));
}

#[test]
fn papo_rewards_dependence_on_the_picture() {
    let config = PapoConfig {
        kl_prcp_coef: 0.02,
        ori_entropy_loss_coef: 0.05,
        aug_entropy_loss_coef: 0.03,
        ..PapoConfig::default()
    };
    let terms = papo::terms(row(&[-1.0, -2.0]), row(&[-2.0, -2.0]), None, &config);
    let k3 = (-1.0_f64).exp() + 1.0 - 1.0;
    let kl_prcp = host(terms.kl_prcp);
    close(kl_prcp[0], k3);
    close(kl_prcp[1], 0.0);
    let loss = host(terms.loss);
    close(loss[0], -0.02 * k3 + 0.05 * 1.0 + 0.03 * 2.0);
    close(loss[1], 0.05 * 2.0 + 0.03 * 2.0);
    // Without a picture only the entropy of the policy is left.
    let blind = papo::terms(row(&[-1.0, -2.0]), row(&[0.0, -2.0]), Some(row(&[0.0, 1.0])), &config);
    let (kl_prcp, loss) = (host(blind.kl_prcp), host(blind.loss));
    close(kl_prcp[0], 0.0);
    close(loss[0], 0.05 * 1.0);
    close(loss[1], 0.05 * 2.0 + 0.03 * 2.0);
}

#[test]
fn rollout_corrections() {
    let gap = row(&[2.0_f64.ln(), 0.5_f64.ln(), 1.5_f64.ln()]);
    let weights = |mode, cap| {
        let config = CorrectionConfig { mode, cap };
        host(correction::weights(gap.clone(), &config))
    };
    let expect = |found: Vec<f64>, expected: [f64; 3]| {
        for (a, b) in found.iter().zip(expected) {
            close(*a, b);
        }
    };
    expect(weights(CorrectionMode::None, 1.6), [1.0; 3]);
    expect(weights(CorrectionMode::TokenTruncate, 1.6), [1.6, 0.5, 1.5]);
    expect(weights(CorrectionMode::TokenMask, 1.6), [0.0, 0.5, 1.5]);
    // the product of the three is 1.5
    expect(weights(CorrectionMode::SequenceTruncate, 1.2), [1.2; 3]);
    expect(weights(CorrectionMode::SequenceTruncate, 1.6), [1.5; 3]);
    expect(weights(CorrectionMode::SequenceMask, 1.2), [0.0; 3]);
}

#[test]
fn metrics_of_no_token_are_empty() {
    let mut sums = MetricSums::default();
    assert!(sums.means().is_empty());
    sums.add_values(&[(TOKENS, 0.0), ("actor/kl", 0.0)]);
    assert!(sums.means().is_empty());
    sums.add::<B>(&[]).unwrap();
}

#[test]
fn ragged_lists_survive_padding() {
    let device = Default::default();
    let rows = [vec![1.0_f32, 2.0], vec![], vec![3.0]];
    let padded = padding::pad::<burn_ndarray::NdArray<f32>, _>(&rows, 3, &device);
    assert_eq!(padded.dims(), [3, 3]);
    assert_eq!(padding::unpad(padded, &[2, 0, 1]).unwrap(), rows);
    let mask = padding::mask::<burn_ndarray::NdArray<f32>>(&[2, 0, 1], 2, &device);
    let mask: Vec<f32> = mask.into_data().into_vec().unwrap();
    assert_eq!(mask, [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn the_gap_between_sampler_and_trainer_is_measured_without_a_correction() {
    let mut batch = single(&[-1.0, -2.0], &[-1.0, -2.0], &[1.0, 1.0]);
    batch.rollout = Some(vec![vec![-1.5, -1.75]]);
    let run = whole(&LossConfig::default(), &batch);
    close(run.loss, -1.0);
    assert_eq!(run.metrics.means()["actor/rollout_gap"], 0.375);
}
