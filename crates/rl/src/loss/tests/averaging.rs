//! The loss and its gradient do not depend on the micro-batches, the padding, or the order of the responses.

use super::*;
use proptest::prelude::*;

fn token() -> impl Strategy<Value = [f64; 7]> {
    // old, new - old, advantage, reference - old, masked - old, rollout - old, filtered
    [-4.0..-0.1_f64, -1.5..1.5, -2.0..2.0, -1.0..1.0, -1.0..1.0, -1.0..1.0, 0.0..1.0]
}

fn batches() -> impl Strategy<Value = Batch> {
    prop::collection::vec(prop::collection::vec(token(), 1..7), 1..8).prop_map(|rows| {
        let of = |f: &dyn Fn(&[f64; 7]) -> f64| -> Vec<Vec<f64>> {
            rows.iter().map(|row| row.iter().map(f).collect()).collect()
        };
        Batch {
            old: of(&|t| t[0]),
            log_probs: of(&|t| t[0] + t[1]),
            advantages: of(&|t| t[2]),
            reference: Some(of(&|t| t[0] + t[3])),
            masked: Some(of(&|t| t[0] + t[4])),
            rollout: Some(of(&|t| t[0] + t[5])),
            policy_mask: Some(of(&|t| t[6].round())),
            entropy: None,
        }
    })
}

fn configs() -> impl Strategy<Value = LossConfig> {
    let loss = prop::sample::select(losses());
    let mode = prop_oneof![Just(LossAvgMode::Token), Just(LossAvgMode::Seq), Just(LossAvgMode::Constant)];
    let correction = prop::sample::select(vec![
        CorrectionMode::None,
        CorrectionMode::TokenTruncate,
        CorrectionMode::TokenMask,
        CorrectionMode::SequenceTruncate,
        CorrectionMode::SequenceMask,
    ]);
    (loss, mode, correction, any::<bool>()).prop_map(|(loss_type, loss_avg_mode, mode, extras)| {
        let mut config = LossConfig {
            loss_avg_mode,
            max_response_length: 7,
            rollout_correction: CorrectionConfig { mode, cap: 2.0 },
            ..published(loss_type)
        };
        if extras {
            config.kl.disable_kl = false;
            config.kl.use_kl_loss = true;
            config.entropy_coef = 0.05;
            config.papo = Some(papo_g());
        }
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn micro_batches_add_up(batch in batches(), config in configs(), cut in 0_usize..8, extra in 0_usize..3) {
        let over = batch.denominators();
        let one = run(&config, &batch, 0, over);
        let cut = cut % batch.log_probs.len();
        let mut parts = vec![batch.part(cut..batch.log_probs.len())];
        if cut > 0 {
            parts.insert(0, batch.part(0..cut));
        }
        let mut metrics = MetricSums::default();
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for part in &parts {
            let piece = run(&config, part, extra, over);
            loss += piece.loss;
            gradient.extend(piece.gradient);
            metrics.add_sums(piece.metrics);
        }
        prop_assert!((loss - one.loss).abs() < 1e-10, "{loss} against {}", one.loss);
        for (a, b) in gradient.concat().iter().zip(one.gradient.concat()) {
            prop_assert!((a - b).abs() < 1e-10);
        }
        for ((name, a), (_, b)) in metrics.means().iter().zip(one.metrics.means()) {
            prop_assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{name}: {a} against {b}");
        }
    }
}

#[test]
fn token_and_sequence_averages_differ_where_lengths_do() {
    // One response of three tokens with advantage 1, one of one token with advantage -1; all ratios 1.
    let batch = Batch {
        log_probs: vec![vec![-1.0; 3], vec![-1.0]],
        old: vec![vec![-1.0; 3], vec![-1.0]],
        advantages: vec![vec![1.0; 3], vec![-1.0]],
        ..Batch::default()
    };
    let loss = |loss_avg_mode| {
        let config = LossConfig { loss_avg_mode, ..LossConfig::default() };
        whole(&config, &batch).loss
    };
    close(loss(LossAvgMode::Token), -(3.0 - 1.0) / 4.0);
    close(loss(LossAvgMode::Seq), -(1.0 - 1.0) / 2.0);
    // Two responses of at most 2048 tokens.
    close(loss(LossAvgMode::Constant), -(3.0 - 1.0) / (2.0 * 2048.0));
}

#[test]
fn a_constant_denominator_gives_every_token_the_same_weight_whatever_the_lengths() {
    let config = LossConfig { loss_avg_mode: LossAvgMode::Constant, max_response_length: 10, ..LossConfig::default() };
    let of = |lengths: [usize; 3]| {
        let rows = |value: f64| lengths.map(|length| vec![value; length]).to_vec();
        let batch = Batch { log_probs: rows(-1.0), old: rows(-1.0), advantages: rows(0.5), ..Batch::default() };
        whole(&config, &batch).gradient
    };
    // -A / (3 responses x 10 tokens)
    for gradient in of([1, 2, 10]).into_iter().chain(of([4, 4, 4])).flatten() {
        close(gradient, -0.5 / 30.0);
    }
}

#[test]
fn a_response_without_tokens_is_no_division_by_zero() {
    let batch = Batch {
        log_probs: vec![vec![], vec![-1.0]],
        old: vec![vec![], vec![-1.0]],
        advantages: vec![vec![], vec![1.0]],
        ..Batch::default()
    };
    for loss_type in losses() {
        let config = published(loss_type);
        let (run, alone) = (whole(&config, &batch), whole(&config, &single(&[-1.0], &[-1.0], &[1.0])));
        // Only the average over responses counts it.
        let share = if config.loss_avg_mode == LossAvgMode::Seq { 0.5 } else { 1.0 };
        close(run.loss, share * alone.loss);
        close(run.gradient[1][0], share * alone.gradient[0][0]);
        assert!(alone.gradient[0][0] < 0.0, "{}: a good token becomes likelier", loss_type);
    }
}
