//! `bench`: what a training step costs, phase by phase, on random prompts of given sizes.

fn main() -> std::process::ExitCode {
    programs::bench::main()
}
