//! How every program of the project begins and ends.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! /// Says hello.
//! #[derive(clap::Parser)]
//! struct Hello {
//!     name: String,
//! }
//!
//! fn main() -> ExitCode {
//!     cli::program(|hello: Hello| match hello.name.is_empty() {
//!         true => Err(cli::Exit::input("the name is empty")),
//!         false => {
//!             println!("hello {}", hello.name);
//!             Ok(ExitCode::SUCCESS)
//!         }
//!     })
//! }
//! ```

pub mod device;
pub mod ports;
mod program;
pub mod ranks;
mod word;

use std::process::ExitCode;

pub use program::{Program, this_program};
pub use word::{one_of, word};

/// Stack of a program: the system's own may be small (`ulimit -s`).
const STACK: usize = 64 << 20;

/// Why a program ends: what is said on stderr, and its exit code (1 failed, 2 bad usage or input).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// What is said after `error: `.
    pub message: String,
}

impl Exit {
    /// Bad usage or input.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }
    /// Anything else.
    pub fn other(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

/// A program from its arguments to its exit code: nothing on success, `error: ...` and the code otherwise. What it ends
/// with is always one such message, whose echoes of files and arguments are cut and made harmless to a terminal.
pub fn program<A: clap::Parser>(run: impl FnOnce(A) -> Result<ExitCode, Exit> + Send) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or("an unknown place".to_owned(), ToString::to_string);
        let fault = format!("a fault of this program at {place}: {}", guard::caught::panic_text(panic.payload()));
        ranks::end_by_panic(&fault);
        eprintln!("error: {fault}");
    }));
    let work = || {
        let args = match program::parse::<A>() {
            Ok(args) => args,
            // Help and version go to standard output, as they are.
            Err(message) if !message.use_stderr() => {
                if ranks::is_first() {
                    // As it would print itself: a reader that has gone away has seen what it wanted.
                    let _ = message.print();
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(message) => {
                let text = message.render().to_string();
                match ranks::several() {
                    true => _ = ranks::fail(2, text.trim_end().trim_start_matches("error: ")),
                    false => eprintln!("{}", guard::printable(text.trim_end())),
                }
                return Ok(ExitCode::from(2));
            }
        };
        begin()?;
        run(args)
    };
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| guard::on_stack(STACK, work)));
    let exit = match done {
        Ok(Ok(Ok(code))) => return code,
        Ok(Ok(Err(exit))) => exit,
        Ok(Err(no_thread)) => Exit::other(no_thread),
        // The hook has said it.
        Err(_) => return ExitCode::FAILURE,
    };
    device::last_word();
    ExitCode::from(ranks::fail(exit.code, &exit.message))
}

/// The limits that the environment sets, and the threads that all programs share.
fn begin() -> Result<(), Exit> {
    let text = std::env::var_os(guard::limits::VARIABLE).unwrap_or_default();
    guard::limits::set(guard::Limits::parse(&text.to_string_lossy()).map_err(Exit::input)?).map_err(Exit::other)?;
    // Started here, as the library panics where it finds later that it cannot. 0 is as many as it finds right.
    let threads = ranks::threads()?.unwrap_or(0);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().map_err(|e| {
        Exit::other(format!(
            "the threads of this program cannot be started ({e}); raise the limits of processes and memory (ulimit -u, \
             -v), or set RAYON_NUM_THREADS=1"
        ))
    })
}

/// The parser of a count on the command line, within a range that its error names.
pub fn within<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    range: std::ops::RangeInclusive<u64>,
) -> clap::builder::RangedU64ValueParser<T> {
    clap::builder::RangedU64ValueParser::new().range(range)
}

/// Ranges of what several programs take. None of them bounds what a machine can do; they keep every product of sizes
/// within 64 bits.
pub mod ranges {
    use std::ops::RangeInclusive;

    /// Tokens of a prompt or of a response.
    pub const TOKENS: RangeInclusive<u64> = 0..=1 << 20;
    /// Responses to a prompt, or at a time.
    pub const RESPONSES: RangeInclusive<u64> = 0..=1 << 16;
    /// Rows of data.
    pub const ROWS: RangeInclusive<u64> = 0..=1 << 40;
    /// Pixels of a resized picture; 0 is no limit.
    pub const PIXELS: RangeInclusive<u64> = 0..=1 << 32;
}
