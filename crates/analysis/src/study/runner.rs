//! Runs what is missing of a study, several runs at a time. How a run is trained is the caller's: a child process, or a
//! function. Several ranks deal the runs out among them: the warm starts first, then all others.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use comm::Ranks;
use rl::config::Config;
use run::layout;
use serde::{Deserialize, Serialize};

use super::plan::{Study, WARM, folder, settings};
use super::result::{self, RunResult};
use super::rows::StudyRow;
use super::{StudyError, report};

/// A run to train.
#[derive(Debug, Clone)]
pub struct RunToTrain {
    /// Its row, or [`WARM`].
    pub row: String,
    /// Its seed.
    pub seed: u64,
    /// File of its configuration.
    pub config_file: PathBuf,
    /// Where what it prints belongs.
    pub log: PathBuf,
    /// All others wait for it: it may have the whole machine.
    pub alone: bool,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Trained to the end.
    Done,
    /// Interrupted; a later call goes on with it.
    Interrupted,
    /// Failed for this reason.
    Failed(String),
}

/// What a call of the runner did, on all ranks together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Runs finished by this call.
    pub finished: usize,
    /// Runs that earlier calls had finished.
    pub skipped: usize,
    /// Runs that failed, with the reason. Rows of a failed warm start are not tried.
    pub failed: Vec<(String, String)>,
    /// Whether it was stopped before all runs were finished.
    pub interrupted: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum RunState {
    Waiting,
    Running,
    Done,
    Failed,
}

struct Tasks {
    list: Vec<(String, u64, RunState)>,
    /// Those of the list that this process trains, or that were trained before in its place.
    own: usize,
    outcome: Outcome,
    /// A failure of the study itself, such as a full disk.
    error: Option<StudyError>,
}

impl Tasks {
    /// The next run whose warm start is finished; the flag says whether any could still become ready.
    fn next(&mut self) -> (Option<(String, u64)>, bool) {
        let warm = |seed: u64| self.list.iter().find(|t| t.0 == WARM && t.1 == seed).map_or(RunState::Done, |t| t.2);
        let mut pending = false;
        for index in 0..self.list.len() {
            let (row, seed, state) = &self.list[index];
            if *state != RunState::Waiting {
                continue;
            }
            match if row == WARM { RunState::Done } else { warm(*seed) } {
                RunState::Done => {
                    let task = (row.clone(), *seed);
                    self.list[index].2 = RunState::Running;
                    return (Some(task), true);
                }
                RunState::Failed => {}
                RunState::Waiting | RunState::Running => pending = true,
            }
        }
        (None, pending)
    }

    /// Counts a run that has ended, says so, and tells what has become of it.
    fn ended(&mut self, row: &str, seed: u64, ended: EndedRun, note: &impl Fn(&str)) -> RunState {
        let state = match ended {
            Ok((Ended::Done, result)) => {
                self.outcome.finished += 1;
                let (done, total) = (self.outcome.finished + self.outcome.skipped, self.own);
                note(&format!("{row}, seed {seed}: {} ({done} of {total} runs)", summary(result.as_ref())));
                RunState::Done
            }
            Ok((Ended::Interrupted, _)) => RunState::Waiting,
            Ok((Ended::Failed(reason), _)) => {
                note(&format!("{row}, seed {seed}: failed: {reason}"));
                self.outcome.failed.push((format!("{row}, seed {seed}"), reason));
                RunState::Failed
            }
            Err(error) => {
                self.error.get_or_insert(error);
                RunState::Failed
            }
        };
        if let Some(task) = self.list.iter_mut().find(|t| t.0 == row && t.1 == seed) {
            task.2 = state;
        }
        state
    }
}

/// Trains every run of the study that has no result in `out`, `jobs` at a time on each of `ranks`, and writes the
/// report after each. The stages that warm starts share come before, where a warm start needs them.
///
/// `train` trains one job and may be called from several threads; `note` gets lines for a person. Once `stop` is set no
/// job is started any more; `train` has to see it as well.
///
/// # Errors
/// Results in `out` that belong to other settings, and whatever the file system refuses. A run that fails is no error
/// here but is named in the outcome; the others go on.
pub fn run(
    ranks: &Ranks,
    study: &Study,
    out: &Path,
    jobs: usize,
    stop: &AtomicBool,
    train: impl Fn(&RunToTrain) -> Ended + Sync,
    note: impl Fn(&str) + Sync,
) -> Result<Outcome, StudyError> {
    let base = match study.shared() {
        Some((shared, place)) if needs_warm_start(study, out)? => {
            note("the stages that all warm starts share");
            let (place, seed) = (out.join(place), shared.seeds().start);
            let outcome = run_grid(ranks, &shared, &place, jobs, stop, &train, &note)?;
            ranks.barrier("stages that warm starts share")?;
            match finished(&shared, &place, None, seed)? {
                Some(done) if outcome.failed.is_empty() && !outcome.interrupted => {
                    Some(study.after(place.join(done.weights)))
                }
                _ => return Ok(outcome),
            }
        }
        _ => None,
    };
    run_grid(ranks, base.as_ref().unwrap_or(study), out, jobs, stop, &train, &note)
}

