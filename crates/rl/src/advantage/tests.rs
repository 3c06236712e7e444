//! One test an estimator, with values worked out by hand, and what holds for all of them.

use super::*;
use proptest::prelude::*;

use crate::config::Algorithm;
use crate::registry::{MethodKind, Methods};

/// Every estimator by its name.
fn all() -> Vec<(&'static str, Box<dyn AdvantageEstimator>)> {
    let build = |name: &'static str| {
        let algorithm = Algorithm { adv_estimator: name.to_string(), ..Algorithm::default() };
        (name, algorithm.build_estimator().unwrap())
    };
    Methods::default().of_kind(MethodKind::Estimator).into_iter().map(build).collect()
}

fn run(estimator: &dyn AdvantageEstimator, rewards: &[f32], groups: &[usize]) -> Vec<f32> {
    let lengths = vec![1; rewards.len()];
    let inputs = AdvantageInputs { rewards, groups, lengths: &lengths, greedy_rewards: None, token_rewards: None };
    match estimate(estimator, &inputs).unwrap() {
        Advantages::PerResponse(values) => values,
        Advantages::PerToken(rows) => rows.concat(),
    }
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{found:?} against {expected:?}");
    }
}

#[test]
fn grpo_divides_by_the_unbiased_deviation() {
    // mean .25, deviations (.75, -.25 x3), variance .75 / 3 = .25
    let found = run(&Grpo, &[1.0, 0.0, 0.0, 0.0], &[4; 4]);
    close(&found, &[1.5, -0.5, -0.5, -0.5]);
}

#[test]
fn dr_grpo_does_not_divide() {
    let found = run(&DrGrpo, &[1.0, 0.0, 0.0, 0.0], &[4; 4]);
    close(&found, &[0.75, -0.25, -0.25, -0.25]);
}

#[test]
fn rloo_leaves_one_out() {
    // 1 - 2/3, 2 - 1/2 ... : r_i minus the mean of the other three
    let found = run(&Rloo, &[1.0, 2.0, 0.0, 0.0], &[0; 4]);
    close(&found, &[1.0 - 2.0 / 3.0, 2.0 - 1.0 / 3.0, -1.0, -1.0]);
}

#[test]
fn passk_reinforces_the_best_alone() {
    // (1 - .5) / std; std of (1, .5, 0) is .5
    let found = run(&GrpoPassk, &[0.5, 1.0, 0.0], &[1; 3]);
    close(&found, &[0.0, 1.0, 0.0]);
    assert_eq!(run(&GrpoPassk, &[1.0, 1.0, 0.0], &[1; 3]), [0.0; 3]);
}

#[test]
fn remax_subtracts_the_greedy_reward() {
    let config = Remax;
    let mut inputs = AdvantageInputs {
        rewards: &[1.0, 0.0],
        groups: &[0, 1],
        lengths: &[1, 1],
        greedy_rewards: Some(&[0.25, 1.0]),
        token_rewards: None,
    };
    let found = estimate(&config, &inputs).unwrap();
    assert_eq!(found, Advantages::PerResponse(vec![0.75, -1.0]));
    inputs.greedy_rewards = None;
    assert_eq!(estimate(&config, &inputs), Err(AdvantageError::NoGreedyRewards));
}

#[test]
fn reinforce_plus_plus_whitens_discounted_returns() {
    let config = ReinforcePlusPlus(ReinforcePlusPlusConfig { discount: 0.5 });
    let inputs = AdvantageInputs {
        rewards: &[4.0, 0.0],
        groups: &[0, 1],
        lengths: &[3, 1],
        greedy_rewards: None,
        token_rewards: None,
    };
    // returns (1, 2, 4 | 0): mean 1.75, unbiased variance (.5625 + .0625 + 5.0625 + 3.0625) / 3
    let std = (8.75_f32 / 3.0).sqrt();
    let Advantages::PerToken(found) = estimate(&config, &inputs).unwrap() else {
        panic!("one number per token");
    };
    close(&found[0], &[-0.75 / std, 0.25 / std, 2.25 / std]);
    close(&found[1], &[-1.75 / std]);
    // A token reward arrives at its token: returns (1 + .5 - 2, 2 - 1 ... ) with -2 at t = 2.
    let tokens = [vec![0.0, -2.0, 0.0], vec![0.0]];
    let inputs = AdvantageInputs { token_rewards: Some(&tokens), ..inputs };
    let Advantages::PerToken(found) = estimate(&config, &inputs).unwrap() else {
        panic!("one number per token");
    };
    // returns (0, 0, 4 | 0): mean 1, variance 12 / 3
    close(&found[0], &[-0.5, -0.5, 1.5]);
}

