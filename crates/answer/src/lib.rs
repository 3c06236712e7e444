//! Takes a response, finds its answer, decides whether it is right. Usable alone: nothing here knows a tensor or a
//! model, and every grade ends within a bound of time and memory, whatever the strings are.
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
//! | reward functions of Python's, a judge, weighted sums | `function` |
//! | the program `grade` | `grade` |
//!
//! ```
//! assert_eq!(answer::extract_boxed(r"so it is \boxed{\frac{3}{2}}"), Some(r"\frac{3}{2}"));
//! assert!(answer::math::equal(r"\frac{3}{2}", "1.5"));
//! assert!(answer::mathruler::grade_answer("1,000", "1000"));
//! ```
//!
//! With a rule of a configuration's `[reward]` table:
//!
//! ```
//! use answer::{Request, Scorer, RewardConfig};
//!
//! let mut scorer = Scorer::new(&RewardConfig::default())?;
//! let response = r"<think>half of 3</think> \boxed{\frac{3}{2}}";
//! let scores = scorer.score(&[Request { response, ground_truth: "3/2", response_length: 12, id: "a", row: None }])?;
//! assert_eq!((scores[0].accuracy, scores[0].format, scores[0].overall), (1.0, 1.0, 1.0));
//! # Ok::<(), answer::RewardError>(())
//! ```

pub mod audit;
mod command;
pub mod config;
mod error;
mod expr;
pub mod extract;
mod function;
#[cfg(feature = "program")]
pub mod grade;
mod letters;
pub mod math;
pub mod mathruler;
pub mod score;
pub mod simple;

pub use config::{FunctionStyle, Grader, JudgeConfig, OverlongConfig, RewardConfig, RewardType};
pub use error::RewardError;
pub use extract::extract_boxed;
pub use score::{Request, RewardRow, Score, Scorer};