/// Whether a warm start of this study has to be trained.
fn needs_warm_start(study: &Study, out: &Path) -> Result<bool, StudyError> {
    for seed in study.seeds() {
        match finished(study, out, None, seed)? {
            Some(warm) if out.join(&warm.weights).is_dir() || !lacks(study, out, seed)? => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

fn run_grid(
    ranks: &Ranks,
    study: &Study,
    out: &Path,
    jobs: usize,
    stop: &AtomicBool,
    train: &(impl Fn(&RunToTrain) -> Ended + Sync),
    note: &(impl Fn(&str) + Sync),
) -> Result<Outcome, StudyError> {
    let runs = Runs { study, out, jobs, stop, is_first: ranks.is_first() };
    let grid = study.grid()?;
    let outcome = match ranks.is_solo() {
        true => runs.finish(grid, |_, _| true, train, note)?,
        false => {
            let mine = |k: usize| k % ranks.size() == ranks.rank();
            let (warm, rest): (Vec<_>, Vec<_>) = grid.into_iter().partition(|(row, _)| row == WARM);
            let first = runs.finish(warm.clone(), |k, _| mine(k), train, note)?;
            ranks.barrier("warm starts")?;
            let begin = warm.len();
            let own = |k: usize, row: &str| row != WARM && mine(k - begin);
            let second = runs.finish([warm, rest].concat(), own, train, note)?;
            let all = ranks.gather("outcome", &first.and(second))?;
            all.into_iter().reduce(Outcome::and).unwrap_or_default()
        }
    };
    if runs.reports() {
        report::write(study, out)?;
    }
    Ok(outcome)
}

impl Outcome {
    /// What a call did, in a few lines for a person.
    pub fn text(&self, out: &Path) -> String {
        let mut text = format!("{} runs finished", self.finished);
        if self.skipped > 0 {
            let _ = write!(text, ", {} were finished before", self.skipped);
        }
        for (run, reason) in &self.failed {
            let _ = write!(text, "\nfailed: {run}: {reason}");
        }
        let _ = write!(text, "\nreport: {}\n", out.join("study.md").display());
        text
    }

    fn and(mut self, other: Self) -> Self {
        self.finished += other.finished;
        self.skipped += other.skipped;
        self.failed.extend(other.failed);
        self.interrupted |= other.interrupted;
        self
    }
}

/// How runs are trained.
struct Runs<'a> {
    study: &'a Study,
    out: &'a Path,
    jobs: usize,
    stop: &'a AtomicBool,
    /// Writes the report.
    is_first: bool,
}

impl Runs<'_> {
    /// Warm starts of a gate are no study of their own.
    fn reports(&self) -> bool {
        self.is_first && !self.study.rows.rows.is_empty()
    }

    /// What is known of the runs of `grid`, of which this process trains those for which `own` (of place and row) is
    /// true. Warm starts of others that are not there have failed or were interrupted.
    fn tasks(&self, grid: Vec<(String, u64)>, own: impl Fn(usize, &str) -> bool) -> Result<Tasks, StudyError> {
        let mut tasks = Tasks { list: vec![], own: 0, outcome: Outcome::default(), error: None };
        for (k, (row, seed)) in grid.into_iter().enumerate() {
            let own = own(k, &row);
            if !own && row != WARM {
                continue;
            }
            let fingerprint = self.study.fingerprint(self.study.row(&row), seed)?;
            let state = match RunResult::read(self.out, &row, seed, &fingerprint)? {
                Some(warm)
                    if own
                        && row == WARM
                        && !self.out.join(&warm.weights).is_dir()
                        && lacks(self.study, self.out, seed)? =>
                {
                    RunState::Waiting
                }
                Some(_) => RunState::Done,
                None if own => RunState::Waiting,
                None => RunState::Failed,
            };
            tasks.own += usize::from(own);
            tasks.outcome.skipped += usize::from(own && state == RunState::Done);
            tasks.list.push((row, seed, state));
        }
        Ok(tasks)
    }

    /// Trains what is missing.
    fn finish(
        &self,
        grid: Vec<(String, u64)>,
        own: impl Fn(usize, &str) -> bool,
        train: &(impl Fn(&RunToTrain) -> Ended + Sync),
        note: &(impl Fn(&str) + Sync),
    ) -> Result<Outcome, StudyError> {
        let tasks = self.tasks(grid, own)?;
        let Self { study, out, jobs, stop, .. } = *self;
        if self.reports() {
            report::write(study, out)?;
        }
        let tasks = Mutex::new(tasks);
        let changed = Condvar::new();
        let lock = || tasks.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let mut guard = lock();
                        let (row, seed) = loop {
                            if stop.load(Ordering::Relaxed) || guard.error.is_some() {
                                return;
                            }
                            match guard.next() {
                                (Some(task), _) => break task,
                                (None, true) => guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
                                (None, false) => return,
                            }
                        };
                        drop(guard);
                        note(&format!("{row}, seed {seed}: started"));
                        let ended = one(study, out, &row, seed, train);
                        let mut guard = lock();
                        let state = guard.ended(&row, seed, ended, note);
                        if state == RunState::Done
                            && self.reports()
                            && let Err(error) = report::write(study, out)
                        {
                            guard.error.get_or_insert(error);
                        }
                        changed.notify_all();
                        if state == RunState::Waiting {
                            return; // interrupted: `stop` is set or is about to be
                        }
                    }
                });
            }
        });
        let tasks = tasks.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = tasks.error {
            return Err(error);
        }
        let mut outcome = tasks.outcome;
        outcome.interrupted = tasks.list.iter().any(|t| t.2 == RunState::Waiting) && stop.load(Ordering::Relaxed);
        Ok(outcome)
    }
}

