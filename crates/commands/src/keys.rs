//! The keys of the configuration as words that a shell can complete, where a program takes `KEY=VALUE`.

use std::sync::OnceLock;

use clap::Command;
use clap::builder::PossibleValuesParser;

/// How programs call the settings that they take at the end.
const SETTINGS: &str = "overrides";

/// The words. Names of values live as long as the program.
fn words() -> &'static [String] {
    static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    WORDS.get_or_init(rl::config::override_words)
}

fn takes_settings(program: &Command) -> bool {
    program.get_arguments().any(|argument| argument.get_id() == SETTINGS)
}

/// The command, where settings are shown to be one of the known words. Good for completions alone: with it a program
/// would take no others.
pub(crate) fn with_keys(command: Command) -> Command {
    command.mut_subcommands(|program| match takes_settings(&program) {
        true => program.mut_arg(SETTINGS, |argument| {
            argument.value_parser(PossibleValuesParser::new(words().iter().map(String::as_str)))
        }),
        false => program,
    })
}

/// The same as a line of fish's.
pub(crate) fn for_fish(command: &Command) -> String {
    let programs = command.get_subcommands().filter(|program| takes_settings(program)).map(Command::get_name);
    let programs: Vec<&str> = programs.collect();
    format!(
        "complete -c {} -n \"__fish_seen_subcommand_from {}\" -a \"{}\"",
        command.get_name(),
        programs.join(" "),
        words().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use clap_complete::Shell;

    #[test]
    fn keys_and_their_words_are_completed_where_settings_are_taken() {
        let script = crate::completions(Shell::Bash);
        let of = |program: &str| {
            let begin = script.find(&format!("\n        visual__rl__subcmd__{program})\n")).unwrap_or_else(|| {
                panic!("{program} has no part in the script: {script}");
            });
            script[begin..].lines().find(|line| line.trim_start().starts_with("opts=")).unwrap().to_owned()
        };
        for program in ["train", "study", "analyze", "doctor", "estimate"] {
            let line = of(program);
            for word in [
                "trainer.backend=cuda",
                "algorithm.vgpo.beta=",
                "algorithm.name=dapo",
                "actor.optim.master_weights=false",
            ] {
                assert!(line.contains(&format!(" {word} ")), "{program}: {word}: {line}");
            }
        }
        assert!(!of("grade").contains("trainer."));
        assert!(of("train").contains("--dry-run") && of("train").contains("--backend"));
        // The words of an option stand behind it.
        assert!(script.contains("compgen -W \"auto flex ndarray wgpu vulkan cuda\""), "{script}");
        let fish = crate::completions(Shell::Fish);
        let line = fish.lines().last().unwrap();
        assert!(
            line.contains("from train analyze study doctor estimate\"") && line.contains(" trainer.backend=cuda "),
            "{line}"
        );
    }
}
