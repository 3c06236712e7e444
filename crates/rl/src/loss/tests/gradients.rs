//! Autodiff against finite differences, in f64, for every loss whose gradient is that of its value.
//! (CISPO and the token form of GSPO stop gradients on purpose: `values.rs` checks theirs by hand.)

use super::*;

/// A batch of three ragged responses, away from the kinks of the clips.
fn batch() -> Batch {
    let old = vec![vec![-1.0, -2.0, -0.5], vec![-0.7], vec![-1.5, -0.3]];
    let shift = |by: &[&[f64]]| -> Vec<Vec<f64>> {
        std::iter::zip(&old, by).map(|(row, by)| std::iter::zip(row, *by).map(|(a, b)| a + b).collect()).collect()
    };
    Batch {
        log_probs: shift(&[&[0.05, -0.4, 0.5], &[-0.1], &[1.5, 0.02]]),
        advantages: vec![vec![1.0, -0.5, 2.0], vec![-1.2], vec![-0.8, 0.6]],
        policy_mask: Some(vec![vec![1.0, 1.0, 0.0], vec![1.0], vec![1.0, 1.0]]),
        reference: Some(shift(&[&[0.3, 0.1, -0.2], &[0.4], &[-0.6, 0.2]])),
        masked: Some(shift(&[&[-0.3, -0.9, 0.1], &[0.2], &[-1.6, 0.1]])),
        rollout: Some(shift(&[&[0.1, -0.1, 0.2], &[0.05], &[-0.2, -0.1]])),
        entropy: None,
        old,
    }
}

fn check(name: &str, config: &LossConfig) {
    let batch = batch();
    let run = whole(config, &batch);
    let step = 1e-6;
    for row in 0..batch.log_probs.len() {
        for t in 0..batch.log_probs[row].len() {
            let at = |by: f64| {
                let mut moved = batch.clone();
                moved.log_probs[row][t] += by;
                whole(config, &moved).loss
            };
            let numeric = (at(step) - at(-step)) / (2.0 * step);
            let found = run.gradient[row][t];
            assert!(
                (found - numeric).abs() < 1e-7 * numeric.abs().max(1.0),
                "{name}: response {row} token {t}: {found} against {numeric}"
            );
        }
    }
}

#[test]
fn of_the_policy_losses() {
    for loss_type in ["ppo", "gspo", "sapo"] {
        for loss_avg_mode in [LossAvgMode::Token, LossAvgMode::Seq, LossAvgMode::Constant] {
            let config = LossConfig { loss_avg_mode, ..published(loss_type) };
            check(loss_type, &config);
        }
    }
}

#[test]
fn of_the_kl_in_the_loss() {
    for kl_penalty in [KlPenalty::Kl, KlPenalty::Abs, KlPenalty::Mse, KlPenalty::LowVarKl] {
        let kl = KlConfig { disable_kl: false, use_kl_loss: true, kl_penalty, kl_coef: 0.7, ..KlConfig::default() };
        let config = LossConfig { kl, ..LossConfig::default() };
        check(&format!("{kl_penalty:?}"), &config);
    }
}

#[test]
fn of_the_entropy_papo_and_the_correction() {
    let entropy = LossConfig { entropy_coef: 0.06, ..LossConfig::default() };
    check("entropy", &entropy);
    let papo = LossConfig {
        papo: Some(PapoConfig {
            kl_prcp_coef: 0.5,
            ori_entropy_loss_coef: 0.3,
            aug_entropy_loss_coef: 0.2,
            ..PapoConfig::default()
        }),
        ..LossConfig::default()
    };
    check("papo", &papo);
    for mode in [
        CorrectionMode::TokenTruncate,
        CorrectionMode::TokenMask,
        CorrectionMode::SequenceTruncate,
        CorrectionMode::SequenceMask,
    ] {
        let config = LossConfig { rollout_correction: CorrectionConfig { mode, cap: 1.15 }, ..LossConfig::default() };
        check(&format!("{mode:?}"), &config);
    }
}

#[test]
fn of_the_full_entropy_reach_the_entropy() {
    let mut batch = batch();
    batch.entropy = Some(vec![vec![1.0, 0.5, 0.2], vec![0.9], vec![0.1, 0.4]]);
    let config = LossConfig { entropy_type: EntropyType::Full, entropy_coef: 0.06, ..LossConfig::default() };
    let run = whole(&config, &batch);
    for gradient in run.entropy_gradient.unwrap().concat() {
        close(gradient, 0.06 / 6.0);
    }
    let plain = whole(&LossConfig::default(), &batch);
    close(run.loss - plain.loss, 0.06 * 3.1 / 6.0);
    assert_eq!(run.gradient, plain.gradient);
}

#[test]
fn reach_the_masked_log_probs_only_where_they_are_not_constant() {
    let leaf = tensor::<A>(&[vec![-1.0, -2.0]], 0, 0.0);
    let masked = tensor::<A>(&[vec![-1.5, -1.0]], 0, 0.0).require_grad();
    let config = PapoConfig { kl_prcp_coef: 0.0, aug_entropy_loss_coef: 0.4, ..PapoConfig::default() };
    let terms = papo::terms(leaf, masked.clone(), None, &config);
    let grads = terms.loss.sum().backward();
    let gradient: Vec<f64> = masked.grad(&grads).unwrap().into_data().into_vec().unwrap();
    assert_eq!(gradient, [-0.4, -0.4]);
}

#[test]
fn are_the_same_in_f32_on_the_training_backend() {
    type F = Autodiff<burn_flex::Flex<f32, i32>>;
    let batch = batch();
    for loss_type in losses() {
        let config = published(loss_type);
        let leaf = tensor::<F>(&batch.log_probs, 0, 0.0).require_grad();
        let ones: Vec<Vec<f64>> = batch.lengths().iter().map(|&t| vec![1.0; t]).collect();
        let inputs = LossInputs {
            log_probs: leaf.clone(),
            old_log_probs: tensor(&batch.old, 0, 0.0),
            advantages: tensor(&batch.advantages, 0, 0.0),
            mask: tensor(&ones, 0, 0.0),
            policy_mask: batch.policy_mask.as_ref().map(|x| tensor(x, 0, 0.0)),
            ref_log_probs: None,
            masked_log_probs: None,
            pictured: None,
            entropy: None,
            rollout_log_probs: None,
        };
        let output = policy_loss(&config, &inputs, batch.denominators()).unwrap();
        let gradient = leaf.grad(&output.loss.backward()).unwrap();
        let gradient = padding::unpad(gradient, &batch.lengths()).unwrap();
        let expected = whole(&config, &batch).gradient;
        for (a, b) in gradient.concat().iter().zip(expected.concat()) {
            let name = loss_type;
            assert!((f64::from(*a) - b).abs() < 1e-5, "{name}: {a} against {b}");
        }
    }
}
