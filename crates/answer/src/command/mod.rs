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

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::RewardConfig;
use crate::{Request, RewardError, Score};
use process::{Process, Received};

/// Longest piece of a bad line that an error shows, in characters.
const SHOWN: usize = 200;

/// A program, as many times as it runs at once.
#[derive(Debug)]
pub(crate) struct CommandReward {
    workers: Vec<CommandWorker>,
    batch_size: usize,
}

/// One program, running or not.
#[derive(Debug)]
struct CommandWorker {
    program: RewardProgram,
    timeout: Duration,
    process: Option<Process>,
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct RewardProgram {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// The function of Python's that it runs for us: it says when it is ready, is told how long a batch is, and says
    /// what went wrong in a reply. None for a program of the user's.
    pub(crate) function: Option<String>,
}

/// What is sent for one response.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    response: &'a str,
    ground_truth: &'a str,
    response_length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<&'a [PathBuf]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<&'a BTreeMap<String, String>>,
}

/// How long a program may take to end when its input does.
const LAST_LINES: Duration = Duration::from_secs(2);

impl CommandReward {
    /// `config` has been validated. Nothing is started yet.
    pub(crate) fn new(program: &RewardProgram, config: &RewardConfig) -> Self {
        let timeout = Duration::from_secs_f64(config.command_timeout_s);
        let worker = || CommandWorker { program: program.clone(), timeout, process: None };
        Self {
            workers: (0..config.num_processes.max(1)).map(|_| worker()).collect(),
            batch_size: config.command_batch_size,
        }
    }

    /// Starts the first program, so that one that cannot run is known before anything is scored.
    pub(crate) fn start(&mut self) -> Result<(), RewardError> {
        let worker = &mut self.workers[0];
        worker.process = Some(worker.started()?);
        Ok(())
    }

    /// Scores all requests; batches are given out over the programs, and the scores come in the order of the requests.
    pub(crate) fn score(&mut self, requests: &[Request]) -> Result<Vec<Score>, RewardError> {
        let each = requests.len().div_ceil(self.workers.len()).clamp(1, self.batch_size);
        let batches: Vec<&[Request]> = requests.chunks(each).collect();
        let mut scores = Vec::with_capacity(requests.len());
        if self.workers.len() == 1 || batches.len() < 2 {
            for batch in batches {
                scores.extend(self.workers[0].score(batch)?);
            }
            return Ok(scores);
        }
        let next = AtomicUsize::new(0);
        let results: Vec<_> = batches.iter().map(|_| Mutex::new(None)).collect();
        std::thread::scope(|scope| {
            for worker in &mut self.workers {
                scope.spawn(|| {
                    while let index = next.fetch_add(1, Ordering::Relaxed)
                        && let (Some(batch), Some(place)) = (batches.get(index), results.get(index))
                    {
                        let result = worker.score(batch);
                        if result.is_err() {
                            // The others end with what they have.
                            next.store(batches.len(), Ordering::Relaxed);
                        }
                        *place.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
                    }
                });
            }
        });
        let mut results: Vec<_> =
            results.into_iter().map(|r| r.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)).collect();
        if let Some(failed) = results.iter().position(|result| matches!(result, Some(Err(_))))
            && let Some(Err(error)) = results.swap_remove(failed)
        {
            return Err(error);
        }
        for result in results.into_iter().flatten() {
            scores.extend(result?);
        }
        Ok(scores)
    }

    /// Ends the programs when nothing more is to be scored, and refuses lines that nobody asked for: with them the
    /// replies were off.
    pub(crate) fn finish(&mut self) -> Result<(), RewardError> {
        self.workers.iter_mut().try_for_each(CommandWorker::finish)
    }
}

impl CommandWorker {
    fn score(&mut self, batch: &[Request]) -> Result<Vec<Score>, RewardError> {
        let mut lines = Vec::new();
        if self.program.function.is_some() {
            lines.extend(format!("{{\"count\": {}}}\n", batch.len()).bytes());
        }
        for &Request { id, response, ground_truth, response_length, row } in batch {
            let line = Line {
                id,
                response,
                ground_truth,
                response_length,
                prompt: row.map(|row| row.prompt.as_str()),
                images: row.map(|row| row.images.as_slice()),
                columns: row.map(|row| &row.columns),
            };
            // Writing strings and a number to memory cannot fail.
            let _ = serde_json::to_writer(&mut lines, &line);
            lines.push(b'\n');
        }
        match self.attempt(batch, &lines) {
            Err(RewardError::CommandDied { .. } | RewardError::CommandTimeout { .. }) => self.attempt(batch, &lines),
            other => other,
        }
    }

