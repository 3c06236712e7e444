//! The processes of a run as one job: how it starts, how it ends, and who says why.
//!
//! Where one rank cannot go on, none can: the others would wait in their next call for ever. So a rank that fails
//! reports to rank 0, whose thread here says one line for all and ends the job. It waits a moment for others before
//! that: an error that every rank has (a file that is not there) is said once and as it is, without a rank. A rank that
//! gets no answer says its line itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::launcher::{Launched, launcher};
use crate::ranks::Ranks;
use crate::transport::Transport;

/// So long does rank 0 wait for others that fail, too, before it ends the job.
const GATHER: Duration = Duration::from_millis(500);
/// So long does a rank wait for rank 0 to end the job, before it does so itself.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between the lines of two ranks that speak for themselves.
const APART: Duration = Duration::from_secs(8);
/// How often is looked for letters.
const TICK: Duration = Duration::from_millis(10);

/// A job that did not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A program without MPI under a launcher: each process would take itself for the whole run.
    #[error(
        "{0} ranks were launched, and this program was built without MPI: build it with --features mpi, for GPUs \
         `cargo build --release --features cuda,mpi` (docs/many-gpus.md)"
    )]
    NotBuilt(usize),
    /// MPI does not know of the launcher's other processes.
    #[error(
        "{launched} ranks were launched, of which MPI finds {found}: start them with the mpirun of the MPI that this \
         program was built with, or with `srun --mpi=pmix` (docs/many-gpus.md)"
    )]
    Apart {
        /// As the launcher says.
        launched: usize,
        /// As MPI says.
        found: usize,
    },
    /// An MPI that several threads may not call.
    #[error("this MPI gives {0} where MPI_THREAD_MULTIPLE is needed")]
    Threads(String),
    /// MPI was started before in this process.
    #[error("MPI was started already")]
    Twice,
}

/// Letters between processes, beside the collective calls.
pub(crate) trait Post: Send + Sync + std::fmt::Debug {
    /// Sends without waiting for anything.
    fn send(&self, to: usize, letter: &[u8]);
    /// The next letter and its sender, if one is there.
    fn receive(&self) -> Option<(usize, Vec<u8>)>;
    /// Ends MPI in this process, when all ranks do so; on the thread that started it.
    fn finalize(&self);
}

/// Why a rank cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The exit code of the job.
    pub code: i32,
    /// What a person reads after `error: `.
    pub text: String,
    /// The rank is named, unless all have the same fault; otherwise the text is about the whole run.
    pub of_rank: bool,
}

/// What a rank reports to rank 0.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct FaultReport {
    rank: usize,
    node: String,
    /// The process can end as programs do, if the others do so, too.
    orderly: bool,
    fault: Fault,
}

/// This process as one of a run.
#[derive(Debug)]
pub struct MpiJob {
    transport: Arc<dyn Transport>,
    post: Box<dyn Post>,
    /// The name of this machine.
    node: String,
    say: fn(&str),
    /// Reports of rank 0 itself, which go no further.
    own: Mutex<Vec<FaultReport>>,
    /// All ranks have the same fault and leave.
    leave: AtomicBool,
    /// The job is at its end: nobody reports any more.
    over: AtomicBool,
    clerk: Mutex<Option<JoinHandle<()>>>,
}

/// Starts MPI where a launcher has started several processes; without one nothing is touched, and the process is a run
/// of its own. To be called on the main thread. `say` shows a person why the job ends.
///
/// # Errors
/// [`StartError`] on all ranks alike.
pub fn start(say: fn(&str)) -> Result<Option<Arc<MpiJob>>, StartError> {
    start_in_pieces(say, None)
}

/// The same, for tests: no call carries more values or bytes than `piece`, so that a small one is made in many.
///
/// # Errors
/// As [`start`].
#[doc(hidden)]
pub fn start_in_pieces(say: fn(&str), piece: Option<usize>) -> Result<Option<Arc<MpiJob>>, StartError> {
    let Some(launched) = launcher() else { return Ok(None) };
    let (transport, post, node) = connect(launched, piece)?;
    let job = Arc::new(MpiJob {
        transport,
        post,
        node,
        say,
        own: Mutex::default(),
        leave: AtomicBool::new(false),
        over: AtomicBool::new(false),
        clerk: Mutex::default(),
    });
    if job.rank() == 0 {
        let own = job.clone();
        *lock(&job.clerk) = Some(std::thread::spawn(move || own.collect()));
    }
    Ok(Some(job))
}

/// What a process has of the others, and the name of its machine.
pub(crate) type Connected = (Arc<dyn Transport>, Box<dyn Post>, String);

#[cfg(feature = "mpi")]
fn connect(launched: Launched, piece: Option<usize>) -> Result<Connected, StartError> {
    crate::mpi::connect(launched, piece)
}

