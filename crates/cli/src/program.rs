//! Programs that stand alone, under their own names, and as subcommands of one program.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::OnceLock;

use clap::Command;

/// A program of the project, as the one program `visual-rl` takes it for a subcommand.
///
/// ```
/// use std::process::ExitCode;
///
/// use clap::CommandFactory as _;
/// use cli::Program;
///
/// /// Says hello.
/// #[derive(clap::Parser)]
/// #[command(name = "hello", after_help = "Examples:\n  hello you")]
/// struct Hello {
///     name: String,
/// }
///
/// const HELLO: Program = Program {
///     name: "hello",
///     about: "Says hello",
///     main: || cli::program(|hello: Hello| Ok(ExitCode::from(u8::from(hello.name.is_empty())))),
///     command: Hello::command,
/// };
/// let help = HELLO.subcommand("whole").render_long_help().to_string();
/// assert!(help.contains("  whole hello you"), "{help}");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, and that of the subcommand.
    pub name: &'static str,
    /// What it does, in one line of a list.
    pub about: &'static str,
    /// From the arguments of this process to its exit code.
    pub main: fn() -> ExitCode,
    /// Its arguments, as they are declared.
    pub command: fn() -> Command,
}

/// What this process was started as where it is a subcommand: the whole program, and its subcommand.
static WITHIN: OnceLock<(&'static str, &'static str)> = OnceLock::new();

impl Program {
    /// Runs it where the first argument of the program `whole` has named it.
    pub fn run_within(&self, whole: &'static str) -> ExitCode {
        // Once: a process is one program.
        let _ = WITHIN.set((whole, self.name));
        (self.main)()
    }

    /// Its arguments as a subcommand of the program `whole`, for lists, completions and pages.
    pub fn subcommand(&self, whole: &str) -> Command {
        let command = renamed((self.command)(), whole);
        let long = command.get_long_about().or(command.get_about()).cloned().unwrap_or_default();
        command.about(self.about).long_about(long)
    }
}

/// The command as a subcommand of `whole`: its examples begin with both names.
fn renamed(command: Command, whole: &str) -> Command {
    let name = command.get_name().to_owned();
    let Some(help) = command.get_after_help().map(ToString::to_string) else { return command };
    let own = |line: &str| {
        let rest = line.strip_prefix("  ").and_then(|rest| rest.strip_prefix(&name));
        rest.filter(|rest| rest.is_empty() || rest.starts_with(' ')).map(|rest| format!("  {whole} {name}{rest}"))
    };
    let lines: Vec<String> = help.lines().map(|line| own(line).unwrap_or_else(|| line.to_owned())).collect();
    command.after_help(lines.join("\n"))
}

/// Reads the arguments of this process.
///
/// # Errors
/// What is wrong with them; help and version, where they are asked for.
pub(crate) fn parse<A: clap::Parser>() -> Result<A, clap::Error> {
    parse_words(A::command(), std::env::args_os(), WITHIN.get().copied())
}

fn parse_words<A: clap::FromArgMatches>(
    mut command: Command,
    words: impl Iterator<Item = OsString>,
    within: Option<(&str, &str)>,
) -> Result<A, clap::Error> {
    let mut words: Vec<OsString> = words.collect();
    if let Some((whole, name)) = within {
        let both = format!("{whole} {name}");
        command = renamed(command, whole).bin_name(&both).display_name(&both);
        words.splice(..words.len().min(2), [both.into()]);
    }
    let mut matches = command.try_get_matches_from_mut(words)?;
    A::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// This program anew, to be given other arguments: its file, and the subcommand where it was started as one.
///
/// # Errors
/// A system that does not tell the file of a process.
pub fn this_program() -> std::io::Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(WITHIN.get().map(|(_, name)| name));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    /// Copies.
    #[derive(Parser, Debug, PartialEq)]
    #[command(
        name = "copy",
        version,
        after_help = "Examples:\n  copy a b\n  copying is not this\n\nExit codes: 0 done."
    )]
    struct Copy {
        from: String,
        #[arg(long)]
        to: Option<String>,
    }

    fn parsed(words: &[&str], within: Option<(&str, &str)>) -> Result<Copy, String> {
        let words = words.iter().map(OsString::from);
        parse_words(Copy::command(), words, within).map_err(|error| error.render().to_string())
    }

    #[test]
    fn a_program_reads_the_same_arguments_under_both_names() {
        let both = Some(("whole", "copy"));
        let wanted = Copy { from: "a".into(), to: Some("copy".into()) };
        assert_eq!(parsed(&["/bin/copy", "a", "--to", "copy"], None).as_ref(), Ok(&wanted));
        assert_eq!(parsed(&["/bin/whole", "copy", "a", "--to", "copy"], both), Ok(wanted));
    }

    #[test]
    fn it_calls_itself_as_it_was_started() {
        let both = Some(("whole", "copy"));
        for (words, within, usage) in [
            (&["/bin/copy"][..], None, "Usage: copy [OPTIONS] <FROM>"),
            (&["/bin/whole", "copy"], both, "Usage: whole copy [OPTIONS] <FROM>"),
        ] {
            let error = parsed(words, within).unwrap_err();
            assert!(error.contains("<FROM>") && error.contains("Usage: "), "{error}");
            let help = parsed(&[words, &["--help"]].concat(), within).unwrap_err();
            assert!(help.contains(usage), "{help}");
        }
        assert!(parsed(&["copy", "--version"], None).unwrap_err().starts_with("copy 0"));
        assert!(parsed(&["whole", "copy", "--version"], both).unwrap_err().starts_with("whole copy 0"));
        let help = parsed(&["whole", "copy", "--help"], both).unwrap_err();
        assert!(help.contains("\n  whole copy a b\n  copying is not this\n\nExit codes: 0 done."), "{help}");
    }
}
