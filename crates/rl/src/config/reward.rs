//! `[reward]`: what a response earns.

use ::reward::{Grader, OverlongConfig, RewardConfig, RewardType};

use super::Config;
use super::field::choices;
use super::section::section;

choices!(RewardType {
    Math = "math",
    MathAccuracy = "math_accuracy",
    LookBack = "look_back",
    R1v = "r1v",
    Dapo = "dapo",
    MultipleChoice = "multiple_choice",
    Exact = "exact",
    Numeric = "numeric",
});
choices!(Grader { Mathruler = "mathruler", Math = "math", });

section! {
    /// The reward of a response.
    pub struct RewardSection {
        /// How a response is read and rewarded.
        reward_type: RewardType = RewardType::Math,
        /// What compares an answer with the reference.
        grader: Grader = Grader::Mathruler,
        /// Weight of a right answer in "math", "look_back" and "r1v".
        accuracy_weight: f64 = 0.9 => ..=1e6,
        /// Weight of the right format in "math", "look_back" and "r1v".
        format_weight: f64 = 0.1 => ..=1e6,
        /// "numeric": largest difference, in shares of the reference answer (absolute where that is 0).
        numeric_tolerance: f64 = 1e-4 => ..=1e6,
        /// The penalty for length (DAPO's, with any `reward_type`) grows over so many tokens before
        /// `data.max_response_length`. 0: no penalty.
        overlong_buffer_length: usize = 0 => 0..=1_048_576,
        /// Weight of that penalty.
        overlong_penalty_factor: f64 = 1.0 => ..=1e6,
        /// A program of yours and its arguments. It reads JSON lines on its standard input and answers each
        /// with one; `overall` is the reward, other numbers become metrics (docs/grading.md). Empty: the rules above.
        command: Vec<String> = Vec::new(),
        /// Seconds that program has for one batch, its start included; then it is killed, and started again once.
        command_timeout_s: f64 = 60.0 => ..=3.2e7,
        /// Responses sent to that program before its answers are awaited.
        command_batch_size: usize = 256 => 1..=1_048_576,
    }
}

impl Config {
    /// What a response earns.
    pub fn to_reward_config(&self) -> RewardConfig {
        let reward = &self.reward;
        RewardConfig {
            reward_type: reward.reward_type,
            grader: reward.grader,
            accuracy_weight: reward.accuracy_weight,
            format_weight: reward.format_weight,
            numeric_tolerance: reward.numeric_tolerance,
            overlong: OverlongConfig {
                // There, 0 switches the penalty off; here, a buffer of 0 does.
                max_response_length: match reward.overlong_buffer_length {
                    0 => 0,
                    _ => self.data.max_response_length,
                },
                overlong_buffer_length: reward.overlong_buffer_length,
                overlong_penalty_factor: reward.overlong_penalty_factor,
            },
            command: reward.command.clone(),
            command_timeout_s: reward.command_timeout_s,
            command_batch_size: reward.command_batch_size,
        }
    }
}
