//! A run as a child process: it stops with a checkpoint when the pipe that its parent holds is closed, however the
//! parent ended.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Ended, RunToTrain};

/// The exit code of an interrupted run, which goes on from its checkpoint.
const INTERRUPTED: i32 = 130;

/// What a child gets of the machine.
#[derive(Debug, Clone)]
pub struct ChildPlace {
    /// Threads, where several run at a time.
    pub threads: usize,
    /// Threads, where it runs alone.
    pub cores: usize,
    /// The CUDA devices that it sees, where it is not to see all; see `CUDA_VISIBLE_DEVICES`.
    pub cards: Option<String>,
    /// The program that trains, as this one was started, without arguments.
    pub program: fn() -> io::Result<Command>,
}

fn spawn(job: &RunToTrain, place: &ChildPlace) -> io::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(&job.log)?;
    let mut command = (place.program)()?;
    // A child is a run of its own, also where its parent is one of several ranks.
    comm::launcher_variables().for_each(|name| _ = command.env_remove(name));
    if let Some(cards) = &place.cards {
        command.env("CUDA_VISIBLE_DEVICES", cards);
    }
    let threads = if job.alone { place.cores } else { place.threads };
    command
        .arg("--run")
        .arg(&job.config_file)
        .env("RAYON_NUM_THREADS", threads.to_string())
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// The parent's side: trains a run by this program, called with `--run FILE`, and waits for it. `stop` asks it for a
/// checkpoint.
pub fn train(job: &RunToTrain, place: &ChildPlace, stop: &AtomicBool) -> Ended {
    let mut child = match spawn(job, place) {
        Ok(child) => child,
        Err(error) => return Ended::Failed(format!("cannot be started: {error}")),
    };
    let mut pipe = child.stdin.take();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => {}
            Err(error) => return Ended::Failed(format!("cannot be waited for: {error}")),
        }
        if stop.load(Ordering::Relaxed) {
            pipe = None; // closing it asks the child for a checkpoint
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    drop(pipe);
    match status.code() {
        Some(0) => Ended::Done,
        Some(INTERRUPTED) => Ended::Interrupted,
        _ if stop.load(Ordering::Relaxed) => Ended::Interrupted,
        _ => {
            let text = guard::file::read_text(&job.log, guard::limits().record_bytes).unwrap_or_default();
            let reason = text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it says nothing");
            Ended::Failed(format!("{status}: {reason} (see {})", job.log.display()))
        }
    }
}

/// The child's side: sets `stop` when the parent closes its end of the pipe, which is standard input here.
///
/// # Errors
/// A system that starts no thread.
pub fn stop_with_parent(stop: Arc<AtomicBool>) -> io::Result<()> {
    let watch = move || {
        // The parent writes nothing: reading ends when its end of the pipe is closed.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        stop.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new().spawn(watch).map(drop)
}
