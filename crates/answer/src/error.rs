//! What can go wrong when a reward is built or asked.

use thiserror::Error;

/// Why nothing was scored. A wrong answer is never an error: it is a score of 0.
#[derive(Debug, Error)]
pub enum RewardError {
    /// A configured value is outside what it may be.
    #[error("reward.{key}: {problem}; {fix}")]
    Config {
        /// The key below `reward`, for example `format_weight`.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        fix: &'static str,
    },
    /// A reward that is a function of Rust's failed.
    #[error("reward function: {0}")]
    Function(String),
    /// A function of Python's, or its file, is not there or cannot be loaded.
    #[error("reward.function: `{function}`: {problem}")]
    FunctionLoad {
        /// `FILE.py:NAME`.
        function: String,
        /// What is missing, with what there is instead; a traceback where there is one.
        problem: String,
    },
    /// A function of Python's raised, or gave what is no score; not tried again, since it would be the same.
    #[error("reward.function: `{function}`: {problem}")]
    FunctionFailed {
        /// `FILE.py:NAME`.
        function: String,
        /// What is wrong, with the row and the traceback where there are any.
        problem: String,
    },
    /// The reward program could not be started.
    #[error("{key}: cannot start `{command}`: {source}; check that the program exists and may be executed")]
    CommandStart {
        /// The key that names the program.
        key: &'static str,
        /// The command line.
        command: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The reward program ended, or closed its output, before it had answered a batch; it had failed on it before, and
    /// been started again.
    #[error(
        "{key}: `{command}` {how} after {answered} of {expected} replies, as it had failed before a restart{stderr}"
    )]
    CommandDied {
        /// `reward.command` or `reward.function`.
        key: &'static str,
        /// The command line, or the function.
        command: String,
        /// How it ended, for example `exited with status 1`.
        how: String,
        /// Replies that arrived for this batch.
        answered: usize,
        /// Replies that the batch needs.
        expected: usize,
        /// The last lines of the program's stderr, ready to be appended.
        stderr: String,
    },
    /// The reward program did not answer a batch in time and was killed; it had failed on it before, and been started
    /// again.
    #[error(
        "{key}: `{command}` gave {answered} of {expected} replies within {seconds} s and was killed, as it had failed before a restart; raise reward.command_timeout_s, lower reward.command_batch_size, or make it faster (does it flush what it prints?){stderr}"
    )]
    CommandTimeout {
        /// `reward.command` or `reward.function`.
        key: &'static str,
        /// The command line, or the function.
        command: String,
        /// The time that it had, in seconds.
        seconds: f64,
        /// Replies that arrived for this batch.
        answered: usize,
        /// Replies that the batch needs.
        expected: usize,
        /// The last lines of the program's stderr, ready to be appended.
        stderr: String,
    },
    /// The reward program wrote a line that nothing had asked for.
    #[error(
        "{key}: `{command}` wrote a line too many {when}; write one line per response, and notes to stderr; the line was: {line}{stderr}"
    )]
    CommandSurplus {
        /// `reward.command` or `reward.function`.
        key: &'static str,
        /// The command line, or the function.
        command: String,
        /// When the line came, in words.
        when: String,
        /// The line, cut to a readable length.
        line: String,
        /// The last lines of the program's stderr, ready to be appended.
        stderr: String,
    },
    /// The reward program wrote something that is not a reply.
    #[error("{key}: `{command}` wrote a bad reply for response {index}: {problem}; the line was: {line}{stderr}")]
    CommandReply {
        /// `reward.command` or `reward.function`.
        key: &'static str,
        /// The command line, or the function.
        command: String,
        /// Position in the batch, from 0.
        index: usize,
        /// What is wrong with the line.
        problem: String,
        /// The line, cut to a readable length.
        line: String,
        /// The last lines of the program's stderr, ready to be appended.
        stderr: String,
    },
}
