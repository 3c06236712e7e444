//! Checks that need a process of their own: whether a failure of the device ends a program, and whether the memory that
//! a run will need is there.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use burn::tensor::{DType, Tensor};
use clap::ValueEnum;
use doctor::{Examined, Finding, Verdict, fill};
use model_qwen2vl::{Kernels, host};
use plan::MemoryPlan;
use rl::TrainError;
use rl::config::Backend;

use crate::common::{Failure, OnBackend};

/// Elements that no device has memory for: 16 TiB.
const TOO_MANY: usize = 1 << 42;

/// Longest that a child may take, the start of its device included.
const LIMIT: Duration = Duration::from_secs(120);

/// What a child process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Child {
    /// Launches what the device has to refuse.
    RefusedLaunch,
    /// Asks for memory that is not there.
    TooMuchMemory,
    /// Takes the memory of a run.
    Fill,
}

impl Child {
    fn name(self) -> &'static str {
        match self {
            Self::RefusedLaunch => "refused-launch",
            Self::TooMuchMemory => "too-much-memory",
            Self::Fill => "fill",
        }
    }
}

/// The child's part.
pub(super) struct ChildJob {
    /// What it does.
    pub child: Child,
    /// Bytes that it takes.
    pub bytes: usize,
}

impl OnBackend for ChildJob {
    type Output = Result<ExitCode, Failure>;
    fn run<B: Kernels>(self, device: B::Device, _: DType) -> Self::Output {
        let lost: Option<Tensor<B, 1>> = match self.child {
            Child::Fill => {
                fill::<B>(self.bytes, &device).map_err(TrainError::from)?;
                return Ok(ExitCode::SUCCESS);
            }
            Child::RefusedLaunch => {
                B::refused_launch(&device);
                None
            }
            Child::TooMuchMemory => Some(Tensor::empty([TOO_MANY], (&device, DType::F32))),
        };
        // As a run does: it computes on and reads, and has to hear of it here at the latest.
        let next = Tensor::<B, 1>::ones([2], &device).add_scalar(1.0);
        host::floats(next).map_err(TrainError::from)?;
        if let Some(lost) = lost {
            host::floats(lost.narrow(0, 0, 2).add_scalar(1.0)).map_err(TrainError::from)?;
        }
        host::sync::<B>(&device).map_err(TrainError::from)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// All of them, one after the other.
pub(super) fn all<B: Kernels>(examined: &Examined<B>, backend: Backend, plan: Option<MemoryPlan>) -> Vec<Finding> {
    let on_gpu = B::device_memory(&examined.device).is_some();
    let mut findings = Vec::new();
    for child in [Child::RefusedLaunch, Child::TooMuchMemory] {
        findings.push(match on_gpu {
            true => must_fail(child, backend),
            false => Finding::not_here(child.name(), "a processor computes where it is asked: nothing is queued"),
        });
    }
    findings.push(match (plan, on_gpu) {
        (Some(plan), true) => must_fit(plan, backend),
        (Some(plan), false) => Finding::not_here("memory", &format!("a processor's own; {}", plan.text())),
        (None, _) => Finding::not_here("memory", "no run was named: give --config"),
    });
    findings
}

/// How a child ended.
enum End {
    Code(Option<i32>, String),
    NotStarted(String),
    TooLate,
}

fn start(child: Child, backend: Backend, bytes: usize) -> End {
    let command = cli::this_program().map(|mut command| {
        command.args(["--child", child.name(), "--backend", backend.as_str(), "--bytes", &bytes.to_string()]);
        // It is no rank.
        comm::launcher_variables().for_each(|name| {
            command.env_remove(name);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    });
    let mut process = match command.and_then(|mut command| command.spawn()) {
        Ok(process) => process,
        Err(e) => return End::NotStarted(e.to_string()),
    };
    let clock = Instant::now();
    loop {
        match process.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if clock.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                // It may have ended in between; its end is waited for in any case.
                let _ = process.kill();
                let _ = process.wait();
                return End::TooLate;
            }
        }
    }
    match process.wait_with_output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().find(|line| line.starts_with("error: ")).or_else(|| said.lines().next());
            End::Code(output.status.code(), line.unwrap_or("it said nothing").to_owned())
        }
        Err(e) => End::NotStarted(e.to_string()),
    }
}

fn finding(name: &'static str, compared: String, clock: Instant, verdict: Verdict, remark: String) -> Finding {
    Finding { name, compared, largest: None, seconds: clock.elapsed().as_secs_f64(), verdict, remark }
}

/// A child that has to end with an error.
fn must_fail(child: Child, backend: Backend) -> Finding {
    let what = match child {
        Child::RefusedLaunch => "a launch that the device refuses",
        _ => "16 TiB of device memory",
    };
    let clock = Instant::now();
    let (verdict, remark) = match start(child, backend, 0) {
        End::Code(Some(0), _) => (
            Verdict::Wrong,
            "the program went on as if nothing had happened: numbers of this build on this device mean nothing; report it"
                .to_owned(),
        ),
        End::Code(_, said) => (Verdict::Right, said),
        End::NotStarted(why) => (Verdict::Wrong, format!("the child process could not be started: {why}")),
        End::TooLate => (Verdict::Wrong, format!("the program hangs, it was ended after {} s", LIMIT.as_secs())),
    };
    finding(child.name(), format!("{what} ends a program with an error"), clock, verdict, remark)
}

/// A child that takes the memory that the run will need.
fn must_fit(plan: MemoryPlan, backend: Backend) -> Finding {
    let clock = Instant::now();
    let (verdict, remark) = match start(Child::Fill, backend, plan.tensors()) {
        End::Code(Some(0), _) => (Verdict::Right, String::new()),
        End::Code(_, said) => (
            Verdict::Wrong,
            format!(
                "it is not there ({said}); lower actor.micro_batch_tokens or rollout.max_batch_rows, or set \
                 actor.recompute=always, actor.optim.moments_dtype=bf16, actor.optim.grads_dtype=bf16 and \
                 actor.optim.master_weights=false"
            ),
        ),
        End::NotStarted(why) => (Verdict::Wrong, format!("the child process could not be started: {why}")),
        End::TooLate => (Verdict::Wrong, format!("taking it hangs, it was ended after {} s", LIMIT.as_secs())),
    };
    finding("memory", format!("taken and written in pieces: {}", plan.text()), clock, verdict, remark)
}
