//! How a run ends: in seconds, with one line that names the rank and the cause, and with an exit code.
//!
//! Faults come from outside, as they do in life: a reward command that fails or waits on one rank, signals to a rank's
//! process, folders that are not shared. Only a panic has to be made: on a rank that this program itself is.

use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use run::heartbeat::Heartbeat;

use super::support::{Bench, NOTHING, SMALLEST, checkpoints, last_step, signal, stateful, stderr, succeeded};
use super::support::{assert_same_run, wait};
use super::{mpirun, train, under_way};

/// Longest that a fault may take to end a run, beside what the run took to come there: a guard, for a busy machine.
const LIMIT: Duration = Duration::from_secs(40);

/// A run that goes on for a long time.
fn long() -> Bench {
    Bench::new(&SMALLEST.replace("max_steps = 1", "max_steps = 100000").replace("size=4", "size=64"))
}

/// The run has to end with this code and with one line that holds all of these, soon after `since`.
fn ended(output: &Output, since: Instant, code: i32, needles: &[&str]) {
    let (said, time) = (stderr(output), since.elapsed());
    assert_eq!(output.status.code(), Some(code), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), usize::from(!needles.is_empty()), "{said}");
    for needle in needles {
        assert!(lines[0].contains(needle), "no {needle:?} in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert!(time < LIMIT, "{time:?}: {said}");
    println!("exit code {code} after {:.1} s: {}", time.as_secs_f64(), lines.first().unwrap_or(&"(mpirun's own line)"));
}

/// Sends a signal to the process of a rank, which its sign of life names.
fn signal_rank(run: &Path, rank: usize, name: &str) {
    let pid = Heartbeat::read(run, rank).expect("a sign of life").pid;
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(sent.success(), "SIG{name} reached no process");
}

/// `reward.command` that runs this shell script on rank 1, and elsewhere grades.
fn reward_on_rank_1(script: &str) -> String {
    let each = r#"echo "{\"overall\": ${#line}}""#;
    let all = format!(r#"while read -r line; do [ "$OMPI_COMM_WORLD_RANK" != 1 ] || {{ {script}; }}; {each}; done"#);
    format!(r#"reward.command=["sh", "-c", {all:?}]"#)
}

#[test]
fn an_error_of_one_rank() {
    let bench = long();
    let Some(mut command) = train(&bench, 3, &[reward_on_rank_1("echo 'no such grader' >&2; exit 3")]) else { return };
    let since = Instant::now();
    let output = command.output().unwrap();
    ended(&output, since, 1, &["error: rank 1 (", "no such grader"]);
}

#[test]
fn an_error_of_all_ranks_is_said_once() {
    let bench = long();
    for (overrides, code, needle) in [
        (&["trainer.max_step=3"][..], 2, "error: "),
        (&["model.path=nowhere"][..], 2, "error: nowhere"),
        (&["data.train_files=[nowhere.jsonl]"][..], 2, "nowhere.jsonl"),
        (&["--no-such-option"][..], 2, "error: unexpected argument"),
    ] {
        let Some(mut command) = train(&bench, 3, overrides) else { return };
        let since = Instant::now();
        let output = command.output().unwrap();
        ended(&output, since, code, &[needle]);
        assert!(!stderr(&output).contains("error: rank"), "{}", stderr(&output));
    }
    let Some(mut command) = train(&bench, 3, &["--dry-run"]) else { return };
    let output = command.output().unwrap();
    succeeded(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("[trainer]").count(), 1);
}

#[test]
fn ranks_with_other_configurations() {
    let bench = long();
    let Some(mut command) = train(&bench, 1, NOTHING) else { return };
    let alone = bench.command(&["trainer.seed=7"]);
    command.arg(":").args(["-np", "1"]).arg(alone.get_program()).args(alone.get_args());
    let since = Instant::now();
    let output = command.output().unwrap();
    ended(&output, since, 2, &["do not have the same configuration", "seed = 7"]);
}

/// Arguments of a test program, which are not for the program that it plays.
#[derive(clap::Parser)]
struct Played {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _of_the_harness: Vec<String>,
}

/// On ranks that this program itself is: one panics, on a thread that nobody waits for.
#[test]
fn a_panic_in_a_thread() {
    if comm::launcher().is_some() {
        let code = cli::ranks::program_on_ranks(|_: Played, job| {
            let ranks = job.expect("several ranks").ranks(false);
            if ranks.rank() == 1 {
                std::thread::spawn(|| panic!("a bad day"));
            }
            loop {
                ranks.barrier("for ever").map_err(cli::Exit::other)?;
                if ranks.size() == 1 {
                    break Ok(ExitCode::SUCCESS);
                }
            }
        });
        panic!("has ended with {code:?}");
    }
    let Some(mut command) = mpirun() else { return };
    command.args(["-np", "3"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "faults::a_panic_in_a_thread", "--nocapture", "--test-threads", "1"]);
    let since = Instant::now();
    let output = command.output().unwrap();
    ended(&output, since, 101, &["error: rank 1 (", "a fault of this program at", "a bad day"]);
}

#[test]
fn a_rank_that_is_killed() {
    let bench = long();
    let Some(mut command) = train(&bench, 3, NOTHING) else { return };
    let mut child = command.spawn().unwrap();
    under_way(&mut child, &bench.path("run"));
    signal_rank(&bench.path("run"), 1, "KILL");
    let since = Instant::now();
    let output = wait(child);
    // The launcher says it: the others are ended before they could.
    ended(&output, since, 137, &[]);
    assert!(stderr(&output).contains("exited on signal 9"), "{}", stderr(&output));
}

/// A rank that is stopped answers nothing; one whose reward command waits is alive and late.
#[test]
fn a_rank_that_hangs() {
    let bench = long();
    let Some(mut command) = train(&bench, 3, &["parallel.timeout_s=3"]) else { return };
    for rank in [1, 0] {
        let mut child = command.spawn().unwrap();
        under_way(&mut child, &bench.path("run"));
        signal_rank(&bench.path("run"), rank, "STOP");
        let since = Instant::now();
        let output = wait(child);
        let who = format!("error: rank {rank} (");
        ended(&output, since, 75, &[&who, "ranks wait in `", "parallel.timeout_s = 3"]);
        std::fs::remove_dir_all(bench.path("run")).unwrap();
    }

    let overrides = ["parallel.timeout_s=3".to_owned(), reward_on_rank_1("sleep 100")];
    let Some(mut command) = train(&bench, 3, &overrides) else { return };
    let since = Instant::now();
    let output = command.output().unwrap();
    ended(&output, since, 75, &["error: rank 1 (", "has been in rollout of rl 1 for", "2 ranks wait in `"]);
}

#[test]
fn a_run_folder_that_is_not_shared() {
    let bench = long();
    for place in ["a", "b"] {
        std::fs::create_dir(bench.path(place)).unwrap();
        std::fs::copy(bench.path("config.toml"), bench.path(place).join("config.toml")).unwrap();
    }
    let alone = bench.command(NOTHING);
    let Some(mut command) = mpirun() else { return };
    for (place, ranks) in [("a", "2"), ("b", "1")] {
        command.args(["-np", ranks, "-wdir"]).arg(bench.path(place)).arg(alone.get_program()).args(alone.get_args());
        command.arg(":");
    }
    let since = Instant::now();
    let output = command.output().unwrap();
    ended(&output, since, 2, &["trainer.output_dir is not shared between the ranks: rank 2 does not see"]);
}

/// A file in the run folder, or SIGUSR1 to the launcher: a checkpoint, exit code 130, and the run goes on from there.
#[test]
fn asked_to_stop() {
    let whole = stateful();
    let Some(mut command) = train(&whole, 2, NOTHING) else { return };
    succeeded(&command.output().unwrap());
    for way in ["STOP", "USR1"] {
        let bench = stateful();
        let run = bench.path("run");
        let mut command = train(&bench, 2, NOTHING).unwrap();
        let mut child = command.spawn().unwrap();
        under_way(&mut child, &run);
        let since = Instant::now();
        match way {
            "STOP" => std::fs::write(run.join("STOP"), "").unwrap(),
            name => signal(&mut child, name),
        }
        let output = wait(child);
        ended(&output, since, 130, &["error: interrupted; the run goes on"]);
        let newest = *checkpoints(&run).last().unwrap();
        assert!(newest >= last_step(&run) && !run.join("STOP").exists());
        println!("{way}: checkpoint of step {newest}");
        succeeded(&command.output().unwrap());
        println!("{}", assert_same_run(&whole.path("run"), &run));
        assert!(!run.join(".ranks").exists(), "signs of life are left of a run that has ended well");
    }
}
