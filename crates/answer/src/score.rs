//! From a response to a [`Score`]: extraction, format, grading, weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::command::{CommandReward, RewardProgram};
use crate::config::{Grader, OverlongConfig, RewardConfig, RewardType};
use crate::function::WeightedRewards;
use crate::{RewardError, extract, math, mathruler, simple};

/// What one graded response got.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Score {
    /// The reward.
    pub overall: f64,
    /// 1 when the answer is right, else 0 (for every rule, `dapo` too); what a reward command says.
    pub accuracy: f64,
    /// 1 when the response has the asked form, else 0; what a reward command says.
    pub format: f64,
    /// The answer that was found in the response.
    pub extracted: Option<String>,
    /// Further metrics by name: `overlong` of `dapo` and wherever that penalty is on, those of a reward command.
    pub extra: BTreeMap<String, f64>,
}

/// One response to grade.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The model's text, without the prompt.
    pub response: &'a str,
    /// The right answer.
    pub ground_truth: &'a str,
    /// Length of the response in tokens; 0 when unknown.
    pub response_length: usize,
    /// The sample's id.
    pub id: &'a str,
    /// The row that was answered, for rewards that look at more; `None` where it is not known.
    pub row: Option<&'a RewardRow>,
}

/// What a reward may see of a row besides its answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RewardRow {
    /// The problem, as it stands in the data.
    pub prompt: String,
    /// Its further columns, as text; lists and objects as JSON.
    pub columns: BTreeMap<String, String>,
    /// Files of its pictures: those that are files, and all where `reward.write_images` asks for it.
    pub images: Vec<PathBuf>,
}

/// A reward, ready to score responses.
#[derive(Debug)]
pub struct Scorer {
    config: RewardConfig,
    command: Option<CommandReward>,
    functions: Option<WeightedRewards>,
}

impl Scorer {
    /// Builds the reward. A reward command is started by the first [`Self::score`], not here; a function of Python's is
    /// loaded here, since its file may be missing or broken.
    ///
    /// # Errors
    /// [`RewardError::Config`] when a value of `config` is out of range; a function that cannot be loaded.
    pub fn new(config: &RewardConfig) -> Result<Self, RewardError> {
        config.validate()?;
        let command = (!config.command.is_empty()).then(|| {
            let program = RewardProgram { command: config.command.clone(), function: None };
            CommandReward::new(&program, config)
        });
        let functions = (!config.functions.is_empty()).then(|| WeightedRewards::new(config)).transpose()?;
        Ok(Self { config: config.clone(), command, functions })
    }

    /// Scores a batch; the scores come in the order of `requests`.
    ///
    /// # Errors
    /// Those of the reward command: it cannot be started, ends, hangs or writes what is no reply. The built-in rules
    /// always answer.
    pub fn score(&mut self, requests: &[Request]) -> Result<Vec<Score>, RewardError> {
        // Taken out and put back: the built-in rule may be one of them.
        if let Some(mut functions) = self.functions.take() {
            let scores = functions.score(requests, &|request| self.score_one(request));
            self.functions = Some(functions);
            return scores;
        }
        match &mut self.command {
            Some(command) => command.score(requests),
            None => Ok(requests.iter().map(|request| self.score_one(request)).collect()),
        }
    }

    /// Ends a reward command. Whoever has scored everything calls it; a trainer that is stopped need not.
    ///
    /// # Errors
    /// Lines of the command that nobody asked for: its replies were off.
    pub fn finish(&mut self) -> Result<(), RewardError> {
        self.functions.as_mut().map_or(Ok(()), WeightedRewards::finish)?;
        self.command.as_mut().map_or(Ok(()), CommandReward::finish)
    }

    /// What it was built with.
    pub fn config(&self) -> &RewardConfig {
        &self.config
    }

    /// Scores one response by the configured built-in rule, whether or not there is a reward command.
    pub fn score_one(&self, request: &Request) -> Score {
        self.punish_length(self.score_answer(request), request.response_length)
    }

    /// The score of a response in the right form (format 1) whose extracted answer is `request.response`.
    pub fn score_given(&self, request: &Request) -> Score {
        let accuracy = f64::from(u8::from(self.grade(request.response, request.ground_truth)));
        let extracted = Some(request.response.to_owned());
        let mut score = Score { accuracy, format: 1.0, extracted, ..Score::default() };
        score.overall = match self.config.reward_type {
            RewardType::MathAccuracy => accuracy,
            RewardType::Dapo => 2.0 * accuracy - 1.0,
            _ => self.config.accuracy_weight * accuracy + self.config.format_weight,
        };
        self.punish_length(score, request.response_length)
    }

