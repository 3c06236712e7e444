//! Advantage estimators: rewards of a batch to one advantage per response (or a token), on the host.
//!
//! | `adv_estimator` | file | advantage |
//! |---|---|---|
//! | `grpo` | `grpo` | `(r - mean) / (std + eps)` of the group |
//! | `dr_grpo` | `dr_grpo` | `r - mean` of the group |
//! | `rloo` | `rloo` | `r` minus the mean of the others |
//! | `remax` | `remax` | `r` minus the greedy response's reward |
//! | `reinforce_plus_plus` | `reinforce_plus_plus` | discounted return a token, whitened over the batch |
//! | `grpo_passk` | `grpo_passk` | only the best of a group: `(best - second) / (std + eps)` |
//!
//! GAE would need a critic, which this project does not train; [`AdvantageInputs`] and [`Advantages::PerToken`] are the
//! seam for one: token values would be one more optional input.

pub(crate) mod dr_grpo;
pub(crate) mod grpo;
pub(crate) mod grpo_passk;
pub(crate) mod reinforce_plus_plus;
pub(crate) mod remax;
pub(crate) mod rloo;

pub use dr_grpo::DrGrpo;
pub use grpo::Grpo;
pub use grpo_passk::GrpoPassk;
pub use reinforce_plus_plus::{ReinforcePlusPlus, ReinforcePlusPlusConfig};
pub use remax::Remax;
pub use rloo::Rloo;

use std::collections::BTreeMap;

/// Added to the standard deviation of a group before it divides.
pub const EPS: f64 = 1e-6;

/// Turns the rewards of a batch into advantages.
///
/// ```
/// use rl::advantage::{AdvantageEstimator, AdvantageError, AdvantageInputs, Advantages, estimate, within_groups};
///
/// /// How much better than the worst of its group.
/// struct AboveWorst;
///
/// impl AdvantageEstimator for AboveWorst {
///     fn needs_group(&self) -> bool {
///         true
///     }
///     fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
///         Ok(within_groups(inputs, |group| {
///             let worst = group.iter().copied().fold(f64::INFINITY, f64::min);
///             group.iter().map(|reward| reward - worst).collect()
///         }))
///     }
/// }
/// let inputs = AdvantageInputs {
///     rewards: &[0.25, 1.0],
///     groups: &[0, 0],
///     lengths: &[3, 5],
///     greedy_rewards: None,
///     token_rewards: None,
/// };
/// assert_eq!(estimate(&AboveWorst, &inputs)?, Advantages::PerResponse(vec![0.0, 0.75]));
/// # Ok::<(), AdvantageError>(())
/// ```
pub trait AdvantageEstimator: Send + Sync {
    /// Whether each prompt also needs one greedy response, whose reward is the baseline.
    fn needs_greedy(&self) -> bool {
        false
    }

    /// Whether responses are compared with others of their group, so that a group of one, or of equal rewards, teaches
    /// nothing.
    fn needs_group(&self) -> bool;

    /// The advantages. [`estimate`] calls it with inputs that fit each other and are finite.
    ///
    /// # Errors
    /// [`AdvantageError`] when an input is absent that the estimator needs.
    fn advantages(&self, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError>;
}

/// What an estimator reads. Every slice has one entry per response.
#[derive(Debug, Clone, Copy)]
pub struct AdvantageInputs<'a> {
    /// Reward of each response.
    pub rewards: &'a [f32],
    /// Group id of each response; equal ids share a prompt, in any order.
    pub groups: &'a [usize],
    /// Tokens of each response.
    pub lengths: &'a [usize],
    /// Reward of the greedy response to the same prompt (ReMax only).
    pub greedy_rewards: Option<&'a [f32]>,
    /// Reward of each token on top of the response's reward, `[T_i]`: the KL penalty when it is taken in the reward
    /// (`crate::loss::kl::reward_penalty`).
    pub token_rewards: Option<&'a [Vec<f32>]>,
}

/// The result of an estimator.
#[derive(Debug, Clone, PartialEq)]
pub enum Advantages {
    /// One number per response, shared by its tokens.
    PerResponse(Vec<f32>),
    /// One number per token, ragged `[T_i]`.
    PerToken(Vec<Vec<f32>>),
}

impl Advantages {
    /// Number of responses.
    pub fn len(&self) -> usize {
        match self {
            Self::PerResponse(values) => values.len(),
            Self::PerToken(values) => values.len(),
        }
    }

    /// Whether there is no response.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One number per token: `[T_i]` for response `i`, with the response's number repeated where there is only one.
    pub fn tokens(&self, response: usize, length: usize) -> Vec<f32> {
        match self {
            Self::PerResponse(values) => vec![values[response]; length],
            Self::PerToken(values) => values[response].clone(),
        }
    }
}

