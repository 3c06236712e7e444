//! Hand-computed values of each policy loss.

use super::*;
use proptest::prelude::*;

/// A token whose ratio is `ratio`, with advantage `advantage`.
fn token(ratio: f64, advantage: f64, config: &LossConfig) -> Run {
    whole(config, &single(&[-1.0 + ratio.ln()], &[-1.0], &[advantage]))
}

#[test]
fn ppo_clips_asymmetrically_and_twice() {
    let config =
        LossConfig { clip_ratio_low: 0.2, clip_ratio_high: 0.28, clip_ratio_dual: 3.0, ..LossConfig::default() };
    // (ratio, advantage) -> (loss, gradient): the gradient of -A r is -A r
    let cases = [
        (1.0, 2.0, -2.0, -2.0),
        (1.2, 2.0, -2.4, -2.4), // inside the upper clip
        (1.5, 2.0, -2.56, 0.0), // clipped at 1.28
        (0.5, 2.0, -1.0, -1.0), // below, but a gain is only clipped from above
        (0.9, -2.0, 1.8, 1.8),  // inside the lower clip
        (0.5, -2.0, 1.6, 0.0),  // clipped at .8
        (1.5, -2.0, 3.0, 3.0),  // above, but a loss is only clipped from below
        (4.0, -2.0, 6.0, 0.0),  // dual clip at 3
        (1.7, 0.0, 0.0, 0.0),
    ];
    for (ratio, advantage, loss, gradient) in cases {
        let run = token(ratio, advantage, &config);
        close(run.loss, loss);
        close(run.gradient[0][0], gradient);
    }
}

#[test]
fn ppo_counts_its_clips() {
    let config = LossConfig::default();
    let ratios = [0.5, 1.0, 1.5, 5.0, 5.0];
    let batch = single(&ratios.map(|r: f64| -1.0 + r.ln()), &[-1.0; 5], &[-1.0, 1.0, 1.0, -1.0, 1.0]);
    let means = whole(&config, &batch).metrics.means();
    close(means["actor/clip_fraction_low"], 0.2);
    close(means["actor/clip_fraction_high"], 0.4);
    close(means["actor/clip_fraction_dual"], 0.2);
    close_f32(means["actor/ratio_mean"], 13.0 / 5.0);
    let logs: f64 = ratios.iter().map(|r| r.ln()).sum();
    close_f32(means["actor/ppo_kl"], -logs / 5.0);
    close_f32(means["actor/entropy"], 1.0 - logs / 5.0);
}

/// Metrics cross to the host in f32.
fn close_f32(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-5, "{found} against {expected}");
}

#[test]
fn a_huge_log_ratio_stays_finite_and_has_no_gradient() {
    for loss_type in losses() {
        let config = published(loss_type);
        for advantage in [1.0, -1.0] {
            for gap in [500.0, -500.0] {
                let batch = single(&[-600.0 + gap], &[-600.0], &[advantage]);
                let run = whole(&config, &batch);
                assert!(run.loss.is_finite(), "{}", loss_type);
                // CISPO alone has a gradient there: its clipped ratio is a weight and no part of the graph.
                let clipped = if gap > 0.0 { 1.0 + config.clip_ratio_high } else { 1.0 - config.clip_ratio_low };
                let expected = if loss_type == "cispo" { -advantage * clipped } else { 0.0 };
                // A ratio of e^-20 is the most that is left of one.
                let found = run.gradient[0][0];
                assert!((found - expected).abs() < 1e-7, "{}: {found} against {expected}", loss_type);
            }
        }
    }
}

#[test]
fn gspo_clips_the_mean_of_the_sequence() {
    let config = LossConfig { clip_ratio_low: 0.01, clip_ratio_high: 0.01, ..published("gspo") };
    // Log-ratios .1 and -.09: the tokens are far outside the clip, their mean .005 is not.
    let batch = single(&[-0.9, -1.09], &[-1.0, -1.0], &[1.0, 3.0]);
    let run = whole(&config, &batch);
    let ratio = 0.005_f64.exp();
    close(run.loss, -(1.0 + 3.0) / 2.0 * ratio);
    // d ratio / d l_t = ratio / T, shared by all tokens
    for gradient in &run.gradient[0] {
        close(*gradient, -(1.0 + 3.0) / 2.0 * ratio / 2.0);
    }
    // and a sequence outside is clipped whole
    let batch = single(&[-0.9, -0.9], &[-1.0, -1.0], &[1.0, 3.0]);
    let run = whole(&config, &batch);
    close(run.loss, -2.0 * 1.01);
    assert_eq!(run.gradient[0], [0.0, 0.0]);
}

#[test]
fn gspo_token_has_the_sequence_value_and_token_gradients() {
    let config = LossConfig { clip_ratio_low: 0.01, clip_ratio_high: 0.01, ..published("gspo_token") };
    let batch = single(&[-0.9, -1.09], &[-1.0, -1.0], &[1.0, 3.0]);
    let run = whole(&config, &batch);
    let ratio = 0.005_f64.exp();
    close(run.loss, -2.0 * ratio);
    close(run.gradient[0][0], -ratio / 2.0);
    close(run.gradient[0][1], -3.0 * ratio / 2.0);
}

#[test]
fn cispo_bounds_the_weight_and_keeps_the_gradient() {
    let config = published("cispo");
    for (ratio, advantage, weight) in [(1.1, 2.0, 1.1), (5.0, 2.0, 1.3), (0.1, -2.0, 0.8), (5.0, -2.0, 1.3)] {
        let run = token(ratio, advantage, &config);
        let log_prob = -1.0 + f64::ln(ratio);
        close(run.loss, -advantage * log_prob * weight);
        close(run.gradient[0][0], -advantage * weight);
    }
}

#[test]
fn sapo_gates_softly() {
    let config = published("sapo");
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    // tau 1 for gains, 1.05 for losses
    close(token(1.5, 2.0, &config).loss, -2.0 * 4.0 * sigmoid(0.5));
    close(token(1.5, -2.0, &config).loss, 2.0 * 4.0 / 1.05 * sigmoid(1.05 * 0.5));
    // on policy it is the plain surrogate: gradient -A
    close(token(1.0, 2.0, &config).gradient[0][0], -2.0);
    close(token(1.0, -2.0, &config).gradient[0][0], 2.0);
    // far off policy a gain fades out
    assert!(token(50.0, 2.0, &config).gradient[0][0].abs() < 1e-10);
}

#[test]
fn what_a_shaping_filters_out_still_counts_in_the_denominator() {
    let config = LossConfig::default();
    let mut batch = single(&[-1.0; 4], &[-1.0; 4], &[1.0; 4]);
    batch.policy_mask = Some(vec![vec![1.0, 0.0, 0.0, 1.0]]);
    let run = whole(&config, &batch);
    close(run.loss, -0.5);
    assert_eq!(run.gradient[0], [-0.25, 0.0, 0.0, -0.25]);
}

proptest! {
    #[test]
    fn ppo_is_the_textbook_formula(log_ratio in -3.0..3.0_f64, advantage in -3.0..3.0_f64) {
        let config = LossConfig::default();
        let (low, high, dual) = (0.8, 1.3, 3.0);
        let ratio = log_ratio.exp();
        let mut expected = (-advantage * ratio).max(-advantage * ratio.clamp(low, high));
        if advantage < 0.0 {
            expected = expected.min(-advantage * dual);
        }
        let found = whole(&config, &single(&[-4.0 + log_ratio], &[-4.0], &[advantage])).loss;
        prop_assert!((found - expected).abs() < 1e-9);
    }
}
