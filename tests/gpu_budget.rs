//! What a step of the 7B and 3B presets asks of a GPU, counted under the stand-in for CUDA (tools/standin) and held
//! against the budgets below. A change that adds a launch to a layer fails here; one that saves some lowers the budget.
#![cfg(feature = "cuda")]

mod support;

use std::process::{Command, Stdio};
use std::time::Duration;

use support::large_model::{SHARD_BYTES, SHARDS, write_large_model};
use support::standin::{DriverLog, Event, Standin, compiled, count};
use support::{stderr, succeeded};

/// Rows of the decoded batch, and the bytes of their sampled ids.
const ROWS: usize = 64;
const IDS: u64 = 4 * ROWS as u64;

/// The budgets: what is counted, and how much of it there may be. bf16 weights, moments and gradients; 8 prompts with 8
/// responses; 192 words and 8 tokens per response, all in one pass, where nothing else is said.
#[rustfmt::skip]
const BUDGETS: &[(&str, u64)] = &[
    // A token of all rows, once nothing is compiled any more.
    ("7b: launches of a decoded token",                         285),
    ("7b: uploads of a decoded token",                            2),
    ("7b: reads of a decoded token",                              1),
    ("7b: waits of the host in a decoded token",                  1),
    ("7b: allocations in a decoded token",                        0),
    ("3b: launches of a decoded token",                         365),
    ("3b: uploads of a decoded token",                            2),
    // 28 layers, forward, recomputed forward and backward, head and loss included.
    ("7b: launches of the gradients",                         3_386),
    // From the last matrix product of the backward to the norm's read.
    ("7b: launches of the gradient norm",                     13),
    ("7b: launches of the optimizer",                        597),
    // All of a run of two steps with one picture per prompt.
    ("7b with pictures: kernels compiled",                      150),
    ("7b with pictures: bytes of the device",     75_000_000_000),
    // A billion weights from four shards of half a GB: what is the host's own, the files not counted.
    ("loading: bytes of the host",                 600_000_000),
];

fn budget(name: &str) -> u64 {
    BUDGETS.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no budget for {name}")).1
}

/// Counts of one run, compared at its end, so that all of them are seen.
#[derive(Default)]
struct Counted(Vec<(String, u64)>);

impl Counted {
    fn add(&mut self, name: &str, is: usize) {
        self.0.push((name.to_owned(), is as u64));
    }

    fn within_budget(self) {
        let mut over = Vec::new();
        for (name, is) in self.0 {
            let most = budget(&name);
            println!("{name:<48} {is:>16} of {most:>16}");
            if is > most {
                over.push(format!("{name}: {is}, {most} allowed"));
            }
        }
        assert!(over.is_empty(), "over budget:\n{}", over.join("\n"));
    }
}

/// What a run of `bench step` leaves: the driver's log and the number of kernels that were compiled.
fn step(preset: &str, options: &str) -> Option<(DriverLog, usize)> {
    let standin = Standin::built()?;
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    let shared = "--backend cuda --dtype bf16 --moments-dtype bf16 --grads-dtype bf16 --master-weights false \
                  --weights fill --peak-tflops 1 --check-device false --prompts 8 --rollouts 8 --json";
    command.args(["step", "--preset", preset]).args(shared.split_whitespace()).args(options.split_whitespace());
    let output = standin.under(&mut command, place.path()).output().unwrap();
    succeeded(&output);
    assert_eq!(stderr(&output), "");
    let log = DriverLog::read(place.path());
    assert_eq!(count(&log.0, 'X') + count(&log.0, 'O'), 0, "the driver refused a call");
    Some((log, compiled(place.path()).len()))
}

const TEXT_ONLY: &str = "--image 0 --text-tokens 192 --response-tokens 8 --steps 1 --old-log-probs rollout";

