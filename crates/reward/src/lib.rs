//! Verifiable rewards: take a response, find its answer, decide whether it is right.
//!
//! | question | file |
//! |---|---|
//! | what can be configured | [`config`] |
//! | how a response becomes a [`Score`] | [`score`] |
//! | where in a response the answer is | [`extract`] |
//! | are two answers the same, exactly as mathruler says | [`mathruler`] |
//! | are two answers the same, mathematically | [`math`] |
//! | the exact algebra below both | `expr` |
//! | multiple choice, exact strings, numbers | [`simple`] |
//! | where the graders disagree, and about what | [`audit`] |
//! | a reward program of the user's own | `command` |
//!
//! Nothing here knows a tensor. Every grade ends within a bound of time and memory, whatever the strings are.
//!
//! ```
//! use reward::{Request, Reward, RewardConfig};
//!
//! let mut reward = Reward::new(&RewardConfig::default())?;
//! let response = r"<think>half of 3</think> \boxed{\frac{3}{2}}";
//! let scores = reward.score(&[Request { response, ground_truth: "3/2", response_length: 12, id: "a" }])?;
//! assert_eq!((scores[0].accuracy, scores[0].format, scores[0].overall), (1.0, 1.0, 1.0));
//! # Ok::<(), reward::RewardError>(())
//! ```

pub mod audit;
mod command;
pub mod config;
mod error;
mod expr;
pub mod extract;
mod letters;
pub mod math;
pub mod mathruler;
pub mod score;
pub mod simple;

pub use config::{Grader, OverlongConfig, RewardConfig, RewardType};
pub use error::RewardError;
pub use extract::extract_boxed;
pub use score::{Request, Reward, Score};
