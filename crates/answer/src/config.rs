//! The `[reward]` table of a run's configuration.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::RewardError;

/// Which rule turns a response into a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardType {
    /// Think tags and a boxed answer: `accuracy_weight * accuracy + format_weight * format` (EasyR1's `math`).
    #[default]
    Math,
    /// The boxed answer alone: `accuracy` (VGPO's reward).
    MathAccuracy,
    /// As `math`, but the form asks for a second look at the picture: a `<back>` span within the thought or between
    /// two (Look-Back, arXiv 2507.03019; how strict the form is, is our reading).
    LookBack,
    /// `<think>` and `<answer>` tags (EasyR1's `r1v`), weighted as `math` is.
    R1v,
    /// The last `Answer:` line, in any font, +1 or -1, plus the overlong penalty (DAPO, arXiv 2503.14476, eq. 13).
    Dapo,
    /// One letter out of A to Z, or several, in the box, in the tag or in the sentence.
    MultipleChoice,
    /// The extracted answer equals the ground truth after trimming and folding blanks and case.
    Exact,
    /// The extracted number is within `numeric_tolerance` of the ground truth, relative to its size.
    Numeric,
}

impl RewardType {
    /// Whether a [`Grader`] decides; the plain rules compare in their own way.
    pub fn has_grader(self) -> bool {
        !matches!(self, Self::MultipleChoice | Self::Exact | Self::Numeric)
    }

    /// Whether accuracy and format are added up with weights.
    pub fn has_weights(self) -> bool {
        !matches!(self, Self::MathAccuracy | Self::Dapo)
    }

    /// Whether numbers may differ by a tolerance.
    pub fn has_tolerance(self) -> bool {
        self == Self::Numeric
    }
}

/// Which grader decides whether two mathematical answers are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grader {
    /// Faithful to the Python package mathruler 0.1.0, which EasyR1 uses: published figures are comparable.
    #[default]
    Mathruler,
    /// The stronger one: sets, intervals, equations, matrices, units and text answers as well.
    Math,
}

macro_rules! named {
    ($type:ty, $what:literal, $($name:literal => $value:path),+ $(,)?) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($value),)+
                    other => Err(format!(
                        concat!("unknown ", $what, " `{}`; use one of: {}"),
                        other,
                        [$($name),+].join(", ")
                    )),
                }
            }
        }
        impl $type {
            /// The name of each.
            pub const NAMES: &'static [&'static str] = &[$($name),+];
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($value => $name,)+ })
            }
        }
    };
}
named!(RewardType, "reward type",
    "math" => RewardType::Math,
    "math_accuracy" => RewardType::MathAccuracy,
    "look_back" => RewardType::LookBack,
    "r1v" => RewardType::R1v,
    "dapo" => RewardType::Dapo,
    "multiple_choice" => RewardType::MultipleChoice,
    "exact" => RewardType::Exact,
    "numeric" => RewardType::Numeric,
);
named!(Grader, "grader", "mathruler" => Grader::Mathruler, "math" => Grader::Math);

/// How a reward function of Python's is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionStyle {
    /// As the file's `REWARD_TYPE` or the names of its parameters say; else as `batch`.
    #[default]
    Auto,
    /// EasyR1's: a list of mappings, for a list of scores.
    Batch,
    /// EasyR1's: a mapping, for a score.
    Sequential,
    /// verl's: `data_source`, `solution_str`, `ground_truth`, `extra_info`.
    Verl,
    /// TRL's: `prompts`, `completions` and the columns, each a list, for a list of numbers.
    Trl,
}

/// A judge behind an OpenAI-compatible address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JudgeConfig {
    /// Where `/chat/completions` is, without that part.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// Environment variable that has the key; empty: none is sent.
    pub api_key_env: String,
    /// What it is asked; `{prompt}`, `{response}`, `{ground_truth}` and columns in braces are filled in.
    pub prompt: String,
    /// The last number of its reply is divided by this, and cut to 0 to 1.
    pub scale: f64,
    /// Tokens of a reply.
    pub max_tokens: usize,
    /// Seconds for one reply.
    pub timeout_s: f64,
    /// Further tries where an address does not answer or is busy.
    pub retries: usize,
    /// Questions asked at once.
    pub concurrency: usize,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: String::new(),
            api_key_env: String::new(),
            prompt: JUDGE_PROMPT.to_string(),
            scale: 10.0,
            max_tokens: 512,
            timeout_s: 60.0,
            retries: 3,
            concurrency: 16,
        }
    }
}

