//! Programs that may run as one of several ranks: how they begin together, and how they end together.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use comm::{Fault, Job, launcher};

use crate::Exit;

static JOB: OnceLock<Arc<Job>> = OnceLock::new();

/// The exit code of a panic on one of several ranks: that of a Rust program which panics.
const PANIC: u8 = 101;

/// A program as [`crate::program`] is one, on as many ranks as a launcher has started: `run` gets the job, none where
/// this is the only process. Help is printed once, and so is an error that all ranks have; one that a rank has names
/// it, and ends all.
pub fn program_on_ranks<A: clap::Parser>(
    run: impl FnOnce(A, Option<Arc<Job>>) -> Result<ExitCode, Exit> + Send,
) -> ExitCode {
    let job = match comm::start(say) {
        Ok(job) => job,
        Err(error) => return refused(&error.to_string()),
    };
    if let Some(job) = &job {
        // Once: programs begin once.
        let _ = JOB.set(job.clone());
    }
    let code = crate::program(|args| run(args, job.clone()));
    if let Some(job) = job {
        job.finish();
    }
    code
}

/// Ends a program that is not for several ranks where a launcher has started several: exit code 2 and one line, from
/// the first of them. None where it is the only process.
pub fn refuse_ranks(program: &str) -> Option<ExitCode> {
    let ranks = launcher()?.ranks;
    let name = std::path::Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    Some(refused(&format!("{ranks} ranks were launched, and {name} runs on one: start it without mpirun or srun")))
}

fn refused(message: &str) -> ExitCode {
    match launcher() {
        // A launcher ends the others when one has ended: the one that speaks is the first.
        Some(launched) if launched.rank > 0 => std::thread::sleep(Duration::from_secs(2)),
        _ => say(message),
    }
    ExitCode::from(2)
}

fn say(text: &str) {
    eprintln!("error: {}", guard::printable(text));
}

/// Whether this process is the one that speaks to a person.
pub(crate) fn is_first() -> bool {
    JOB.get().is_none_or(|job| job.rank() == 0)
}

/// `rank 3 (node2): `, before what one of several ranks says; nothing before what the only process says.
pub(crate) fn prefix() -> String {
    JOB.get().map_or(String::new(), |job| format!("{}: ", job.label()))
}

/// Whether there are other ranks.
pub(crate) fn several() -> bool {
    JOB.get().is_some()
}

/// Says why this program ends with `code`. On several ranks it comes back only where all end so; the others are ended
/// otherwise.
pub(crate) fn fail(code: u8, message: &str) -> u8 {
    match JOB.get() {
        Some(job) => job.fail(fault(code, message)) as u8,
        None => {
            say(message);
            code
        }
    }
}

/// Ends all ranks from any thread; comes back where there are no others.
pub(crate) fn end(code: u8, message: &str) {
    if let Some(job) = JOB.get() {
        job.end(fault(code, message));
    }
}

/// The same for a panic, which in a program of its own unwinds.
pub(crate) fn end_by_panic(message: &str) {
    end(PANIC, message);
}

fn fault(code: u8, message: &str) -> Fault {
    Fault { code: i32::from(code), text: message.to_owned(), of_rank: true }
}

/// Threads of this rank: its part of the processors of its node; none where there are no other ranks, or where
/// `RAYON_NUM_THREADS` says it.
pub(crate) fn threads() -> Result<Option<usize>, Exit> {
    let Some(job) = JOB.get() else { return Ok(None) };
    let own = processors();
    let of_node = || job.ranks(false).of_node("ranks of a node")?.gather("processors", &own);
    // Of all ranks, also where only some have the variable.
    let all = of_node().map_err(Exit::other)?;
    let said = std::env::var_os("RAYON_NUM_THREADS").is_some_and(|text| !text.is_empty());
    Ok((!said).then(|| share(&own, &all)))
}

/// The processors that this process may use, as Linux numbers them; elsewhere as many numbers.
fn processors() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let listed = parse_list(list.trim());
    match listed.is_empty() {
        true => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
        false => listed,
    }
}

/// `0-3,8` as numbers.
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// What is left of the processors `own` where each is shared evenly by all ranks of the node that may use it.
fn share(own: &[usize], all: &[Vec<usize>]) -> usize {
    let part = |cpu: &usize| 1.0 / all.iter().filter(|other| other.contains(cpu)).count().max(1) as f64;
    // Thirds add up to a little less than a whole.
    ((own.iter().map(part).sum::<f64>() + 1e-6) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_shared_by_those_that_may_use_them() {
        let all: Vec<usize> = (0..64).collect();
        assert_eq!(parse_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(parse_list(""), [] as [usize; 0]);
        // Not bound: an eighth each. Bound to cores of their own: what they have.
        assert_eq!(share(&all, &vec![all.clone(); 8]), 8);
        let bound: Vec<Vec<usize>> = all.chunks(8).map(<[usize]>::to_vec).collect();
        assert_eq!(share(&bound[3], &bound), 8);
        // Bound to sockets, four to each.
        let sockets: Vec<Vec<usize>> = (0..8).map(|rank| all[rank / 4 * 32..][..32].to_vec()).collect();
        assert_eq!(share(&sockets[5], &sockets), 8);
        // More ranks than processors.
        assert_eq!(share(&[0, 1], &vec![vec![0, 1]; 3]), 1);
        assert_eq!(share(&[0, 1, 2], &vec![vec![0, 1, 2]; 3]), 1);
    }
}
