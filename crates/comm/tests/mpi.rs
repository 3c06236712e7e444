//! The same operations between processes, under `mpirun`, and how a job of them ends. A test starts this program again
//! on several ranks; there the test of the same name is what a rank does.

#[path = "operations/mod.rs"]
mod operations;

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comm::{Fault, Job, launcher};

/// The test `name` on so many ranks; none where mpirun is not to be had.
fn mpirun(name: &str, ranks: usize, variables: &[(&str, &str)]) -> Option<(Output, Duration)> {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", &ranks.to_string()]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture", "--test-threads", "1"]);
    let start = Instant::now();
    match command.envs(variables.iter().copied()).output() {
        Ok(output) => Some((output, start.elapsed())),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "mpirun does not start: {error}");
            eprintln!("SKIPPED: mpirun does not start: {error}");
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn say(text: &str) {
    eprintln!("error: {text}");
}

fn start(piece: Option<usize>) -> Arc<Job> {
    comm::start_in_pieces(say, piece).unwrap().expect("several ranks")
}

#[test]
fn operations_between_processes() {
    if launcher().is_some() {
        let piece = std::env::var("PIECE").unwrap().parse().ok();
        let job = start(piece);
        operations::all(&job.ranks(true), 2e-6);
        job.finish();
        println!("\nrank {} is done", job.rank());
        return;
    }
    // Whole, and in pieces that divide nothing.
    for (ranks, piece) in [(2, ""), (3, ""), (4, ""), (2, "7"), (3, "100"), (4, "333")] {
        let Some((output, _)) = mpirun("operations_between_processes", ranks, &[("PIECE", piece)]) else { return };
        let said = said(&output);
        assert!(output.status.success(), "{ranks} ranks: {said}");
        assert_eq!(said.matches("is done").count(), ranks, "{said}");
    }
}

/// One rank is a run of its own: nothing of MPI is started.
#[test]
fn one_rank_is_none() {
    if std::env::var_os("OMPI_COMM_WORLD_SIZE").is_some() {
        assert!(comm::start(say).unwrap().is_none());
        return;
    }
    let Some((output, _)) = mpirun("one_rank_is_none", 1, &[]) else { return };
    assert!(output.status.success(), "{}", said(&output));
}

fn fault(code: i32, text: &str) -> Fault {
    Fault { code, text: text.into(), of_rank: true }
}

/// The exit code of a job of three ranks that ends by a fault, and the lines that say why.
fn ended(name: &str) -> Option<(i32, Vec<String>)> {
    let (output, time) = mpirun(name, 3, &[])?;
    let said = said(&output);
    assert!(time < Duration::from_secs(20), "{time:?}: {said}");
    println!("{name}: exit code {:?} after {:.1} s", output.status.code(), time.as_secs_f64());
    // What the test harness writes before it stands on the same line.
    let lines = said.lines().filter_map(|line| line.find("error: ").map(|at| line[at..].to_owned())).collect();
    Some((output.status.code().unwrap(), lines))
}

#[test]
fn a_fault_of_one_rank_ends_all() {
    if launcher().is_some() {
        let job = start(None);
        if job.rank() == 1 {
            job.fail(fault(2, "no file of that name"));
        }
        job.ranks(false).barrier("never").unwrap();
        panic!("is not reached");
    }
    let Some((code, lines)) = ended("a_fault_of_one_rank_ends_all") else { return };
    assert_eq!((code, lines.len()), (2, 1), "{lines:?}");
    assert!(lines[0].contains("error: rank 1 (") && lines[0].ends_with("): no file of that name"), "{lines:?}");
}

#[test]
fn a_fault_of_all_ranks_is_said_once() {
    if launcher().is_some() {
        let job = start(None);
        let code = job.fail(fault(3, "no file of that name"));
        job.finish();
        std::process::exit(code);
    }
    let Some((code, lines)) = ended("a_fault_of_all_ranks_is_said_once") else { return };
    assert_eq!((code, lines), (3, vec!["error: no file of that name".to_owned()]));
}

#[test]
fn a_sudden_fault_ends_all_from_any_thread() {
    if launcher().is_some() {
        let job = start(None);
        if job.rank() == 2 {
            let job = job.clone();
            std::thread::spawn(move || job.end(fault(101, "a panic")));
        }
        job.ranks(false).of_node("node").unwrap().sum_f32("never", &mut [0.0; 10]).unwrap();
        loop {
            job.ranks(false).barrier("for ever").unwrap();
        }
    }
    let Some((code, lines)) = ended("a_sudden_fault_ends_all_from_any_thread") else { return };
    assert_eq!((code, lines.len()), (101, 1), "{lines:?}");
    assert!(lines[0].contains("error: rank 2 ("), "{lines:?}");
}

/// Rank 0 answers no letter: the rank with the fault says it itself.
#[test]
fn a_fault_needs_no_answer() {
    if launcher().is_some() {
        let job = start(None);
        match job.rank() {
            0 => drop(Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status()),
            _ => drop(job.fail(fault(75, "rank 0 does not answer"))),
        }
        std::thread::sleep(Duration::from_secs(60));
    }
    let Some((code, lines)) = ended("a_fault_needs_no_answer") else { return };
    assert_eq!((code, lines.len()), (75, 1), "{lines:?}");
}
