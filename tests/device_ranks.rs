//! What ranks on CUDA devices ask of NCCL and of the driver, under the stand-ins for both (tools/standin), which
//! compute nothing: the order of calls, and what is said where something is missing.
#![cfg(feature = "cuda")]

mod support;

use std::process::{Command, Output};
use std::time::Duration;

use support::standin::{DriverLog, Event, Standin};
use support::stderr;

/// `train --check-devices` on one rank, and the driver's log; `nccl` says whether there is one.
fn check(nccl: bool, settings: &[(&str, &str)]) -> Option<(Output, DriverLog)> {
    let standin = Standin::built()?;
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command.arg("--check-devices").current_dir(place.path());
    standin.under(&mut command, place.path());
    if nccl {
        standin.with_nccl(&mut command);
    }
    let output = command.envs(settings.iter().copied()).output().unwrap();
    Some((output, DriverLog::read(place.path())))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(output))
}

/// The events of the log that order streams, by name.
fn ordering(log: &DriverLog) -> Vec<String> {
    let names = log.0.iter().filter(|event| "ENWY".contains(event.kind));
    names.map(|Event { kind, details, .. }| format!("{kind} {details}")).collect()
}

/// Every collective is between an event behind all that was launched and one that all later work is held for.
#[test]
fn events_of_the_context_are_around_every_call() {
    let Some((output, log)) = check(true, &[]) else { return };
    let said = said(&output);
    // Zeros are read where ones were written.
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NCCL 22703, 1 ranks") && said.contains("order Events:"), "{said}");
    assert!(said.contains("do not tell each other what they should"), "{said}");
    let events = ordering(&log);
    let second = events.iter().rposition(|event| event == "N start 1 0").expect("a communicator of one rank");
    let calls = |events: &[String]| -> Vec<usize> {
        let is_call = |event: &String| ["N all", "N reduce"].iter().any(|call| event.starts_with(call));
        (0..events.len()).filter(|&i| is_call(&events[i])).collect()
    };
    let (first, second) = events.split_at(second);
    assert!(calls(first).len() > 100 && calls(first).len() == calls(second).len());
    let mut beside_kernels = 0;
    for i in calls(first) {
        assert_eq!(first[i - 2..i], ["E record context", "W event"], "before call {i}");
        // One more element than anything else has: what kernels need not wait for.
        match first[i] == "N reduce-scatter 16777217 7" {
            true => beside_kernels += 1,
            false => assert_eq!(first[i + 1], "E hold context", "after call {i}"),
        }
    }
    assert_eq!(beside_kernels, 50);
    let holds = first.iter().filter(|event| *event == "E hold context").count();
    assert_eq!(holds, calls(first).len(), "every call is waited for");
    // The other order: the host waits, and no event of the context is asked for.
    assert!(second.iter().all(|event| !event.starts_with('E')));
    for i in calls(second).into_iter().filter(|&i| second[i] != "N reduce-scatter 16777217 7") {
        assert!(second[i - 1].starts_with('Y') && second[i + 1] == "Y stream", "{:?}", &second[i - 1..=i + 1]);
    }
    let types: Vec<&str> = first.iter().filter_map(|event| event.strip_prefix("N all-reduce 1000 ")).collect();
    assert_eq!(types, ["7", "9"], "f32 and bf16");
}

/// A driver before CUDA 12.5 has no such events: the host waits.
#[test]
fn an_older_driver_is_waited_for() {
    let Some((output, log)) = check(true, &[("STANDIN_DRIVER", "12040")]) else { return };
    let said = said(&output);
    assert!(said.contains("the driver is older than CUDA 12.5"), "{said}");
    assert!(said.contains("order Waiting:"), "{said}");
    assert!(ordering(&log).iter().all(|event| !event.starts_with('E')));
}

/// Without NCCL's library the one line says what to do; a panic of its loader would not.
#[test]
fn what_is_missing_is_said_with_its_cure() {
    let Some((output, _)) = check(false, &[]) else { return };
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NCCL was not found") && said.contains("ln -s"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// An error that NCCL tells of after a call, as when another rank is gone, ends the run.
#[test]
fn a_late_error_ends_the_run() {
    let clock = std::time::Instant::now();
    let Some((output, _)) = check(true, &[("STANDIN_NCCL_FAIL", "1")]) else { return };
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: rank 0:") && said.contains("NCCL's call: remote process exited"), "{said}");
    assert!(clock.elapsed() < Duration::from_secs(60));
}
