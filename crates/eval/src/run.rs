//! A model answers a benchmark: rows are read and decoded ahead, asked in batches, graded and written as they are
//! finished.
//!
//! What is sampled depends on the seed, the benchmark, the row and the sample alone (`rl::sampler`), so neither the
//! batch size nor an interruption changes an answer.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use data::{BadRow, Prefetcher, Processor, Sample};
use model_qwen2vl::Kernels;
use model_qwen2vl::model::Prompt;
use rl::image_cache::ImageCache;
use rl::policy::Policy;
use rl::rollout::{FinishReason, Job, RolloutConfig, RolloutError, generate, never_sampled};
use rl::sampler::Sampling;
use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::log::AnswerLog;
use crate::record::Record;
use crate::task::{Asked, Task, bad};

/// How answers are made.
#[derive(Debug, Clone, PartialEq)]
pub struct Answering {
    /// Answers to each question.
    pub samples: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Length limit of an answer, in tokens.
    pub max_new_tokens: usize,
    /// Answers made at the same time; no influence on what they are.
    pub batch_size: usize,
    /// Prompt tokens in one prefill; no influence either.
    pub prefill_token_budget: usize,
}

impl Answering {
    /// What the answers depend on.
    pub fn settings(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("samples".into(), json!(self.samples));
        map.insert("temperature".into(), json!(self.sampling.temperature));
        map.insert("top_p".into(), json!(self.sampling.top_p));
        map.insert("seed".into(), json!(self.sampling.seed));
        map.insert("max_new_tokens".into(), json!(self.max_new_tokens));
        map
    }
}

/// What is needed of a model besides its weights.
#[derive(Debug)]
pub struct Context<'a> {
    /// Tokenizer and image processor.
    pub processor: &'a Processor,
    /// Ids that end an answer.
    pub eos: Vec<u32>,
    /// Positions that the model knows.
    pub max_positions: usize,
    /// Set by SIGINT and SIGTERM.
    pub interrupt: &'a AtomicBool,
}

/// What became of the rows that were not asked.
#[derive(Debug, Default)]
pub struct Aside {
    /// Rows that cannot be used, by row.
    pub rows: Vec<BadRow>,
    /// Rows of the file that are not part of the benchmark.
    pub others: usize,
}

/// Answers every row of `task` that `log` lacks. `progress` is told the rows done (answered, set aside or not part).
///
/// # Errors
/// [`EvalError::Interrupted`], and files that cannot be written. What was finished before is in the log.
pub fn answer<B: Kernels, P: Policy<B>>(
    policy: &P,
    task: &Task,
    answering: &Answering,
    context: &Context,
    log: &mut AnswerLog,
    mut progress: impl FnMut(usize),
) -> Result<Aside, EvalError> {
    let config = rollout_config(policy, answering, context);
    let todo: Vec<usize> = (0..task.rows).filter(|row| !log.has(*row)).collect();
    let mut done = task.rows - todo.len();
    progress(done);
    // Twice as many questions as fit, so that rows which finish early are refilled.
    let chunk = (2 * answering.batch_size / answering.samples).max(1);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let asker = task.asker.clone();
    let mut rows =
        Prefetcher::new(task.dataset.clone(), todo.into_iter(), workers, 2 * chunk, move |row| asker.ask(row));
    let mut aside = Aside::default();
    loop {
        let mut questions: Vec<(Sample, Prompt)> = Vec::new();
        while questions.len() < chunk {
            if context.interrupt.load(Ordering::Relaxed) {
                return Err(EvalError::Interrupted);
            }
            let Some((_, asked)) = rows.next() else { break };
            match asked {
                Asked::Other => aside.others += 1,
                Asked::Bad(row) => aside.rows.push(row),
                Asked::Question(question) => {
                    let (sample, encoded) = *question;
                    let grids = encoded.images.iter().map(|i| i.grid_thw).collect();
                    let pixels = encoded.images.into_iter().flat_map(|i| i.values).collect();
                    match policy.prompt(encoded.input_ids, pixels, grids) {
                        Ok(prompt) => match too_long(&prompt, answering, context) {
                            None => {
                                questions.push((sample, prompt));
                                continue;
                            }
                            Some(reason) => aside.rows.push(bad(&sample, &reason)),
                        },
                        Err(error) => aside.rows.push(bad(&sample, &error.to_string())),
                    }
                }
            }
            done += 1;
            progress(done);
        }
        if questions.is_empty() {
            aside.rows.sort_by_key(|row| row.index);
            return Ok(aside);
        }
        answer_batch(policy, task, &questions, &config, context, |records| {
            done += 1;
            let written = log.append(records);
            progress(done);
            written
        })?;
    }
}

