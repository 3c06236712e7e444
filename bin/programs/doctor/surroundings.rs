//! What stands around a device: the machine, disks, drivers, MPI, ports, the hub. Each is looked at within seconds, and
//! what does not answer is a finding of its own; nothing here computes.

mod cards;
mod disk;
mod machine;
mod network;

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use burn::tensor::DType;
use comm::{MpiJob, Ranks};
use doctor::{Finding, Verdict};
use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};
use rl::config::{Config, Dtype};

use crate::common::Failure;

/// Longest that anything outside of this process may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// What a run asks of the machine, as far as a run was named.
pub(super) struct RunNeeds<'a> {
    /// The run.
    pub run: Option<&'a Config>,
    /// Bytes of one of its checkpoints.
    pub checkpoint: Option<usize>,
}

impl<'a> RunNeeds<'a> {
    /// By what `run` says; `architecture` is its model's.
    ///
    /// # Errors
    /// A run that names no algorithm.
    pub(super) fn of(run: Option<&'a Config>, architecture: &model_qwen2vl::QwenVlConfig) -> Result<Self, Failure> {
        let checkpoint = run.map(|run| -> Result<usize, Failure> {
            let dtype = if run.trainer.dtype == Dtype::F32 { DType::F32 } else { DType::BF16 };
            let shapes = ModelShapes::of_run(run, architecture, dtype)?;
            let plan = MemoryPlan::new(run, &shapes, RankGrid::ALONE, ZeroStage::Off, 0)?;
            Ok(plan.checkpoint(&shapes, RankGrid::ALONE))
        });
        Ok(Self { run, checkpoint: checkpoint.transpose()? })
    }
}

/// Everything, in order; `say` is told of each finding as it comes. All ranks call it together.
///
/// # Errors
/// A rank that is gone.
pub(super) fn examine(
    asked: &RunNeeds,
    (job, ranks): (Option<&MpiJob>, &Ranks),
    mut say: impl FnMut(&Finding),
) -> Result<Vec<Finding>, Failure> {
    let mut all = Vec::new();
    let mut add = |finding: Finding| {
        say(&finding);
        all.push(finding);
    };
    machine::examine(asked, &mut add);
    disk::examine(asked, &mut add);
    cards::examine(ranks, &mut add);
    mpi(job, &mut add);
    if let Some(job) = job {
        add(peers(job, ranks)?);
    }
    network::examine(&mut add);
    asked.run.into_iter().for_each(|run| add(data(run)));
    Ok(all)
}

/// What `ask` finds out, unless it takes too long: names are looked up by the system, which knows no limit. The thread
/// is left behind.
fn in_time<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more where it took too long.
        let _ = send.send(ask());
    });
    receive.recv_timeout(LIMIT).ok()
}

/// The first line that a program prints; none where it is not there, fails, or does not end.
fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // It would take itself for a rank.
    comm::launcher_variables().for_each(|name| {
        command.env_remove(name);
    });
    let mut child = command.spawn().ok()?;
    let clock = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(None) if clock.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                // It may have ended in between; its end is waited for in any case.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(|line| line.trim().to_string())
}

/// MPI as this program has it, and the launcher that is there.
fn mpi(job: Option<&MpiJob>, add: &mut impl FnMut(Finding)) {
    let launcher = first_line("mpirun", &["--version"]);
    let named = launcher.as_deref().map_or("no mpirun was found in PATH".into(), |line| format!("mpirun: {line}"));
    let (verdict, found, to_do) = match (comm::mpi_library(), job) {
        (Some(library), Some(job)) => {
            let ranks = job.ranks(false).size();
            (Verdict::Right, format!("built with {library}; {ranks} ranks; {named}"), "")
        }
        (Some(library), None) if launcher.is_some() => {
            (Verdict::Right, format!("built with {library}; one process; {named}"), "")
        }
        (Some(library), None) => (
            Verdict::Warning,
            format!("built with {library}; {named}"),
            "for runs on several devices put the mpirun of that MPI into PATH, or start them with srun --mpi=pmix",
        ),
        (None, _) => (
            Verdict::NotHere,
            format!("this program was built without it (--features mpi), and runs on one device; {named}"),
            "",
        ),
    };
    add(Finding::around("mpi", verdict, found, to_do));
}

/// Whether all ranks answer, where they are and how long a call over all takes.
fn peers(job: &MpiJob, ranks: &Ranks) -> Result<Finding, Failure> {
    let nodes = ranks.gather("nodes", &job.node().to_string())?;
    let clock = Instant::now();
    const CALLS: u32 = 20;
    for _ in 0..CALLS {
        ranks.barrier("how long a call takes")?;
    }
    let micros = clock.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
    let mut by_node = std::collections::BTreeMap::<&str, usize>::new();
    nodes.iter().for_each(|node| *by_node.entry(node).or_default() += 1);
    let list: Vec<String> = by_node.iter().map(|(node, count)| format!("{node}: {count}")).collect();
    let found = format!(
        "{} ranks on {} machines ({}) answer; a call over all takes {micros:.0} us",
        nodes.len(),
        by_node.len(),
        list.join(", ")
    );
    Ok(match micros > 5000.0 {
        true => Finding::around(
            "ranks",
            Verdict::Warning,
            found,
            "a network takes tens of microseconds: check that MPI uses the fast one, and that no two ranks share a core",
        ),
        false => Finding::around("ranks", Verdict::Right, found, ""),
    })
}

/// Whether model folder and data of the run can be opened; nothing is fetched. It comes last: from here on the hub is
/// not asked.
fn data(run: &Config) -> Finding {
    hub::fetch_nothing();
    match launch::stage_prompts(run) {
        Ok(stages) => {
            let rows: usize = stages.iter().map(rl::prompts::Prompts::len).sum();
            let found = format!("tokenizer and data of {} stages can be opened, {rows} rows", stages.len());
            Finding::around("run", Verdict::Right, found, "")
        }
        Err(error) => {
            let said = error.to_string();
            let line = said.lines().next().unwrap_or_default().to_string();
            match hub::could_be_fetched(&line) {
                true => Finding::around(
                    "run",
                    Verdict::Warning,
                    line,
                    "`train` fetches it when it begins; `hf download` fetches it before",
                ),
                false => {
                    Finding::around("run", Verdict::Error, line, "give model.path and data.train_files what is there")
                }
            }
        }
    }
}

/// Bytes in GiB.
fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}
