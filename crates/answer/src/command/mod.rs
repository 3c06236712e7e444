//! A reward of the user's own: a program that speaks JSON lines.
//!
//! The program is started when the first batch is scored and then kept. A batch is at most `command_batch_size` lines
//! on its standard input, one JSON object per response:
//!
//! ```json
//! {"id":"geo_17","response":"<think>...</think> \\boxed{3}","ground_truth":"3","response_length":212}
//! ```
//!
//! and then as many lines are awaited on its standard output, in the same order:
//!
//! ```json
//! {"overall":0.9,"accuracy":1,"format":0,"extracted":"3","steps":4}
//! ```
//!
//! | key of a reply | meaning |
//! |---|---|
//! | `overall` | the reward, a finite number; the only key that must be there |
//! | `accuracy` | 1 right, 0 wrong, or anything between; `overall` when absent, because that is what validation then compares |
//! | `format` | 0 when absent |
//! | `extracted` | the answer that was found, a string or null |
//! | `id` | ignored, but when it is there it must be that of the request: so a script can prove that it keeps the order |
//! | any other number, `true` or `false` | a metric (1 and 0 for the last two) |
//! | other strings, lists, objects, null | ignored: room for notes to oneself |
//!
//! A program that ends, or does not answer a batch within `command_timeout_s`, is started again once and gets the whole
//! batch again; the second failure is an error. A reply that cannot be read is an error at once: it would be the same
//! again.

mod process;
mod reply;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::RewardConfig;
use crate::{Request, RewardError, Score};
use process::{Process, Received};

/// Longest piece of a bad line that an error shows, in characters.
const SHOWN: usize = 200;

/// The program, running or not.
#[derive(Debug)]
pub(crate) struct CommandReward {
    command: Vec<String>,
    timeout: Duration,
    batch_size: usize,
    process: Option<Process>,
}

/// What is sent for one response.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    response: &'a str,
    ground_truth: &'a str,
    response_length: usize,
}

/// How long a program may take to end when its input does.
const LAST_LINES: Duration = Duration::from_secs(2);

impl CommandReward {
    /// `config` has been validated. Nothing is started yet.
    pub(crate) fn new(config: &RewardConfig) -> Self {
        Self {
            command: config.command.clone(),
            timeout: Duration::from_secs_f64(config.command_timeout_s),
            batch_size: config.command_batch_size,
            process: None,
        }
    }

    /// Scores all requests, batch after batch, in order.
    pub(crate) fn score(&mut self, requests: &[Request]) -> Result<Vec<Score>, RewardError> {
        let mut scores = Vec::with_capacity(requests.len());
        for batch in requests.chunks(self.batch_size) {
            let mut lines = Vec::new();
            for &Request { id, response, ground_truth, response_length } in batch {
                // Writing strings and a number to memory cannot fail.
                let _ = serde_json::to_writer(&mut lines, &Line { id, response, ground_truth, response_length });
                lines.push(b'\n');
            }
            let replies = match self.attempt(batch, &lines) {
                Err(RewardError::CommandDied { .. } | RewardError::CommandTimeout { .. }) => {
                    self.attempt(batch, &lines)?
                }
                other => other?,
            };
            scores.extend(replies);
        }
        Ok(scores)
    }

    /// Ends the program when nothing more is to be scored, and refuses lines that nobody asked for: with them the
    /// replies were off.
    pub(crate) fn finish(&mut self) -> Result<(), RewardError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.close();
        match process.line(Instant::now() + LAST_LINES) {
            Received::Line(line) | Received::TooLong(line) => {
                process.kill();
                Err(RewardError::CommandSurplus {
                    command: self.shown(),
                    when: "after the last reply that was asked for".to_owned(),
                    line: cut(&line),
                    stderr: process.stderr(),
                })
            }
            Received::Nothing | Received::End => Ok(()),
        }
    }

    /// Sends a batch and reads its replies. After an error no process is left.
    fn attempt(&mut self, batch: &[Request], lines: &[u8]) -> Result<Vec<Score>, RewardError> {
        let mut process = match self.process.take() {
            Some(process) => process,
            None => Process::start(&self.command)
                .map_err(|source| RewardError::CommandStart { command: self.shown(), source })?,
        };
        let scores = self.exchange(&mut process, batch, lines)?;
        self.process = Some(process);
        Ok(scores)
    }

    fn exchange(&self, process: &mut Process, batch: &[Request], lines: &[u8]) -> Result<Vec<Score>, RewardError> {
        // A line that is already there was not asked for: the replies would all be one off.
        self.refuse_surplus(process, "before it was asked for anything more")?;
        let deadline = Instant::now() + self.timeout;
        process.send(lines.to_vec());
        let mut scores = Vec::with_capacity(batch.len());
        for (index, request) in batch.iter().enumerate() {
            match process.line(deadline) {
                Received::Line(line) => match reply::parse(&line, request.id) {
                    Ok(score) => scores.push(score),
                    Err(problem) => return Err(self.bad_reply(process, index, problem, &line)),
                },
                Received::TooLong(start) => {
                    let problem = format!("it is longer than {} MiB", process::MAX_LINE >> 20);
                    return Err(self.bad_reply(process, index, problem, &start));
                }
                Received::End => {
                    let how = process.end();
                    return Err(RewardError::CommandDied {
                        command: self.shown(),
                        how,
                        answered: index,
                        expected: batch.len(),
                        stderr: process.stderr(),
                    });
                }
                Received::Nothing => {
                    process.kill();
                    return Err(RewardError::CommandTimeout {
                        command: self.shown(),
                        seconds: self.timeout.as_secs_f64(),
                        answered: index,
                        expected: batch.len(),
                        stderr: process.stderr(),
                    });
                }
            }
        }
        self.refuse_surplus(process, &format!("after the {} replies that were asked for", batch.len()))?;
        Ok(scores)
    }

    fn refuse_surplus(&self, process: &mut Process, when: &str) -> Result<(), RewardError> {
        match process.line(Instant::now()) {
            Received::Line(line) | Received::TooLong(line) => {
                process.kill();
                Err(RewardError::CommandSurplus {
                    command: self.shown(),
                    when: when.to_owned(),
                    line: cut(&line),
                    stderr: process.stderr(),
                })
            }
            // A program that ended meanwhile is noticed when the batch is sent.
            Received::Nothing | Received::End => Ok(()),
        }
    }

    fn bad_reply(&self, process: &mut Process, index: usize, problem: String, line: &[u8]) -> RewardError {
        process.kill();
        RewardError::CommandReply { command: self.shown(), index, problem, line: cut(line), stderr: process.stderr() }
    }

    /// The command line, for errors.
    fn shown(&self) -> String {
        let quoted = |word: &String| match word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '\'') {
            true => format!("{word:?}"),
            false => word.clone(),
        };
        cut(self.command.iter().map(quoted).collect::<Vec<_>>().join(" ").as_bytes())
    }
}

/// The start of a line in a form that fits into a message: control characters and bytes that are not UTF-8 become
/// `\u{fffd}`.
fn cut(line: &[u8]) -> String {
    // A character has four bytes at most.
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN)]);
    let shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() || line.len() > 4 * SHOWN {
        format!("{shown}... ({} bytes)", line.len())
    } else {
        shown
    }
}