fn too_long(prompt: &Prompt, answering: &Answering, context: &Context) -> Option<String> {
    let first = prompt.next_position() as usize;
    (first.saturating_add(answering.max_new_tokens) > context.max_positions).then(|| {
        format!(
            "the prompt takes {first} positions; with --max-new-tokens {} that is more than the model's \
             max_position_embeddings of {}",
            answering.max_new_tokens, context.max_positions
        )
    })
}

/// Answers some questions; `finished` gets the records of each as soon as its last answer ends.
fn answer_batch<B: Kernels, P: Policy<B>>(
    policy: &P,
    task: &Task,
    questions: &[(Sample, Prompt)],
    config: &RolloutConfig,
    context: &Context,
    mut finished: impl FnMut(Vec<Record>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let base = stream(&task.name);
    let jobs: Vec<Job> =
        questions.iter().map(|(sample, prompt)| Job { prompt, key: base ^ sample.index as u64 }).collect();
    let mut answers: Vec<Vec<Vec<u32>>> = questions.iter().map(|_| vec![Vec::new(); config.n]).collect();
    let mut open = vec![config.n; questions.len()];
    let mut failure = None;
    let ends = |ids: &[u32]| match ids.last() {
        Some(id) if config.eos.contains(id) => Some(FinishReason::Stop),
        _ if ids.len() >= config.max_new_tokens => Some(FinishReason::Length),
        _ => None,
    };
    let result = generate(policy, &jobs, config, &mut ImageCache::default(), context.interrupt, |job, index, id| {
        let ids = &mut answers[job][index];
        ids.push(id);
        if ends(ids).is_none() {
            return;
        }
        open[job] -= 1;
        if open[job] > 0 || failure.is_some() {
            return;
        }
        let group = std::mem::take(&mut answers[job]);
        let records: Result<Vec<Record>, EvalError> = group
            .iter()
            .enumerate()
            .map(|(k, ids)| record(task, &questions[job].0, k, ids, ends(ids), context.processor))
            .collect();
        if let Err(error) = records.and_then(&mut finished) {
            failure = Some(error);
            // Nothing that is made from now on could be kept.
            context.interrupt.store(true, Ordering::Relaxed);
        }
    });
    match (failure, result) {
        (Some(error), _) => Err(error),
        (None, Err(RolloutError::Interrupted)) => Err(EvalError::Interrupted),
        (None, Err(RolloutError::Device(error))) => Err(EvalError::Device(error)),
        (None, Err(error @ (RolloutError::Request(_) | RolloutError::Focus(_)))) => {
            Err(EvalError::Input(error.to_string()))
        }
        (None, Ok(_)) => Ok(()),
    }
}

fn record(
    task: &Task,
    sample: &Sample,
    index: usize,
    ids: &[u32],
    finish: Option<FinishReason>,
    processor: &Processor,
) -> Result<Record, EvalError> {
    let response = processor.decode(ids, true)?;
    let extracted = task.extract.answer(&response);
    let right = extracted.as_deref().is_some_and(|given| task.rule.is_right(given, &sample.answer, &sample.extra));
    Ok(Record {
        benchmark: task.name.clone(),
        row: sample.index,
        id: sample.id.clone(),
        sample: index,
        problem: sample.problem.clone(),
        answer: sample.answer.clone(),
        response,
        extracted,
        accuracy: f64::from(u8::from(right)),
        tokens: Some(ids.len()),
        finish,
        columns: sample.extra.clone(),
    })
}

/// Names a benchmark's streams of random numbers (FNV-1a); a row's is this with the row mixed in.
fn stream(name: &str) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
    // Rows change the low bits only; two benchmarks must not meet there.
    hash << 32
}