/// What a judge is asked where nothing else is said.
pub const JUDGE_PROMPT: &str = "Question:\n{prompt}\n\nReference answer:\n{ground_truth}\n\nResponse to be judged:\n\
     {response}\n\nHow good is the response, from 0 (wrong) to 10 (right and well reasoned)? End with that number alone.";

/// DAPO's soft overlong punishment; lengths in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverlongConfig {
    /// M: responses longer than this get the whole penalty. 0 switches the penalty off.
    pub max_response_length: usize,
    /// B: the penalty grows from 0 at M - B to 1 at M.
    pub overlong_buffer_length: usize,
    /// What the penalty is multiplied by.
    pub overlong_penalty_factor: f64,
}

impl Default for OverlongConfig {
    fn default() -> Self {
        Self { max_response_length: 0, overlong_buffer_length: 0, overlong_penalty_factor: 1.0 }
    }
}

/// The `[reward]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardConfig {
    /// The rule; `math` by default. Not used when `command` is set.
    pub reward_type: RewardType,
    /// The grader of `math`, `math_accuracy`, `r1v` and `dapo`; `mathruler` by default.
    pub grader: Grader,
    /// Weight of the accuracy (0 or 1) in the reward; .9 by default.
    pub accuracy_weight: f64,
    /// Weight of the format (0 or 1) in the reward; .1 by default.
    pub format_weight: f64,
    /// `numeric`: largest accepted |given - truth| / |truth|, and |given| where the truth is 0; 1e-4 by default.
    pub numeric_tolerance: f64,
    /// The overlong penalty, with any rule; off by default.
    pub overlong: OverlongConfig,
    /// A program of your own and its arguments, speaking JSON lines (docs/grading.md); none by default.
    pub command: Vec<String>,
    /// Seconds that the command has for a batch of at most `command_batch_size` responses, its start included where it
    /// has to be started; 60 by default.
    pub command_timeout_s: f64,
    /// Most responses that are sent to the command before its replies are awaited; 256 by default.
    pub command_batch_size: usize,
    /// Rewards that are added up: `FILE.py:FUNCTION`, `rule` (the built-in one) or `judge`; none by default.
    pub functions: Vec<String>,
    /// Their weights; all 1 where there are none.
    pub function_weights: Vec<f64>,
    /// How functions are called.
    pub function_style: FunctionStyle,
    /// Further arguments of functions by their names.
    pub function_kwargs: serde_json::Map<String, serde_json::Value>,
    /// The Python that runs them.
    pub python: String,
    /// Programs, of a command or of each function, that run at once.
    pub num_processes: usize,
    /// Whether pictures that are no files are written to some for it.
    pub write_images: bool,
    /// The judge.
    pub judge: JudgeConfig,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            reward_type: RewardType::default(),
            grader: Grader::default(),
            accuracy_weight: 0.9,
            format_weight: 0.1,
            numeric_tolerance: 1e-4,
            overlong: OverlongConfig::default(),
            command: Vec::new(),
            command_timeout_s: 60.0,
            command_batch_size: 256,
            functions: Vec::new(),
            function_weights: Vec::new(),
            function_style: FunctionStyle::default(),
            function_kwargs: serde_json::Map::new(),
            python: "python3".to_string(),
            num_processes: 1,
            write_images: false,
            judge: JudgeConfig::default(),
        }
    }
}

impl RewardConfig {
    /// Checks the ranges of all values.
    ///
    /// # Errors
    /// [`RewardError::Config`] naming the first key that is out of range.
    pub fn validate(&self) -> Result<(), RewardError> {
        let finite = |key, value: f64, low: f64, fix| {
            if value.is_finite() && value >= low {
                Ok(())
            } else {
                Err(RewardError::Config { key, problem: format!("{value} is not allowed"), fix })
            }
        };
        finite("accuracy_weight", self.accuracy_weight, 0.0, "use a number of 0 or more, for example 0.9")?;
        finite("format_weight", self.format_weight, 0.0, "use a number of 0 or more, for example 0.1")?;
        finite("numeric_tolerance", self.numeric_tolerance, 0.0, "use a number of 0 or more, for example 1e-4")?;
        finite(
            "overlong.overlong_penalty_factor",
            self.overlong.overlong_penalty_factor,
            0.0,
            "use a number of 0 or more, for example 1.0",
        )?;
        if self.overlong.overlong_buffer_length > self.overlong.max_response_length {
            return Err(RewardError::Config {
                key: "overlong.overlong_buffer_length",
                problem: format!(
                    "{} tokens are more than max_response_length, {}",
                    self.overlong.overlong_buffer_length, self.overlong.max_response_length
                ),
                fix: "use a buffer no longer than the response",
            });
        }
        self.validate_functions()?;
        if self.command.first().is_some_and(|program| program.is_empty()) {
            return Err(RewardError::Config {
                key: "command",
                problem: "the program's name is empty".into(),
                fix: "write it as [\"python3\", \"my_reward.py\"]",
            });
        }
        match self.is_own() {
            true => self.validate_batches(),
            false => Ok(()),
        }
    }