/// The events of a decoded token: those between two reads of sampled ids, the last two of the run, when every kernel
/// has been compiled.
fn token(log: &DriverLog) -> &[Event] {
    let reads = log.downloads(IDS);
    let [.., before, last] = reads[..] else { panic!("{} tokens were read", reads.len()) };
    let events = &log.0[before + 1..=last];
    assert_eq!(count(events, 'K'), 0, "a kernel was compiled in the last token");
    events
}

#[test]
fn a_decoded_token_of_3b() {
    let Some((log, _)) = step("3b", TEXT_ONLY) else { return };
    let mut counted = Counted::default();
    counted.add("3b: launches of a decoded token", count(token(&log), 'L'));
    counted.add("3b: uploads of a decoded token", count(token(&log), 'U'));
    counted.within_budget();
}

#[test]
fn a_decoded_token_and_an_update_of_7b() {
    let Some((log, _)) = step("7b", TEXT_ONLY) else { return };
    let mut counted = Counted::default();
    let events = token(&log);
    for (what, kind) in [
        ("launches of", 'L'),
        ("uploads of", 'U'),
        ("reads of", 'D'),
        ("waits of the host in", 'Y'),
        ("allocations in", 'A'),
    ] {
        counted.add(&format!("7b: {what} a decoded token"), count(events, kind));
    }
    // After the ids come the log-probs of all tokens, which end the sampling; the norm is the last number that is read.
    let sampled = *log.downloads(IDS * 8).last().expect("the log-probs are read");
    let norm = log.0.iter().rposition(|event| event.kind == 'D').unwrap();
    assert!(sampled < norm && log.0[norm].bytes() == 4, "the norm is not the last number that is read");
    let gradients = &log.0[sampled + 1..norm];
    let is_product = |event: &Event| event.kind == 'L' && event.kernel().contains("matmul");
    let last_product = gradients.iter().rposition(is_product).expect("the backward multiplies");
    counted.add("7b: launches of the gradients", count(&gradients[..=last_product], 'L'));
    counted.add("7b: launches of the gradient norm", count(&gradients[last_product + 1..], 'L'));
    counted.add("7b: launches of the optimizer", count(&log.0[norm..], 'L'));
    counted.within_budget();
}

#[test]
fn kernels_and_memory_of_7b_with_pictures() {
    let Some((log, kernels)) = step("7b", "--image 336 --response-tokens 8 --steps 2") else { return };
    let mut counted = Counted::default();
    counted.add("7b with pictures: kernels compiled", kernels);
    counted.add("7b with pictures: bytes of the device", log.peak() as usize);
    counted.within_budget();
}

/// Loading keeps no copy of the model on the host.
#[test]
#[cfg(target_os = "linux")]
fn loading_a_model_of_several_shards() {
    let Some(standin) = Standin::built() else { return };
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    write_large_model(&folder);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    let options = "--backend cuda --dtype bf16 --moments-dtype bf16 --grads-dtype bf16 --master-weights false \
                   --peak-tflops 1 --check-device false --prompts 1 --rollouts 2 --image 56 --text-tokens 4 --response-tokens 2 --steps 1";
    command.arg("step").arg("--model").arg(&folder).args(options.split_whitespace());
    standin.under(&mut command, place.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let own = text.lines().find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok());
        most = most.max(1024 * own.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(1));
    }
    succeeded(&child.wait_with_output().unwrap());
    let uploaded: u64 = DriverLog::read(place.path()).0.iter().filter(|e| e.kind == 'U').map(Event::bytes).sum();
    assert!(uploaded >= SHARDS as u64 * SHARD_BYTES, "{uploaded} bytes were uploaded: the model was not");
    let mut counted = Counted::default();
    counted.add("loading: bytes of the host", most);
    counted.within_budget();
}

/// Each budget is asked for somewhere above.
#[test]
fn no_budget_is_idle() {
    let source = include_str!("gpu_budget.rs");
    let (_, tests) = source.split_once("fn budget(").unwrap();
    for (name, _) in BUDGETS {
        let end = name.rsplit(": ").next().unwrap();
        let words = end.trim_end_matches(" a decoded token");
        assert!(tests.contains(words), "{name} is never counted");
    }
}