fn rollout_config<B: Kernels, P: Policy<B>>(policy: &P, answering: &Answering, context: &Context) -> RolloutConfig {
    RolloutConfig {
        n: answering.samples,
        sampling: answering.sampling.clone(),
        max_new_tokens: answering.max_new_tokens,
        min_new_tokens: 0,
        eos: context.eos.clone(),
        suppress: never_sampled(policy.vision_token_ids(), context.processor, policy.head().0.vocab()),
        focus: None,
        max_batch_rows: answering.batch_size.max(answering.samples),
        prefill_token_budget: answering.prefill_token_budget,
    }
}

/// What tells one model folder from another: its settings files, and of its weights the sizes, the headers and a sample
/// of the bytes, so that a checkpoint which was trained on is another model and gigabytes need not be read.
///
/// # Errors
/// Files that cannot be read.
pub fn fingerprint(folder: &Path) -> Result<String, EvalError> {
    use std::io::{Read, Seek, SeekFrom};
    const BLOCKS: u64 = 256;
    const BLOCK: usize = 4096;
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x100_0000_01B3).rotate_left(23);
        }
    };
    let entries = std::fs::read_dir(folder).map_err(EvalError::io(folder))?;
    let mut files =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(EvalError::io(folder))?;
    files.sort();
    for path in files.iter().filter(|p| p.is_file()) {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if !matches!(extension, "json" | "jinja" | "safetensors") {
            continue;
        }
        let fail = EvalError::io;
        let mut file = guard::file::open(path).map_err(fail(path))?;
        let length = file.metadata().map_err(fail(path))?.len();
        add(path.file_name().map(|n| n.as_encoded_bytes()).unwrap_or_default());
        add(&length.to_le_bytes());
        // Longer ones are no files that a model folder is read with.
        let whole = length <= BLOCKS * BLOCK as u64
            || extension != "safetensors" && length <= guard::limits().tokenizer_bytes.value;
        let mut buffer = vec![0u8; if whole { length as usize } else { BLOCK }];
        let starts = if whole { 1 } else { BLOCKS };
        for k in 0..starts {
            let last = u128::from(length.saturating_sub(BLOCK as u64));
            let at = if starts == 1 { 0 } else { (last * u128::from(k) / u128::from(starts - 1)) as u64 };
            file.seek(SeekFrom::Start(at)).map_err(fail(path))?;
            file.read_exact(&mut buffer).map_err(fail(path))?;
            add(&buffer);
        }
    }
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_another_model() {
        let tmp = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(tmp.path().join(name), bytes).unwrap();
        write("config.json", b"{}");
        write("model.safetensors", &[1; 5000]);
        write("README.md", b"x");
        let before = fingerprint(tmp.path()).unwrap();
        write("README.md", b"y");
        assert_eq!(fingerprint(tmp.path()).unwrap(), before);
        let mut weights = [1; 5000];
        weights[4321] = 2;
        write("model.safetensors", &weights);
        assert_ne!(fingerprint(tmp.path()).unwrap(), before);
        write("model.safetensors", &vec![0; 3 << 20]);
        let zeros = fingerprint(tmp.path()).unwrap();
        let mut weights = vec![0; 3 << 20];
        *weights.last_mut().unwrap() = 1;
        write("model.safetensors", &weights);
        assert_ne!(fingerprint(tmp.path()).unwrap(), zeros);
    }

    #[test]
    fn streams_of_benchmarks_do_not_meet() {
        assert_ne!(stream("mathverse"), stream("mathverse-v"));
        assert_eq!(stream("a") & 0xFFFF_FFFF, 0);
    }
}
