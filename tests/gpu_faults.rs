//! What becomes of faults of a GPU: programs end with code 1 and one line that names the cause, in seconds, and never
//! go on with what was not computed. Under the stand-in for CUDA (tools/standin), which fails on request.
#![cfg(feature = "cuda")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::standin::{DriverLog, Standin, compiled, count};
use support::{SMALLEST, checkpoints, stderr, succeeded};

/// Longest that a program may take: a guard against hanging. They take seconds, and minutes where others have the
/// cores: at a load of 16 on two of them one took more than five.
const LIMIT: Duration = Duration::from_secs(1800);

/// A program with a folder of its own.
struct Trial {
    standin: &'static Standin,
    place: tempfile::TempDir,
}

impl Trial {
    fn new() -> Option<Self> {
        let trial = Self { standin: Standin::built()?, place: tempfile::tempdir().unwrap() };
        std::fs::write(trial.place.path().join("config.toml"), SMALLEST).unwrap();
        Some(trial)
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// Runs a program with options split at spaces under the stand-in with such variables.
    fn run(&self, program: &str, options: &str, variables: &[(&str, String)]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(self.path()).args(options.split_whitespace());
        self.standin.under(&mut command, self.path()).envs(variables.iter().map(|(name, value)| (name, value)));
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("{options} {variables:?} did not end: {}", stderr(&child.wait_with_output().unwrap()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().unwrap()
    }

    fn run_usual(&self, usual: Usual, variables: &[(&str, String)]) -> Output {
        let _ = std::fs::remove_dir_all(self.path().join("run"));
        let (program, options) = usual.call();
        self.run(program, &options, variables)
    }
}

/// The programs that use a device.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Usual {
    Train,
    Generate,
    Bench,
    /// A model of two billion weights, whose memory is asked for piece by piece.
    Large,
}

impl Usual {
    const ALL: [Self; 3] = [Self::Train, Self::Generate, Self::Bench];

    fn call(self) -> (&'static str, String) {
        let fixtures: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        match self {
            Self::Train => (
                env!("CARGO_BIN_EXE_train"),
                "--config config.toml --backend cuda trainer.max_steps=2 trainer.save_freq=1 \
                 trainer.check_device=false".into(),
            ),
            Self::Generate => (
                env!("CARGO_BIN_EXE_generate"),
                format!(
                    "--model {} --image {} --prompt What? --max-new-tokens 4 --backend cuda",
                    fixtures.join("models/tied_gqa").display(),
                    fixtures.join("images/wide.png").display()
                ),
            ),
            Self::Bench => (
                env!("CARGO_BIN_EXE_bench"),
                "step --preset toy --backend cuda --dtype bf16 --weights fill --peak-tflops 1 --check-device false --prompts 2 --rollouts 2 \
                 --image 56 --text-tokens 4 --response-tokens 4 --steps 2 --json"
                    .into(),
            ),
            Self::Large => {
                let (program, options) = Self::Bench.call();
                (program, options.replace("--preset toy", "--preset qwen2vl-2b").replace("--steps 2", "--steps 1"))
            }
        }
    }
}

/// The program has to end with code 1 and this one line, in which all of these stand.
fn ended(output: &Output, needles: &[&str], what: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{what}: {said}");
    for needle in needles {
        assert!(lines[0].contains(needle), "{what}: no {needle:?} in {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{what}: {said}");
}

#[test]
fn without_a_fault_programs_end_well() {
    let Some(trial) = Trial::new() else { return };
    for usual in Usual::ALL {
        let output = trial.run_usual(usual, &[]);
        succeeded(&output);
        let log = DriverLog::read(trial.path());
        assert!(count(&log.0, 'L') > 50 && count(&log.0, 'X') == 0, "{usual:?}: refused calls");
        if usual == Usual::Train {
            assert_eq!(checkpoints(&trial.path().join("run")), [1, 2]);
        }
    }
}

/// At twenty points of a run there is no more memory; a toy's fits into the first piece, or nearly so.
#[test]
fn a_run_ends_where_memory_does() {
    let Some(trial) = Trial::new() else { return };
    for (usual, points, key) in [
        (Usual::Large, 20, "--micro-batch"),
        (Usual::Train, 2, "actor.micro_batch_tokens"),
        (Usual::Generate, 2, "--max-pixels"),
    ] {
        succeeded(&trial.run_usual(usual, &[]));
        let asked = count(&DriverLog::read(trial.path()).0, 'A');
        // How much is asked for depends a little on when the device's thread gives back what it had.
        let nth = |point| 1 + point * (asked * 9 / 10 - 1) / (points - 1);
        let tried: BTreeSet<usize> = (0..points).map(nth).collect();
        assert!(usual != Usual::Large || tried.len() == points, "{asked} allocations only");
        for nth in tried {
            let output = trial.run_usual(usual, &[("STANDIN_FAIL_ALLOC", nth.to_string())]);
            let what = format!("{usual:?}, allocation {nth} of {asked}");
            ended(&output, &["out of memory", "GiB were asked for", "GiB were free", key], &what);
        }
    }
}

/// As on a card that is too small.
#[test]
fn a_limit_of_memory_ends_a_run() {
    let Some(trial) = Trial::new() else { return };
    for usual in Usual::ALL {
        succeeded(&trial.run_usual(usual, &[]));
        let peak = DriverLog::read(trial.path()).peak();
        let total = 85_520_809_984u64;
        let output = trial.run_usual(usual, &[("STANDIN_TAKEN", (total - peak / 2).to_string())]);
        ended(&output, &["out of memory", "GiB were asked for"], &format!("{usual:?}"));
    }
}

#[test]
fn a_kernel_that_does_not_compile_ends_a_run() {
    let Some(trial) = Trial::new() else { return };
    for usual in Usual::ALL {
        for nth in [1, 5, 20] {
            // Nothing is kept from the run before.
            let _ = std::fs::remove_dir_all(trial.path().join("cache"));
            let output = trial.run_usual(usual, &[("STANDIN_FAIL_COMPILE", nth.to_string())]);
            let needles = ["the device failed: kernel ", " does not compile: default_program(1): error: "];
            ended(&output, &needles, &format!("{usual:?}, kernel {nth}"));
        }
    }
}

#[test]
fn a_launch_that_fails_ends_a_run() {
    let Some(trial) = Trial::new() else { return };
    for usual in Usual::ALL {
        succeeded(&trial.run_usual(usual, &[]));
        let launches = count(&DriverLog::read(trial.path()).0, 'L');
        for nth in [1, launches / 3, launches / 2, launches - 2] {
            let output = trial.run_usual(usual, &[("STANDIN_FAIL_LAUNCH", nth.to_string())]);
            let what = format!("{usual:?}, launch {nth} of {launches}");
            ended(&output, &["the device failed: ", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"], &what);
        }
    }
}

/// A kernel that reads where it may not shows when the host waits for it; from then on every call fails.
#[test]
fn a_fault_that_a_wait_reports_ends_a_run() {
    let Some(trial) = Trial::new() else { return };
    for usual in Usual::ALL {
        succeeded(&trial.run_usual(usual, &[]));
        let waits = count(&DriverLog::read(trial.path()).0, 'Y');
        for nth in [1, waits / 2, waits] {
            let output = trial.run_usual(usual, &[("STANDIN_FAIL_WAIT", nth.to_string())]);
            let what = format!("{usual:?}, wait {nth} of {waits}");
            ended(&output, &["the device failed: ", "CUDA_ERROR_ILLEGAL_ADDRESS"], &what);
        }
    }
}

/// A checkpoint is whole or not there, wherever the device fails while it is written.
#[test]
fn a_fault_spoils_no_checkpoint() {
    let Some(trial) = Trial::new() else { return };
    succeeded(&trial.run_usual(Usual::Train, &[]));
    let log = DriverLog::read(trial.path()).0;
    let run = trial.path().join("run");
    let good = std::fs::read(run.join("checkpoints/global_step_1/hf/model.safetensors")).unwrap();
    let waits = count(&log, 'Y');
    // The second checkpoint is the last thing that a run reads.
    for nth in [waits - 30, waits - 20, waits - 10, waits - 3] {
        let output = trial.run_usual(Usual::Train, &[("STANDIN_FAIL_WAIT", nth.to_string())]);
        ended(&output, &["CUDA_ERROR_ILLEGAL_ADDRESS"], &format!("wait {nth} of {waits}"));
        assert_eq!(checkpoints(&run), [1], "wait {nth} of {waits}");
        let kept = std::fs::read(run.join("checkpoints/global_step_1/hf/model.safetensors")).unwrap();
        assert!(kept == good, "wait {nth} of {waits}: the checkpoint has changed");
    }
}

/// Compiled kernels are kept for the next start of the same program; what is damaged is compiled again.
#[test]
fn a_second_start_compiles_nothing() {
    let Some(trial) = Trial::new() else { return };
    let start = || {
        let output = trial.run_usual(Usual::Bench, &[]);
        succeeded(&output);
        let kernels = compiled(trial.path()).len();
        let _ = std::fs::remove_file(trial.path().join("compiled"));
        (kernels, stderr(&output))
    };
    let (first, _) = start();
    assert!(first > 20, "{first} kernels");
    assert_eq!(start().0, 0, "the second start");
    let chunk = find(&trial.path().join("cache"), "chunk0.cbor");
    let changed = |good: &[u8]| {
        let mut bytes = good.to_vec();
        bytes[good.len() / 2] ^= 1;
        bytes
    };
    // A byte in the middle; what was cut off; nothing but zeros; a tail that was not finished.
    let damages: [(&dyn Fn(&[u8]) -> Vec<u8>, bool); 4] = [
        (&changed, true),
        (&|good| good[..good.len() - 7].to_vec(), true),
        (&|good| vec![0; good.len()], true),
        (&|good| [good, &good[..good.len() / 3]].concat(), false),
    ];
    for (damage, again) in damages {
        // What was compiled again may stand in another order.
        let good = std::fs::read(&chunk).unwrap();
        std::fs::write(&chunk, damage(&good)).unwrap();
        let (kernels, said) = start();
        assert_eq!((kernels, said.contains("is damaged")), (if again { first } else { 0 }, again), "{said}");
        assert_eq!(start().0, 0, "after the damage");
    }
    // Another card, another folder.
    let output = trial.run_usual(Usual::Bench, &[("STANDIN_CAPABILITY", "80".into())]);
    succeeded(&output);
    assert!(compiled(trial.path()).len() > 20);
    // Without a place to keep them, kernels are compiled, and that is said.
    let output = trial.run_usual(Usual::Bench, &[("XDG_CACHE_HOME", "/dev/null/cache".into())]);
    succeeded(&output);
    assert!(stderr(&output).contains("compiled kernels are not kept"), "{}", stderr(&output));
}

fn find(folder: &Path, name: &str) -> PathBuf {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let here = entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|n| n == name));
    here.cloned().unwrap_or_else(|| {
        let inside = entries.iter().find(|path| path.is_dir() && contains(path, name));
        find(inside.unwrap_or_else(|| panic!("no {name}")), name)
    })
}

fn contains(folder: &Path, name: &str) -> bool {
    let mut entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.any(|path| path.file_name().is_some_and(|n| n == name) || path.is_dir() && contains(&path, name))
}

/// A card that cannot be used is said, also where `auto` could take the CPU.
#[test]
fn a_card_that_cannot_be_used_is_not_left_aside() {
    let Some(trial) = Trial::new() else { return };
    let (program, options) = Usual::Bench.call();
    let auto = options.replace("--backend cuda --dtype bf16", "--backend auto");
    let output = trial.run(program, &auto, &[("STANDIN_FAIL_COMPILE", "1".into())]);
    ended(&output, &["backend cuda: its first computation fails: ", "does not compile", "--backend flex"], "auto");
    let folder = trial.path().join("no-nvrtc");
    std::fs::create_dir(&folder).unwrap();
    let driver = Path::new(env!("CARGO_TARGET_TMPDIR")).join("standin/driver/libcuda.so.1");
    std::fs::copy(driver, folder.join("libcuda.so.1")).unwrap();
    let output = trial.run(program, &auto, &[("LD_LIBRARY_PATH", folder.display().to_string())]);
    ended(&output, &["backend cuda: NVRTC", "LD_LIBRARY_PATH"], "no NVRTC");
}
