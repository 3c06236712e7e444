//! What a response earns in training: a rule of [`answer`], a reward command, or a function of yours.
//!
//! ```
//! use reward::{Request, Reward, RewardConfig, Score};
//!
//! let mut reward = Reward::new(&RewardConfig::default())?;
//! let response = r"<think>half of 3</think> \boxed{\frac{3}{2}}";
//! let scores = reward.score(&[Request { response, ground_truth: "3/2", response_length: 12, id: "a", row: None }])?;
//! assert_eq!((scores[0].accuracy, scores[0].format, scores[0].overall), (1.0, 1.0, 1.0));
//!
//! // A function: the shorter the better.
//! let mut brief =
//!     Reward::from_fn(|r| Score { overall: 1.0 / (1.0 + r.response.len() as f64), ..Score::default() });
//! let scores = brief.score(&[Request { response: "3", ground_truth: "3", response_length: 1, id: "b", row: None }])?;
//! assert_eq!(scores[0].overall, 0.5);
//! # Ok::<(), reward::RewardError>(())
//! ```

use std::fmt;

use answer::Scorer;
pub use answer::config::JUDGE_PROMPT;
pub use answer::{
    FunctionStyle, Grader, JudgeConfig, OverlongConfig, Request, RewardConfig, RewardError, RewardRow, RewardType,
    Score,
};

/// A function that scores a batch: one score per request, in their order, or why it cannot.
pub type RewardFn = dyn FnMut(&[Request]) -> Result<Vec<Score>, String> + Send;

/// A reward, ready to score responses.
pub struct Reward(RewardSource);

enum RewardSource {
    /// A built-in rule, or a reward command.
    Configured(Box<Scorer>),
    Function(Box<RewardFn>),
}

impl fmt::Debug for Reward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            RewardSource::Configured(scorer) => f.debug_tuple("Reward").field(scorer).finish(),
            RewardSource::Function(_) => f.write_str("Reward(function)"),
        }
    }
}

impl Reward {
    /// The reward that a configuration names. A reward command is started by the first [`Self::score`], not here.
    ///
    /// # Errors
    /// [`RewardError::Config`] when a value of `config` is out of range.
    pub fn new(config: &RewardConfig) -> Result<Self, RewardError> {
        Ok(Self(RewardSource::Configured(Box::new(Scorer::new(config)?))))
    }

    /// A function as a reward: it says the whole score of each response.
    pub fn from_fn(score: impl Fn(&Request) -> Score + Send + 'static) -> Self {
        Self::from_batch_fn(move |requests| Ok(requests.iter().map(&score).collect()))
    }

    /// A function that scores many responses at once: one score per request, in their order, or why it cannot.
    pub fn from_batch_fn(score: impl FnMut(&[Request]) -> Result<Vec<Score>, String> + Send + 'static) -> Self {
        Self(RewardSource::Function(Box::new(score)))
    }

    /// Whether it may look at [`Request::row`]: the built-in rules look at the answer alone.
    pub fn sees_rows(&self) -> bool {
        match &self.0 {
            RewardSource::Configured(scorer) => scorer.config().is_own(),
            RewardSource::Function(_) => true,
        }
    }

    /// Whether it wants every picture as a file.
    pub fn writes_images(&self) -> bool {
        matches!(&self.0, RewardSource::Configured(scorer) if scorer.config().write_images)
    }

    /// Scores a batch; the scores come in the order of `requests`.
    ///
    /// # Errors
    /// Those of the reward command: it cannot be started, ends, hangs or writes what is no reply; those of a function:
    /// it fails, or gives another number of scores. The built-in rules always answer.
    pub fn score(&mut self, requests: &[Request]) -> Result<Vec<Score>, RewardError> {
        match &mut self.0 {
            RewardSource::Configured(scorer) => scorer.score(requests),
            RewardSource::Function(function) => {
                let scores = function(requests).map_err(RewardError::Function)?;
                match scores.len() == requests.len() {
                    true => Ok(scores),
                    false => Err(RewardError::Function(format!(
                        "it gave {} scores for {} responses; give one per response, in their order",
                        scores.len(),
                        requests.len()
                    ))),
                }
            }
        }
    }

    /// Ends a reward command. Whoever has scored everything calls it; a trainer that is stopped need not.
    ///
    /// # Errors
    /// Lines of the command that nobody asked for: its replies were off.
    pub fn finish(&mut self) -> Result<(), RewardError> {
        match &mut self.0 {
            RewardSource::Configured(scorer) => scorer.finish(),
            RewardSource::Function(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_gives_one_score_per_response() {
        let request = Request { response: "3", ground_truth: "3", response_length: 1, id: "", row: None };
        let mut calls = 0;
        let mut reward = Reward::from_batch_fn(move |requests| {
            calls += 1;
            match calls {
                1 => Ok(requests.iter().map(|_| Score { overall: 0.5, ..Score::default() }).collect()),
                2 => Ok(vec![]),
                _ => Err("no network".into()),
            }
        });
        assert_eq!(reward.score(&[request; 2]).unwrap().iter().map(|s| s.overall).sum::<f64>(), 1.0);
        assert!(reward.score(&[request; 2]).unwrap_err().to_string().contains("0 scores for 2 responses"));
        assert!(reward.score(&[request]).unwrap_err().to_string().contains("no network"));
    }
}
