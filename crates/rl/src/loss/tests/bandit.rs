//! Every loss learns a bandit: a softmax table finds the rewarded arm.

use super::*;
use crate::advantage::{AdvantageInputs, Advantages, Grpo, estimate};
use burn::tensor::{Int, activation::log_softmax};
use rand::{Rng, SeedableRng, rngs::SmallRng};

const ARMS: usize = 4;
const REWARDED: usize = 2;
const RESPONSES: usize = 24;

/// Probability of the rewarded arm after some steps of two updates each; a response pulls one to three times and is
/// rewarded with the share of right pulls.
fn train(config: &LossConfig, learning_rate: f64) -> f64 {
    let device = Default::default();
    let mut random = SmallRng::seed_from_u64(7);
    let mut logits = Tensor::<B, 1>::zeros([ARMS], &device);
    let table = |logits: Tensor<B, 1>| -> Vec<f64> { log_softmax(logits, 0).into_data().into_vec().unwrap() };
    for _ in 0..60 {
        let old_table = table(logits.clone());
        let lengths: Vec<usize> = (0..RESPONSES).map(|i| 1 + i % 3).collect();
        let pulls: Vec<Vec<usize>> = lengths
            .iter()
            .map(|&length| {
                let pull = |_| {
                    let mut left: f64 = random.random();
                    old_table
                        .iter()
                        .position(|l| {
                            left -= l.exp();
                            left <= 0.0
                        })
                        .unwrap_or(ARMS - 1)
                };
                (0..length).map(pull).collect()
            })
            .collect();
        let rewards: Vec<f32> =
            pulls.iter().map(|p| p.iter().filter(|arm| **arm == REWARDED).count() as f32 / p.len() as f32).collect();
        let inputs = AdvantageInputs {
            rewards: &rewards,
            groups: &[0; RESPONSES],
            lengths: &lengths,
            greedy_rewards: None,
            token_rewards: None,
        };
        let advantages = estimate(&Grpo, &inputs).unwrap();
        let Advantages::PerResponse(advantages) = advantages else {
            panic!("one number per response");
        };
        let ragged = |f: &dyn Fn(usize, usize) -> f64| -> Tensor<A, 2> {
            let rows: Vec<Vec<f64>> =
                pulls.iter().enumerate().map(|(i, row)| row.iter().map(|&arm| f(i, arm)).collect()).collect();
            tensor(&rows, 0, 0.0)
        };
        let old = ragged(&|_, arm| old_table[arm]);
        let shape = old.dims();
        let arms: Vec<i64> = ragged(&|_, arm| arm as f64).into_data().iter::<f64>().map(|arm| arm as i64).collect();
        let arms = Tensor::<A, 1, Int>::from_data(arms.as_slice(), &device);
        for _ in 0..2 {
            let leaf = Tensor::<A, 1>::from_inner(logits.clone()).require_grad();
            let log_probs = log_softmax(leaf.clone(), 0).select(0, arms.clone()).reshape(shape);
            let inputs = LossInputs {
                log_probs,
                old_log_probs: old.clone(),
                advantages: ragged(&|i, _| f64::from(advantages[i])),
                mask: ragged(&|_, _| 1.0),
                policy_mask: None,
                ref_log_probs: None,
                masked_log_probs: None,
                pictured: None,
                entropy: None,
                rollout_log_probs: None,
            };
            let output = policy_loss(config, &inputs, Denominators::of(&lengths)).unwrap();
            let grads = output.loss.backward();
            let gradient = leaf.grad(&grads).unwrap();
            logits = logits - gradient.mul_scalar(learning_rate);
        }
    }
    table(logits)[REWARDED].exp()
}

#[test]
fn is_learned_by_every_loss_and_average() {
    for loss_type in losses() {
        for loss_avg_mode in [LossAvgMode::Token, LossAvgMode::Seq] {
            let config = LossConfig { loss_avg_mode, ..published(loss_type) };
            let found = train(&config, 1.0);
            assert!(found > 0.9, "{} {loss_avg_mode:?}: {found}", loss_type);
        }
    }
}