    /// What programs and functions have in common.
    fn validate_batches(&self) -> Result<(), RewardError> {
        // Above a year Duration arithmetic would soon overflow, and nobody waits that long.
        if !(self.command_timeout_s > 0.0 && self.command_timeout_s <= 3.2e7) {
            return Err(RewardError::Config {
                key: "command_timeout_s",
                problem: format!("{} is not allowed", self.command_timeout_s),
                fix: "use a number of seconds above 0, for example 60",
            });
        }
        if self.command_batch_size == 0 {
            return Err(RewardError::Config {
                key: "command_batch_size",
                problem: "0 is not allowed".into(),
                fix: "use 1 or more, for example 256",
            });
        }
        Ok(())
    }

    /// Whether a program of the user's says the reward.
    pub fn is_own(&self) -> bool {
        !self.command.is_empty() || !self.functions.is_empty()
    }

    fn validate_functions(&self) -> Result<(), RewardError> {
        let need = |good: bool, key, problem: &str, fix| match good {
            true => Ok(()),
            false => Err(RewardError::Config { key, problem: problem.to_string(), fix }),
        };
        if self.functions.is_empty() {
            let unused = self.function_weights.is_empty();
            return need(unused, "function_weights", "there are no functions to weigh", "name them in reward.function");
        }
        need(self.command.is_empty(), "function", "there is a reward.command as well", "leave one of them out")?;
        need(!self.python.trim().is_empty(), "python", "names no program", "write \"python3\"")?;
        let (count, weights) = (self.functions.len(), self.function_weights.len());
        need(
            weights == 0 || weights == count,
            "function_weights",
            &format!("there are {weights} weights for {count} rewards"),
            "give one for each, or none",
        )?;
        need(
            self.function_weights.iter().all(|weight| weight.is_finite()),
            "function_weights",
            "a weight is not finite",
            "use finite numbers",
        )?;
        for name in self.functions.iter().filter(|name| !["rule", "judge"].contains(&name.as_str())) {
            let file = name.rsplit_once(':').map_or(name.as_str(), |(file, _)| file);
            need(
                file.ends_with(".py"),
                "function",
                &format!("{name:?} is no reward"),
                "write FILE.py:FUNCTION, \"rule\" or \"judge\"",
            )?;
        }
        if self.functions.iter().any(|name| name == "judge") {
            let judge = &self.judge;
            let is_address = judge.url.starts_with("http://") || judge.url.starts_with("https://");
            need(is_address, "judge.url", "is no address", "write http://HOST:PORT/v1, without /chat/completions")?;
            need(
                !judge.model.is_empty(),
                "judge.model",
                "names no model",
                "write the name that the server has for it",
            )?;
            need(judge.scale > 0.0, "judge.scale", "has to be above 0", "write the best mark, for example 10")?;
            let is_time = judge.timeout_s > 0.0 && judge.timeout_s <= 3.2e7;
            need(is_time, "judge.timeout_s", "is no time", "write seconds above 0, for example 60")?;
            need(judge.concurrency > 0, "judge.concurrency", "has to be 1 or more", "write for example 16")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_named_as_in_toml() {
        let config = RewardConfig::default();
        config.validate().unwrap();
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains(r#""reward_type":"math""#) && json.contains(r#""grader":"mathruler""#), "{json}");
        for name in ["math", "math_accuracy", "r1v", "dapo", "multiple_choice", "exact", "numeric"] {
            let parsed: RewardType = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(parsed, name.parse().unwrap());
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        assert!(serde_json::from_str::<RewardConfig>(r#"{"formt_weight": 1}"#).is_err());
        assert!("maths".parse::<Grader>().unwrap_err().contains("mathruler, math"));
        for json in [
            r#"{"format_weight": -1}"#,
            r#"{"numeric_tolerance": -1e-9}"#,
            r#"{"overlong": {"max_response_length": 10, "overlong_buffer_length": 11}}"#,
            r#"{"command": [""]}"#,
            r#"{"command": ["cat"], "command_timeout_s": 0}"#,
            r#"{"command": ["cat"], "command_batch_size": 0}"#,
        ] {
            let config: RewardConfig = serde_json::from_str(json).unwrap();
            assert!(config.validate().is_err(), "{json}");
        }
    }
}
