//! The thread that watches a run: it leaves signs of life, ends a run whose ranks wait in vain, and looks for a file
//! that asks for the end.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comm::{Fault, Job, Ranks};
use rl::progress::Whereabouts;
use run::heartbeat::{Call, Heartbeat, late, now};
use run::layout::{RANKS, STOP};

use super::Failure;

/// The exit code of a run that was ended because its ranks waited in vain: that of a failure that may pass.
const HUNG: i32 = 75;
/// The thread looks this often whether there is something to do.
const TICK: Duration = Duration::from_millis(100);
/// How often it looks for the file.
const LOOK: Duration = Duration::from_secs(1);
/// How often it leaves a sign of life, unless a run may not even wait so long.
const BEAT: Duration = Duration::from_secs(10);

/// What is watched.
pub(crate) struct Watched {
    /// The ranks of the run.
    pub ranks: Ranks,
    /// The run folder.
    pub root: PathBuf,
    /// Where the run is.
    pub whereabouts: Arc<Mutex<Whereabouts>>,
    /// Set to stop after a checkpoint.
    pub interrupt: Arc<AtomicBool>,
    /// For how long a rank may wait.
    pub timeout: Duration,
}

/// The thread, until it is dropped.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it. A file that asks for the end and was left from before is removed.
    ///
    /// # Errors
    /// A system that gives no thread.
    pub(crate) fn start(watched: Watched, job: Option<Arc<Job>>) -> Result<Self, Failure> {
        if watched.ranks.is_first() {
            let _ = std::fs::remove_file(watched.root.join(STOP)); // mostly it is not there
        }
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let watch = move || watched.watch(job.as_deref(), &until);
        let thread = std::thread::Builder::new().name("watch".into()).spawn(watch);
        Ok(Self { over, thread: Some(thread.map_err(|e| Failure::other(guard::stack::no_thread(e)))?) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Its panic was said, and would have ended a run of several ranks.
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn watch(&self, job: Option<&Job>, over: &AtomicBool) {
        let period = BEAT.min(self.timeout / 3);
        let (mut looked, mut beaten) = (None::<Instant>, None::<Instant>);
        let due = |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
        while !over.load(Ordering::SeqCst) {
            if self.ranks.is_first() && due(looked, LOOK) {
                looked = Some(Instant::now());
                self.look();
            }
            if let Some(job) = job {
                if due(beaten, period) {
                    beaten = Some(Instant::now());
                    // A disk that is full is the run's own affair; the line about a hang says less then.
                    let _ = self.beat(job).write(&self.root);
                }
                self.end_if_hung(job, period);
            }
            std::thread::sleep(TICK);
        }
    }

    /// Honours the file that asks for the end.
    fn look(&self) {
        let path = self.root.join(STOP);
        if path.exists() && !self.interrupt.swap(true, Ordering::Relaxed) {
            eprintln!("stopping, as {} asks: a checkpoint is written first", path.display());
            if let Err(error) = std::fs::remove_file(&path) {
                eprintln!("warning: {} cannot be removed ({error}); the next start does it", path.display());
            }
        }
    }

    fn call(&self) -> Option<Call> {
        let waiting = self.ranks.waiting()?;
        Some(Call { number: waiting.number, name: waiting.name.into(), waited_s: waiting.since.as_secs_f64() })
    }

    fn beat(&self, job: &Job) -> Heartbeat {
        let at = self.whereabouts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Heartbeat {
            rank: job.rank(),
            node: job.node().to_owned(),
            pid: std::process::id(),
            stage: at.stage,
            step: at.step,
            phase: at.phase.map_or("", |phase| phase.as_str()).to_owned(),
            phase_s: at.since.elapsed().as_secs_f64(),
            call: self.call(),
            at: now(),
        }
    }

    fn end_if_hung(&self, job: &Job, period: Duration) {
        let Some(call) = self.call().filter(|call| call.waited_s > self.timeout.as_secs_f64()) else { return };
        let who = late(&self.root, self.ranks.size(), (job.rank(), &call), period);
        let text = format!("{who}; the run is ended, as parallel.timeout_s = {}", self.timeout.as_secs_f64());
        job.end(Fault { code: HUNG, text, of_rank: false })
    }
}

/// Removes what ranks have said of themselves: the run is over.
pub(crate) fn clear(root: &std::path::Path) {
    let _ = std::fs::remove_dir_all(root.join(RANKS)); // what stays does no harm
}