/// What the MPI that this program was built with calls itself; none where it was built without.
#[cfg(feature = "mpi")]
pub fn mpi_library() -> Option<String> {
    crate::mpi::library()
}

/// What the MPI that this program was built with calls itself; none where it was built without.
#[cfg(not(feature = "mpi"))]
pub fn mpi_library() -> Option<String> {
    None
}

#[cfg(not(feature = "mpi"))]
fn connect(launched: Launched, _: Option<usize>) -> Result<Connected, StartError> {
    Err(StartError::NotBuilt(launched.ranks))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn label(rank: usize, node: &str) -> String {
    format!("rank {rank} ({node})")
}

impl MpiJob {
    /// This rank.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// The name of this machine.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// `rank 3 (node2)`.
    pub fn label(&self) -> String {
        label(self.rank(), &self.node)
    }

    /// All ranks; with `check` each call first compares its name over them.
    pub fn ranks(&self, check: bool) -> Ranks {
        Ranks::new(self.transport.clone(), check)
    }

    /// Ends the run because of a fault. Comes back, with the exit code, only where all ranks have it: then each ends
    /// by itself, after [`finish`](Self::finish).
    pub fn fail(&self, fault: Fault) -> i32 {
        let code = fault.code;
        self.report(fault, true);
        code
    }

    /// Ends the run because of a fault that leaves this process in no state to go on: from any thread.
    pub fn end(&self, fault: Fault) -> ! {
        self.report(fault, false);
        std::process::abort() // is not reached: nobody is told to leave after a sudden fault
    }

    fn report(&self, fault: Fault, orderly: bool) {
        let report = FaultReport { rank: self.rank(), node: self.node.clone(), orderly, fault };
        let mine = self.line(std::slice::from_ref(&report));
        let code = report.fault.code;
        match (self.rank(), postcard::to_stdvec(&report)) {
            (0, _) | (_, Err(_)) => lock(&self.own).push(report),
            (_, Ok(letter)) => self.post.send(0, &letter),
        }
        // One after the other: the first one ends the job, and with it the others, to which a launcher gives some
        // seconds between the signal that asks and the one that does not.
        let patience = GATHER + PATIENCE + APART * self.rank() as u32;
        let since = Instant::now();
        while since.elapsed() < patience {
            // Nothing else is ever written to a rank but that it may leave.
            if orderly && (self.leave.load(Ordering::SeqCst) || self.rank() > 0 && self.post.receive().is_some()) {
                return;
            }
            std::thread::sleep(TICK);
        }
        (self.say)(&mine);
        self.transport.abort(code)
    }

    /// The thread of rank 0 that hears of faults, until the job is over.
    fn collect(&self) {
        let mut reports: Vec<FaultReport> = Vec::new();
        let mut first = None;
        let (mut looked, mut silent_until) = (Instant::now(), None::<Instant>);
        while !self.over.load(Ordering::SeqCst) {
            // A process that was stopped is woken to be ended: what it hears then, others have said.
            if looked.elapsed() > PATIENCE / 2 {
                silent_until = Some(Instant::now() + APART);
            }
            looked = Instant::now();
            reports.append(&mut lock(&self.own));
            while let Some((_, letter)) = self.post.receive() {
                reports.extend(postcard::from_bytes::<FaultReport>(&letter));
            }
            if !reports.is_empty() && silent_until.is_none_or(|until| until <= looked) {
                let since = *first.get_or_insert_with(Instant::now);
                let all = (0..self.transport.size()).all(|rank| reports.iter().any(|report| report.rank == rank));
                if all || since.elapsed() >= GATHER {
                    return self.decide(&reports, all);
                }
            }
            std::thread::sleep(TICK);
        }
    }

    fn decide(&self, reports: &[FaultReport], all: bool) {
        (self.say)(&self.line(reports));
        if !all || reports.iter().any(|report| !report.orderly || report.fault != reports[0].fault) {
            self.transport.abort(reports[0].fault.code);
        }
        (1..self.transport.size()).for_each(|rank| self.post.send(rank, b"leave"));
        self.leave.store(true, Ordering::SeqCst);
    }

    /// The first fault, and who has it.
    fn line(&self, reports: &[FaultReport]) -> String {
        let FaultReport { rank, node, fault, .. } = &reports[0];
        let same: std::collections::BTreeSet<usize> =
            reports.iter().filter(|other| other.fault == *fault).map(|other| other.rank).collect();
        match same.len() {
            _ if !fault.of_rank => fault.text.clone(),
            all if all == self.transport.size() => fault.text.clone(),
            1 => format!("{}: {}", label(*rank, node), fault.text),
            several => format!("{} and {} more: {}", label(*rank, node), several - 1, fault.text),
        }
    }

    /// Ends MPI, when all ranks have come here; on the thread that started it.
    pub fn finish(&self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(clerk) = lock(&self.clerk).take() {
            // Whose panic would have ended the job.
            let _ = clerk.join();
        }
        self.post.finalize();
    }
}
