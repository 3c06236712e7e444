//! What the programs share: the choice of a backend, what arguments may be, and the way errors end a program.

pub(crate) mod arguments;
pub(crate) mod backend;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
#[cfg(feature = "cuda")]
pub(crate) mod kernel_cache;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod ranks;
pub(crate) mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cli::device::DeviceWatch;
use comm::MpiJob;
use rl::TrainError;

pub(crate) use arguments::{above_zero, check_temperature, check_top_p, chosen, words};
pub(crate) use cli::{ranges, within};

pub use arguments::choice;
pub use backend::{OnBackend, on_backend};
pub(crate) use backend::{Train, compiled};

/// A flag that SIGINT and SIGTERM set, saying `note` if there is something to say; a second signal does not wait. What
/// batch systems send some minutes before the end, SIGUSR1, sets it, too, any number of times.
///
/// # Errors
/// A system that lets no handler be set.
pub(crate) fn interrupt_flag(note: Option<&'static str>) -> Result<Arc<AtomicBool>, Failure> {
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = interrupt.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if let Some(note) = note {
            eprintln!("{note}");
        }
    })
    .map_err(Failure::other)?;
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, interrupt.clone()).map_err(Failure::other)?;
    Ok(interrupt)
}

/// A program that ends with an error: its exit code (design decision 11) and one clear line.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Bad usage or input.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }
    /// With an exit code of its own.
    pub fn with_code(code: u8, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
    /// Anything else.
    pub fn other(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

impl From<TrainError> for Failure {
    fn from(error: TrainError) -> Self {
        Self { code: error.exit_code() as u8, message: error.to_string() }
    }
}
impl From<model_qwen2vl::ModelError> for Failure {
    fn from(error: model_qwen2vl::ModelError) -> Self {
        TrainError::from(error).into()
    }
}
impl From<data::DataError> for Failure {
    fn from(error: data::DataError) -> Self {
        TrainError::from(error).into()
    }
}
impl From<comm::CommError> for Failure {
    fn from(error: comm::CommError) -> Self {
        TrainError::from(error).into()
    }
}
impl From<rl::config::ConfigError> for Failure {
    fn from(error: rl::config::ConfigError) -> Self {
        TrainError::from(error).into()
    }
}

/// Writes to standard output. A reader that has gone away has seen what it wanted.
pub(crate) fn write_out(text: &str) -> Result<(), data::DataError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(data::DataError::write("standard output", e)),
        _ => Ok(()),
    }
}

/// The same where it is the last thing that a program does.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    Ok(write_out(text)?)
}

impl From<Failure> for cli::Exit {
    fn from(Failure { code, message }: Failure) -> Self {
        Self { code, message }
    }
}

/// A program from its arguments to its exit code; see [`cli::program`].
pub(crate) fn program<A: clap::Parser>(run: impl FnOnce(A) -> Result<ExitCode, Failure> + Send) -> ExitCode {
    cli::program(|args| Ok(run(args)?))
}

/// The same for a program that uses a device; see [`cli::device`]. `lowers` names the settings that need less of its
/// memory.
pub fn device_program<A: clap::Parser>(
    lowers: &'static str,
    run: impl FnOnce(A) -> Result<ExitCode, Failure> + Send,
) -> ExitCode {
    program(|args| on_device(lowers, || run(args)))
}

/// The same for a program that runs on as many ranks as were launched; see [`cli::ranks`].
pub(crate) fn program_on_ranks<A: clap::Parser>(
    lowers: &'static str,
    run: impl FnOnce(A, Option<Arc<MpiJob>>) -> Result<ExitCode, Failure> + Send,
) -> ExitCode {
    cli::ranks::program_on_ranks(|args, job| Ok(on_device(lowers, || run(args, job))?))
}

fn on_device(lowers: &'static str, run: impl FnOnce() -> Result<ExitCode, Failure>) -> Result<ExitCode, Failure> {
    cli::device::watch(DeviceWatch { lowers, memory: device_memory, at_end: keep_kernels });
    let done = run();
    keep_kernels();
    done.map_err(|Failure { code, message }| Failure { code, message: cli::device::message(message) })
}

/// Bytes of device memory that are free, and all of them; none where it cannot be asked.
pub(crate) fn device_memory() -> Option<[u64; 2]> {
    #[cfg(feature = "cuda")]
    return cuda::memory();
    #[cfg(not(feature = "cuda"))]
    None
}

/// What the driver calls the card of this process; none where there is none.
pub(crate) fn card_name() -> Option<String> {
    #[cfg(feature = "cuda")]
    return cuda::name();
    #[cfg(not(feature = "cuda"))]
    None
}

/// A backend as it names itself, with the card that it computes on.
pub(crate) fn device_name(backend: &str) -> String {
    match card_name().filter(|_| backend.contains("cuda")) {
        Some(card) => format!("{backend}, {card}"),
        None => backend.to_string(),
    }
}

fn keep_kernels() {
    #[cfg(feature = "cuda")]
    kernel_cache::seal();
}
