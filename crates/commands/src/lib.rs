//! Every program of the project as a subcommand of one, `visual-rl`, and what is made from their declared arguments:
//! completions for shells, man pages.
//!
//! The programs stand apart from each other so that training compiles no web server and grading no tensors; here all of
//! them come together, and nothing else depends on this.
//!
//! ```
//! let whole = commands::command();
//! let names: Vec<&str> = whole.get_subcommands().map(|program| program.get_name()).collect();
//! assert!(names.starts_with(&["train", "generate", "eval"]), "{names:?}");
//! ```

#![warn(missing_docs)]

mod keys;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;
use cli::{Exit, Program};

/// The name of the whole.
const NAME: &str = "visual-rl";

/// The programs, in the order in which a person meets them.
fn programs() -> impl Iterator<Item = Program> {
    let others =
        [answer::grade::PROGRAM, publish::push::PROGRAM, view_server::program::PROGRAM, serve::program::PROGRAM];
    programs::PROGRAMS.into_iter().chain(others)
}

/// What only the whole does.
#[derive(Subcommand)]
enum OfTheWhole {
    /// Write completions for a shell to standard output
    ///
    /// For bash: visual-rl completions bash > ~/.local/share/bash-completion/completions/visual-rl
    /// (docs/command-line.md has other shells).
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages of all programs into a folder
    Man {
        /// The folder; it is made. Pages that are there are replaced.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Write the JSON Schema of configuration files to standard output, for editors
    Schema,
}

/// The arguments of the whole where they name no program: those start by themselves.
struct WholeArgs(OfTheWhole);

impl CommandFactory for WholeArgs {
    fn command() -> Command {
        command()
    }
    fn command_for_update() -> Command {
        command()
    }
}

impl FromArgMatches for WholeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        OfTheWhole::from_arg_matches(matches).map(Self)
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Parser for WholeArgs {}

/// The whole with everything that it takes.
pub fn command() -> Command {
    let about = "Reinforcement learning from verifiable rewards for Qwen vision-language models";
    let notes = "Each program stands alone, too: `train ...` is `visual-rl train ...`. `visual-rl help PROGRAM` says more.\n\n\
                 Exit codes: 0 done, 1 failed, 2 bad usage or input; some programs have more, in their own help.";
    let whole = Command::new(NAME).subcommands(programs().map(|program| program.subcommand(NAME)));
    let whole =
        OfTheWhole::augment_subcommands(whole).version(env!("CARGO_PKG_VERSION")).about(about).after_help(notes);
    whole.subcommand_required(true).arg_required_else_help(true)
}

/// The program.
pub fn main() -> ExitCode {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    match programs().find(|program| word == program.name) {
        Some(program) => program.run_within(NAME),
        None => cli::program(|WholeArgs(what)| run(what)),
    }
}

fn run(what: OfTheWhole) -> Result<ExitCode, Exit> {
    match what {
        OfTheWhole::Completions { shell } => print(completions(shell).as_bytes()),
        OfTheWhole::Schema => print(rl::config::schema().as_bytes()),
        OfTheWhole::Man { folder } => man(&folder),
    }
}

/// The completions, with the configuration's keys where a program takes settings.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut keys::with_keys(command()), NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    match shell {
        // clap_complete 4.6 spells a name with a hyphen in two ways, and its script then finds no subcommand.
        Shell::Bash => script.replace("visual__subcmd__rl", "visual__rl"),
        // Its script for fish completes no words that stand without an option.
        Shell::Fish => format!("{script}{}\n", keys::for_fish(&command())),
        _ => script.into_owned(),
    }
}

fn man(folder: &Path) -> Result<ExitCode, Exit> {
    let fail = |error| Exit::other(format!("{}: cannot be written: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(fail)?;
    clap_mangen::generate_to(command(), folder).map_err(fail)?;
    print(format!("man -l {}\n", folder.join(format!("{NAME}.1")).display()).as_bytes())
}

/// A reader that has gone away has seen what it wanted.
fn print(text: &[u8]) -> Result<ExitCode, Exit> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Exit::other(format!("standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