/// What can be wrong with the inputs of an estimator.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AdvantageError {
    /// A setting is outside its range.
    #[error("algorithm.{key} = {value}: {reason}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why it is refused and what to write instead.
        reason: &'static str,
    },
    /// A list does not have one entry per response (or a token of it).
    #[error("advantage: {what} has {found} entries, expected {expected}")]
    Shape {
        /// Which list.
        what: String,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A reward is NaN or infinite.
    #[error("advantage: the {what} of response {response} is {value}; a reward must be a finite number")]
    NotFinite {
        /// Which reward.
        what: &'static str,
        /// Index of the response.
        response: usize,
        /// The value.
        value: f32,
    },
    /// ReMax was asked for without greedy rewards.
    #[error("advantage: remax needs the reward of a greedy response for each prompt")]
    NoGreedyRewards,
}

/// Estimates the advantages of a batch.
///
/// Estimators with one number per response add a response's token rewards to its reward first. A group of one (which
/// the configuration refuses, but which lost responses may leave behind) gets 0 from those that compare within a
/// group.
///
/// # Errors
/// [`AdvantageError`] when the inputs do not fit each other or hold a non-finite reward.
///
/// ```
/// use rl::advantage::{AdvantageInputs, Advantages, Grpo, estimate};
/// let inputs = AdvantageInputs {
///     rewards: &[1.0, 0.0],
///     groups: &[7, 7],
///     lengths: &[3, 5],
///     greedy_rewards: None,
///     token_rewards: None,
/// };
/// let Advantages::PerResponse(a) = estimate(&Grpo, &inputs).unwrap() else { unreachable!() };
/// assert!((a[0] - 0.70710578).abs() < 1e-5 && (a[0] + a[1]).abs() < 1e-6);
/// ```
pub fn estimate(estimator: &dyn AdvantageEstimator, inputs: &AdvantageInputs) -> Result<Advantages, AdvantageError> {
    check(inputs)?;
    estimator.advantages(inputs)
}

/// One number per response from those of its group alone: `of_group` maps the rewards of one group to advantages.
pub fn within_groups(inputs: &AdvantageInputs, of_group: impl Fn(&[f64]) -> Vec<f64>) -> Advantages {
    Advantages::PerResponse(by_group(&total_rewards(inputs), inputs.groups, &of_group))
}

/// Reward of each response plus the sum of its token rewards.
pub fn total_rewards(inputs: &AdvantageInputs) -> Vec<f64> {
    let mut totals: Vec<f64> = inputs.rewards.iter().map(|&r| f64::from(r)).collect();
    if let Some(tokens) = inputs.token_rewards {
        for (total, tokens) in totals.iter_mut().zip(tokens) {
            *total += tokens.iter().map(|&r| f64::from(r)).sum::<f64>();
        }
    }
    totals
}

/// Applies `of_group` to the rewards of each group and puts the results back in the order of the rows.
fn by_group(rewards: &[f64], groups: &[usize], of_group: &dyn Fn(&[f64]) -> Vec<f64>) -> Vec<f32> {
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(row);
    }
    let mut advantages = vec![0.0; rewards.len()];
    for rows in members.values() {
        let group: Vec<f64> = rows.iter().map(|&row| rewards[row]).collect();
        for (&row, advantage) in rows.iter().zip(of_group(&group)) {
            advantages[row] = advantage as f32;
        }
    }
    advantages
}

/// Mean of a group. Equal rewards give exactly that reward, so that their advantages are exactly 0.
fn mean(group: &[f64]) -> f64 {
    match group {
        [first, rest @ ..] if rest.iter().all(|r| r == first) => *first,
        _ => group.iter().sum::<f64>() / group.len() as f64,
    }
}

/// Unbiased standard deviation (divided by `n - 1`); 0 for a group of one.
fn std(group: &[f64]) -> f64 {
    if group.len() < 2 {
        return 0.0;
    }
    let mean = mean(group);
    let squares: f64 = group.iter().map(|r| (r - mean).powi(2)).sum();
    (squares / (group.len() - 1) as f64).sqrt()
}

fn check(inputs: &AdvantageInputs) -> Result<(), AdvantageError> {
    let expected = inputs.rewards.len();
    let shape = |what: &str, found| match found == expected {
        true => Ok(()),
        false => Err(AdvantageError::Shape { what: what.to_string(), found, expected }),
    };
    shape("groups", inputs.groups.len())?;
    shape("lengths", inputs.lengths.len())?;
    finite("reward", inputs.rewards)?;
    if let Some(greedy) = inputs.greedy_rewards {
        shape("greedy_rewards", greedy.len())?;
        finite("greedy reward", greedy)?;
    }
    if let Some(tokens) = inputs.token_rewards {
        shape("token_rewards", tokens.len())?;
        for (response, (tokens, &expected)) in tokens.iter().zip(inputs.lengths).enumerate() {
            if tokens.len() != expected {
                return Err(AdvantageError::Shape {
                    what: format!("token_rewards of response {response}"),
                    found: tokens.len(),
                    expected,
                });
            }
            if let Some(&value) = tokens.iter().find(|r| !r.is_finite()) {
                return Err(AdvantageError::NotFinite { what: "token reward", response, value });
            }
        }
    }
    Ok(())
}

fn finite(what: &'static str, rewards: &[f32]) -> Result<(), AdvantageError> {
    match rewards.iter().position(|r| !r.is_finite()) {
        Some(response) => Err(AdvantageError::NotFinite { what, response, value: rewards[response] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
