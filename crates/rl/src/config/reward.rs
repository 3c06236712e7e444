//! `[reward]`: what a response earns.

use ::reward::{FunctionStyle, Grader, JudgeConfig, OverlongConfig, RewardConfig, RewardType};
use toml::{Table, Value};

use super::Config;
use super::field::{Field, choices, mismatch, parse_value};
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
choices!(FunctionStyle {
    Auto = "auto",
    Batch = "batch",
    Sequential = "sequential",
    Verl = "verl",
    Trl = "trl",
});

/// Arguments of a function by their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FunctionArguments(pub Table);

impl Field for FunctionArguments {
    fn kind() -> String {
        "table".into()
    }
    fn schema() -> serde_json::Value {
        serde_json::json!({ "type": "object" })
    }
    fn from_value(value: &Value) -> Result<Self, String> {
        value.as_table().cloned().map(Self).ok_or_else(|| mismatch("a table such as { weight = 0.5 }", value))
    }
    fn to_text(&self) -> String {
        Value::Table(self.0.clone()).to_string()
    }
    fn from_text(text: &str) -> Result<Self, String> {
        // EasyR1's commands write JSON.
        let json = || serde_json::from_str::<Table>(text).ok().map(Value::Table);
        Self::from_value(&parse_value(text).or_else(json).unwrap_or_else(|| Value::String(text.to_string())))
    }
}

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
        /// Responses sent to that program before its answers are awaited. These three hold for functions, too.
        command_batch_size: usize = 256 => 1..=1_048_576,
        /// Programs, of the command or of each function, that run at once; batches are given out over them.
        num_processes: usize = 1 => 1..=256,
        /// A function of yours in Python, "FILE.py:NAME", in EasyR1's, verl's or TRL's signature (docs/grading.md); or
        /// a list of rewards that are added up, among them "rule" (`reward_type`) and "judge". A name left out is
        /// "main", as in EasyR1. Empty: none.
        function: Vec<String> = Vec::new(),
        /// Weights of those rewards, one for each. Empty: 1 for all.
        function_weights: Vec<f64> = Vec::new(),
        /// How functions are called: EasyR1's "batch" and "sequential", "verl", "trl"; "auto" goes by the file's
        /// REWARD_TYPE and the names of the parameters.
        function_style: FunctionStyle = FunctionStyle::Auto,
        /// Further arguments of functions, by their names.
        function_kwargs: FunctionArguments = FunctionArguments::default(),
        /// The Python that runs functions and the judge.
        python: String = String::from("python3"),
        /// Write pictures that the data holds as bytes to files while a batch is graded, so that a command or function
        /// gets a path of each; without this it gets those of pictures that are files.
        write_images: bool = false,
    }
    sections {
        /// The judge.
        judge: JudgeSection,
    }
}

section! {
    /// A judge behind an OpenAI-compatible address (`/chat/completions`), where `reward.function` names "judge": the
    /// last number of its reply over `scale`, between 0 and 1. A reply without a number earns 0 and is counted
    /// (`judge_refused`); an address that gives none ends the run after `retries`.
    pub struct JudgeSection {
        /// The address, for example "http://localhost:8000/v1".
        url: String = String::new(),
        /// The model's name there.
        model: String = String::new(),
        /// Environment variable that has the key. Empty: none is sent.
        api_key_env: String = String::new(),
        /// What it is asked: {prompt}, {response}, {ground_truth} and columns of the row in braces are filled in.
        /// Empty: for a mark from 0 to 10, beside the reference answer.
        prompt: String = String::new(),
        /// The best mark.
        scale: f64 = 10.0 => ..=1e6,
        /// Longest reply in tokens.
        max_tokens: usize = 512 => 1..=1_048_576,
        /// Seconds for one reply.
        timeout_s: f64 = 60.0 => ..=3.2e7,
        /// Further tries where the address is busy or does not answer.
        retries: usize = 3 => 0..=100,
        /// Questions that are asked at once.
        concurrency: usize = 16 => 1..=1024,
    }
}

impl RewardSection {
    /// Whether a program of the user's says the reward.
    pub(crate) fn is_own(&self) -> bool {
        !self.command.is_empty() || !self.function.is_empty()
    }

    /// Whether the built-in rule counts.
    pub(crate) fn uses_rule(&self) -> bool {
        !self.is_own() || self.function.iter().any(|name| name == "rule")
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
            functions: reward.function.clone(),
            function_weights: reward.function_weights.clone(),
            function_style: reward.function_style,
            // Tables of TOML are objects of JSON, but for dates, which become texts.
            function_kwargs: match serde_json::to_value(&reward.function_kwargs.0) {
                Ok(serde_json::Value::Object(arguments)) => arguments,
                _ => serde_json::Map::new(),
            },
            python: reward.python.clone(),
            num_processes: reward.num_processes,
            write_images: reward.write_images,
            judge: JudgeConfig {
                url: reward.judge.url.clone(),
                model: reward.judge.model.clone(),
                api_key_env: reward.judge.api_key_env.clone(),
                prompt: match reward.judge.prompt.as_str() {
                    "" => ::reward::JUDGE_PROMPT.to_string(),
                    own => own.to_string(),
                },
                scale: reward.judge.scale,
                max_tokens: reward.judge.max_tokens,
                timeout_s: reward.judge.timeout_s,
                retries: reward.judge.retries,
                concurrency: reward.judge.concurrency,
            },
        }
    }
}