    /// A program that has just been started; of a function, one that is ready.
    fn started(&self) -> Result<Process, RewardError> {
        let start = Process::start(&self.program.command);
        let mut process = start.map_err(|source| match &self.program.function {
            None => RewardError::CommandStart { key: self.key(), command: self.shown(), source },
            Some(_) => {
                let command = self.program.command.first().cloned().unwrap_or_default();
                RewardError::CommandStart { key: "reward.python", command, source }
            }
        })?;
        if self.program.function.is_some() {
            match process.line(Instant::now() + self.timeout) {
                Received::Line(line) => {
                    if let Some(problem) = reply::failure(&line) {
                        process.kill();
                        let problem = guard::harmless(&problem);
                        return Err(RewardError::FunctionLoad { function: self.shown(), problem });
                    }
                }
                Received::TooLong(_) | Received::End => {
                    let how = process.end();
                    return Err(self.unready(&process, &format!("Python {how} before the function was ready")));
                }
                Received::Nothing => {
                    process.kill();
                    let seconds = self.timeout.as_secs_f64();
                    let late = format!("it was not ready within {seconds} s; raise reward.command_timeout_s");
                    return Err(self.unready(&process, &late));
                }
            }
        }
        Ok(process)
    }

    /// A function that was never asked: nothing of it is tried again, as it would be the same.
    fn unready(&self, process: &Process, problem: &str) -> RewardError {
        RewardError::FunctionLoad { function: self.shown(), problem: format!("{problem}{}", process.stderr()) }
    }

    fn finish(&mut self) -> Result<(), RewardError> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.close();
        match process.line(Instant::now() + LAST_LINES) {
            Received::Line(line) | Received::TooLong(line) => {
                process.kill();
                Err(RewardError::CommandSurplus {
                    key: self.key(),
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
            None => self.started()?,
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
                    Err(problem) => {
                        let failure = self.program.function.as_ref().and_then(|_| reply::failure(&line));
                        return Err(match failure {
                            Some(failure) => self.failed(process, failure),
                            None => self.bad_reply(process, index, problem, &line),
                        });
                    }
                },
                Received::TooLong(start) => {
                    let problem = format!("it is longer than {} MiB", process::MAX_LINE >> 20);
                    return Err(self.bad_reply(process, index, problem, &start));
                }
                Received::End => {
                    let how = process.end();
                    return Err(self.died(process, how, [index, batch.len()]));
                }
                Received::Nothing => return Err(self.late(process, [index, batch.len()])),
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
                    key: self.key(),
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
        let (key, command) = (self.key(), self.shown());
        RewardError::CommandReply { key, command, index, problem, line: cut(line), stderr: process.stderr() }
    }

    fn died(&self, process: &mut Process, how: String, [answered, expected]: [usize; 2]) -> RewardError {
        let (key, command) = (self.key(), self.shown());
        RewardError::CommandDied { key, command, how, answered, expected, stderr: process.stderr() }
    }

    fn late(&self, process: &mut Process, [answered, expected]: [usize; 2]) -> RewardError {
        process.kill();
        let (key, command, seconds) = (self.key(), self.shown(), self.timeout.as_secs_f64());
        RewardError::CommandTimeout { key, command, seconds, answered, expected, stderr: process.stderr() }
    }

    fn failed(&self, process: &mut Process, problem: String) -> RewardError {
        process.kill();
        RewardError::FunctionFailed { function: self.shown(), problem: guard::harmless(&problem) }
    }

    /// The key that names what is run.
    fn key(&self) -> &'static str {
        if self.program.function.is_some() { "reward.function" } else { "reward.command" }
    }

    /// The function, or the command line, for errors.
    fn shown(&self) -> String {
        if let Some(function) = &self.program.function {
            return guard::echo(function);
        }
        let quoted = |word: &String| match word.is_empty() || word.contains(|c: char| c.is_whitespace() || c == '\'') {
            true => format!("{word:?}"),
            false => word.clone(),
        };
        cut(self.program.command.iter().map(quoted).collect::<Vec<_>>().join(" ").as_bytes())
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
