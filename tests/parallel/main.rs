//! The programs on several ranks under `mpirun`: the same results as on one, and how a run ends when something fails on
//! one of them.
#![cfg(all(unix, feature = "mpi"))]

mod faults;
mod programs;
mod same;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Bench, last_step, skipped};

/// `mpirun`, as it is called where there are fewer processors than ranks, by root, in a container.
pub(crate) fn mpirun() -> Option<Command> {
    if Command::new("mpirun").arg("--version").stdout(Stdio::null()).status().is_err() {
        skipped("mpirun is not installed");
        return None;
    }
    let mut command = Command::new("mpirun");
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.envs([("OMPI_MCA_rmaps_base_oversubscribe", "1"), ("OMPI_MCA_hwloc_base_binding_policy", "none")]);
    command.env("RAYON_NUM_THREADS", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// `train` in the folder of `bench` on so many ranks.
pub(crate) fn train<S: AsRef<str>>(bench: &Bench, ranks: usize, overrides: &[S]) -> Option<Command> {
    let alone = bench.command(overrides);
    let mut command = mpirun()?;
    command.current_dir(bench.path("")).args(["-np", &ranks.to_string()]).arg(alone.get_program());
    command.args(alone.get_args());
    Some(command)
}

/// Waits until the run has finished a step.
pub(crate) fn under_way(child: &mut std::process::Child, run: &Path) {
    let start = Instant::now();
    while last_step(run) < 1 {
        assert!(child.try_wait().unwrap().is_none(), "the run has ended before its first step");
        assert!(start.elapsed() < Duration::from_secs(60), "step 1 is not reached");
        std::thread::sleep(Duration::from_millis(5));
    }
}
