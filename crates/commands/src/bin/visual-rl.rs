//! `visual-rl`: every program of the project as a subcommand of one.

fn main() -> std::process::ExitCode {
    run::record::built_from(option_env!("VISUAL_RL_COMMIT"));
    commands::main()
}