#[test]
fn token_rewards_count_towards_the_response() {
    let tokens = [vec![-0.25, -0.25], vec![0.0]];
    let inputs = AdvantageInputs {
        rewards: &[1.0, 0.0],
        groups: &[0, 0],
        lengths: &[2, 1],
        greedy_rewards: None,
        token_rewards: Some(&tokens),
    };
    let config = DrGrpo;
    let found = estimate(&config, &inputs).unwrap();
    assert_eq!(found, Advantages::PerResponse(vec![0.25, -0.25]));
}

#[test]
fn equal_rewards_give_exact_zeros() {
    for (name, estimator) in all().into_iter().filter(|(_, estimator)| !estimator.needs_greedy()) {
        // 0.1 is not a binary float: the mean of three of them must not leave a residue to be divided by eps.
        let found = run(estimator.as_ref(), &[0.1; 3], &[0; 3]);
        assert_eq!(found, [0.0; 3], "{name}");
    }
}

#[test]
fn a_group_of_one_gives_zero() {
    let groups: Vec<_> = all().into_iter().filter(|(_, estimator)| estimator.needs_group()).collect();
    assert_eq!(groups.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["grpo", "dr_grpo", "rloo", "grpo_passk"]);
    for (name, estimator) in groups {
        assert_eq!(run(estimator.as_ref(), &[1.0], &[0]), [0.0], "{name}");
    }
}

#[test]
fn names_are_easy_r1s() {
    let names: Vec<&str> = all().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["grpo", "dr_grpo", "rloo", "remax", "reinforce_plus_plus", "grpo_passk"]);
    let algorithm = Algorithm { adv_estimator: "gae".to_string(), ..Algorithm::default() };
    let error = algorithm.build_estimator().err().unwrap().to_string();
    assert_eq!(error, "algorithm.adv_estimator = gae: no estimator has that name");
}

#[test]
fn bad_inputs_are_named() {
    let config = Grpo;
    let inputs = AdvantageInputs {
        rewards: &[1.0, f32::NAN],
        groups: &[0, 0],
        lengths: &[1, 1],
        greedy_rewards: None,
        token_rewards: None,
    };
    assert_eq!(
        estimate(&config, &inputs).unwrap_err().to_string(),
        "advantage: the reward of response 1 is NaN; a reward must be a finite number"
    );
    let inputs = AdvantageInputs { rewards: &[1.0], ..inputs };
    assert_eq!(estimate(&config, &inputs).unwrap_err().to_string(), "advantage: groups has 2 entries, expected 1");
    let tokens = [vec![0.0; 2]];
    let inputs = AdvantageInputs { groups: &[0], lengths: &[1], token_rewards: Some(&tokens), ..inputs };
    assert_eq!(
        estimate(&config, &inputs).unwrap_err().to_string(),
        "advantage: token_rewards of response 0 has 2 entries, expected 1"
    );
}

proptest! {
    #[test]
    fn groups_are_found_by_id_not_by_order(
        rows in prop::collection::vec((0_usize..4, 0_u8..5), 1..24), turn in 0_usize..24,
    ) {
        let split = |rows: &[(usize, u8)]| -> (Vec<f32>, Vec<usize>) {
            (rows.iter().map(|r| f32::from(r.1) / 4.0).collect(), rows.iter().map(|r| r.0).collect())
        };
        let turn = turn % rows.len();
        let mut turned = rows.clone();
        turned.rotate_left(turn);
        for estimator in [&Grpo as &dyn AdvantageEstimator, &DrGrpo, &Rloo] {
            let (rewards, groups) = split(&rows);
            let found = run(estimator, &rewards, &groups);
            let (rewards, groups) = split(&turned);
            let mut other = run(estimator, &rewards, &groups);
            other.rotate_right(turn);
            prop_assert!(found.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4));
            // and each group's advantages sum to 0
            for group in 0..4 {
                let sum: f32 = rows.iter().zip(&found).filter(|(r, _)| r.0 == group).map(|(_, a)| a).sum();
                prop_assert!(sum.abs() < 1e-4);
            }
        }
    }
}