    /// `score` with the overlong penalty, where it is on; `dapo` always reports it.
    pub fn punish_length(&self, mut score: Score, response_length: usize) -> Score {
        let overlong = &self.config.overlong;
        if overlong.max_response_length > 0 || self.config.reward_type == RewardType::Dapo {
            let penalty = overlong_penalty(response_length, overlong);
            score.overall += overlong.overlong_penalty_factor * penalty;
            score.extra.insert("overlong".into(), penalty);
        }
        score
    }

    /// The score without the penalty for length.
    fn score_answer(&self, request: &Request) -> Score {
        let truth = request.ground_truth;
        match self.config.reward_type {
            RewardType::Math | RewardType::MathAccuracy | RewardType::LookBack => {
                let response = extract::tighten_tags(request.response);
                let answer = extract::extract_boxed(&response);
                let format = match self.config.reward_type {
                    RewardType::LookBack => extract::look_back_format(&response),
                    _ => extract::math_format(&response),
                };
                self.weigh(answer, truth, format)
            }
            RewardType::R1v => {
                let response = extract::tighten_tags(request.response);
                // Without the tag the whole response stands for the answer, as in R1-V; only the format is lost.
                let answer = extract::extract_answer_tag(&response).unwrap_or_else(|| response.trim());
                self.weigh(Some(answer), truth.trim(), extract::r1v_format(&response))
            }
            RewardType::Dapo => {
                let answer = extract::extract_answer_line(request.response);
                let mut score = self.weigh(answer, truth, answer.is_some());
                score.overall = 2.0 * score.accuracy - 1.0;
                score
            }
            RewardType::MultipleChoice | RewardType::Exact | RewardType::Numeric => {
                let marked = extract::extract_boxed(request.response)
                    .or_else(|| extract::extract_answer_tag(request.response))
                    .or_else(|| extract::extract_answer_line(request.response));
                let answer = marked.unwrap_or_else(|| request.response.trim());
                self.weigh(Some(answer), truth, marked.is_some())
            }
        }
    }

    /// The answer that the configured rule finds in a response; `None` where there is none, and for a reward command or
    /// function.
    pub fn answer(&self, response: &str) -> Option<String> {
        if self.config.is_own() {
            return None;
        }
        self.score_answer(&Request { response, ground_truth: "", response_length: 0, id: "", row: None }).extracted
    }

    /// Whether `given`, an answer that has been extracted already, is right; by the configured rule and grader.
    pub fn grade(&self, given: &str, ground_truth: &str) -> bool {
        match self.config.reward_type {
            RewardType::MultipleChoice => simple::multiple_choice(given, ground_truth),
            RewardType::Exact => simple::exact(given, ground_truth),
            RewardType::Numeric => simple::numeric(given, ground_truth, self.config.numeric_tolerance),
            RewardType::Math | RewardType::MathAccuracy | RewardType::LookBack | RewardType::R1v | RewardType::Dapo => {
                match self.config.grader {
                    Grader::Mathruler => mathruler::grade_answer(given, ground_truth),
                    Grader::Math => math::equal(given, ground_truth),
                }
            }
        }
    }

    fn weigh(&self, answer: Option<&str>, truth: &str, format: bool) -> Score {
        let right = answer.is_some_and(|answer| self.grade(answer, truth));
        let (accuracy, format) = (f64::from(u8::from(right)), f64::from(u8::from(format)));
        let overall = match self.config.reward_type {
            RewardType::MathAccuracy => accuracy,
            _ => self.config.accuracy_weight * accuracy + self.config.format_weight * format,
        };
        Score { overall, accuracy, format, extracted: answer.map(str::to_owned), extra: BTreeMap::new() }
    }
}

/// DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13), in [-1, 0], before its factor.
///
/// 0 up to M - B tokens, then (M - B - T) / B up to M, then -1.
pub(crate) fn overlong_penalty(response_length: usize, config: &OverlongConfig) -> f64 {
    let (most, buffer) = (config.max_response_length, config.overlong_buffer_length);
    let free = most.saturating_sub(buffer);
    if most == 0 || response_length <= free {
        0.0
    } else if response_length <= most {
        -((response_length - free) as f64) / buffer as f64
    } else {
        -1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(config: &str, response: &str, ground_truth: &str, response_length: usize) -> Score {
        let config: RewardConfig = serde_json::from_str(config).unwrap();
        let mut reward = Scorer::new(&config).unwrap();
        let request = Request { response, ground_truth, response_length, id: "", row: None };
        reward.score(&[request]).unwrap().remove(0)
    }

    #[test]
    fn math_weighs_accuracy_and_format() {
        let right = score("{}", r"<think>t</think>\boxed{3}", "3", 0);
        assert_eq!((right.overall, right.accuracy, right.format), (1.0, 1.0, 1.0));
        let unboxed = score("{}", "<think>t</think> 3", "3", 0);
        assert_eq!((unboxed.overall, unboxed.extracted), (0.0, None));
        let no_think = score("{}", r"\boxed{3}", "3", 0);
        assert_eq!((no_think.overall, no_think.format), (0.9, 0.0));
        let only_format = score("{}", r"<think>t</think>\boxed{4}", "3", 0);
        assert_eq!((only_format.overall, only_format.accuracy), (0.1, 0.0));
        let weights = score(r#"{"accuracy_weight": 2, "format_weight": 0.5}"#, r"<think>t</think>\boxed{3}", "3", 0);
        assert_eq!(weights.overall, 2.5);
        // mathruler's extractor answers "None" for a missing box, which a ground truth "None" would make right.
        assert_eq!(score("{}", "no box", "None", 0).accuracy, 0.0);
    }

    #[test]
    fn look_back_rewards_a_second_look() {
        let config = r#"{"reward_type": "look_back"}"#;
        assert_eq!(score(config, r"<think>1 <back>3</back> it is 3</think>\boxed{3}", "3", 0).overall, 1.0);
        assert_eq!(score(config, r"<think>it is 3</think>\boxed{3}", "3", 0).overall, 0.9);
        assert_eq!(score(config, r"<think>1 <back>3</back> it is 3</think>\boxed{4}", "3", 0).overall, 0.1);
    }

    #[test]
    fn math_accuracy_ignores_the_format() {
        assert_eq!(score(r#"{"reward_type": "math_accuracy"}"#, r"\boxed{3}", "3", 0).overall, 1.0);
        assert_eq!(score(r#"{"reward_type": "math_accuracy"}"#, r"<think></think>\boxed{2}", "3", 0).overall, 0.0);
    }

    #[test]
    fn r1v_reads_the_answer_tag() {
        let config = r#"{"reward_type": "r1v", "accuracy_weight": 0.5, "format_weight": 0.5}"#;
        assert_eq!(score(config, "<think>x</think>\n<answer> 3 </answer>", " 3", 0).overall, 1.0);
        assert_eq!(score(config, "<answer>3</answer>", "3", 0).overall, 0.5);
        assert_eq!(score(config, " 3 ", "3", 0).accuracy, 1.0);
    }

    #[test]
    fn dapo_is_plus_or_minus_one_and_punishes_length() {
        let config = r#"{"reward_type": "dapo", "overlong":
            {"max_response_length": 100, "overlong_buffer_length": 20, "overlong_penalty_factor": 0.5}}"#;
        assert_eq!(score(config, "so\nAnswer: 3", "3", 80).overall, 1.0);
        let half = score(config, "so\nAnswer: 3", "3", 90);
        assert_eq!((half.overall, half.extra["overlong"]), (0.75, -0.5));
        assert_eq!(score(config, "so\nAnswer: 4", "3", 100).overall, -1.5);
        assert_eq!(score(config, "3", "3", 1000).overall, -1.5);
        assert_eq!(score(r#"{"reward_type": "dapo"}"#, "Answer: 3", "3", 1000).overall, 1.0);
    }

    #[test]
    fn every_rule_can_punish_length() {
        let overlong = r#""overlong": {"max_response_length": 100, "overlong_buffer_length": 20}"#;
        for rule in ["math", "math_accuracy", "exact", "numeric", "multiple_choice", "look_back", "r1v"] {
            let config = format!(r#"{{"reward_type": "{rule}", {overlong}}}"#);
            let (short, long) = (score(&config, r"\boxed{3}", "3", 80), score(&config, r"\boxed{3}", "3", 95));
            assert_eq!((long.extra["overlong"], long.accuracy), (-0.75, short.accuracy), "{rule}");
            assert_eq!(long.overall, short.overall - 0.75, "{rule}");
        }
        assert!(score("{}", r"\boxed{3}", "3", 95).extra.is_empty());
    }

    #[test]
    fn the_plain_rules_find_the_answer_where_it_is() {
        let choice = r#"{"reward_type": "multiple_choice"}"#;
        assert_eq!(score(choice, r"\boxed{(B)}", "B", 0).overall, 1.0);
        assert_eq!(score(choice, "The answer is B.", "B", 0).overall, 0.9);
        let exact = r#"{"reward_type": "exact"}"#;
        assert_eq!(score(exact, "Answer: New  York", "new york", 0).overall, 1.0);
        let numeric = r#"{"reward_type": "numeric", "numeric_tolerance": 0.01}"#;
        assert_eq!(score(numeric, "<answer>1,003</answer>", "1000", 0).accuracy, 1.0);
        assert_eq!(score(numeric, "<answer>1,013</answer>", "1000", 0).accuracy, 0.0);
    }
}