/// A finished run in one line. What was asked afterwards are other items than those of the validations.
fn summary(result: Option<&RunResult>) -> String {
    let Some(r) = result else { return "done".into() };
    let trained = match (r.curve.first(), r.curve.last()) {
        (Some(first), Some(last)) => format!(
            "validation accuracy {:.1}% -> {:.1}% in {:.0} s",
            100.0 * first.accuracy,
            100.0 * last.accuracy,
            r.seconds
        ),
        _ => format!("{} steps in {:.0} s", r.steps, r.seconds),
    };
    match &r.outcomes {
        Some(o) => format!("{trained}, then right in {:.1}% of {} items", 100.0 * o.accuracy(), o.items),
        None => trained,
    }
}

type EndedRun = Result<(Ended, Option<RunResult>), StudyError>;

/// Trains one run and writes its result.
fn one(study: &Study, out: &Path, row: &str, seed: u64, train: &impl Fn(&RunToTrain) -> Ended) -> EndedRun {
    let own = study.row(row);
    let fingerprint = study.fingerprint(own, seed)?;
    let config = match own {
        None => study.warm(seed, out)?,
        Some(own) => {
            let warm = finished(study, out, None, seed)?;
            study.run(own, seed, out, warm.map(|w| out.join(w.weights)).as_deref())?
        }
    };
    let folder = folder(out, row, seed);
    std::fs::create_dir_all(&folder).map_err(StudyError::io(&folder))?;
    let text = config.to_toml();
    // A half-finished run goes on only with the settings that it began with.
    let kept = folder.join(layout::CONFIG);
    if guard::file::read_text(&kept, guard::limits().record_bytes)
        .is_ok_and(|earlier| settings(&earlier) != settings(&text))
    {
        return Err(StudyError::OtherSettings { path: folder });
    }
    if let Some(outcomes) = &study.rows.outcomes {
        outcomes.order(&folder)?;
    }
    let config_file = folder.join("study.toml");
    result::write(&config_file, &text)?;
    let job = RunToTrain { row: row.into(), seed, config_file, log: folder.join("log.txt"), alone: study.is_shared() };
    let ended = train(&job);
    if ended != Ended::Done {
        return Ok((ended, None));
    }
    let result = RunResult::collect(out, &folder, row, seed, &fingerprint, rollouts_a_round(&config))?;
    if own.is_none() && is_another(study, out, &result)? {
        let reason = "trained again for its weights, it came out otherwise than the one that finished rows of this seed \
                      began with: delete their results, or run them all on one kind of machine";
        return Ok((Ended::Failed(reason.into()), None));
    }
    // What is left to do with the run needs its weights, not the optimizer's state.
    let moments = out.join(&result.weights).with_file_name(layout::OPTIMIZER);
    match std::fs::remove_file(&moments) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(StudyError::io(moments)(e)),
        _ => {}
    }
    result.write(out)?;
    Ok((Ended::Done, Some(result)))
}

/// The result of a row, or of the warm start, and a seed, if it is finished.
fn finished(study: &Study, out: &Path, row: Option<&StudyRow>, seed: u64) -> Result<Option<RunResult>, StudyError> {
    let name = row.map_or(WARM, |row| &row.name);
    RunResult::read(out, name, seed, &study.fingerprint(row, seed)?)
}

/// Whether the weights of a seed's warm start are needed: a row has no result yet. Shared stages are run only where
/// they are needed.
fn lacks(study: &Study, out: &Path, seed: u64) -> Result<bool, StudyError> {
    for row in study.rows_of(seed) {
        if finished(study, out, Some(row), seed)?.is_none() {
            return Ok(true);
        }
    }
    Ok(study.is_shared())
}

/// Whether finished rows, or warm starts, began from another warm start than this one, made of the same settings.
fn is_another(study: &Study, out: &Path, warm: &RunResult) -> Result<bool, StudyError> {
    let Some(earlier) = finished(study, out, None, warm.seed)? else { return Ok(false) };
    let mut used = study.is_shared();
    for row in &study.rows.rows {
        used |= finished(study, out, Some(row), warm.seed)?.is_some();
    }
    Ok(used && (earlier.steps, &earlier.outcomes) != (warm.steps, &warm.outcomes))
}

fn rollouts_a_round(config: &Config) -> u64 {
    (config.data.rollout_batch_size * config.rollout.n) as u64
}
