//! `train`: supervised warm start and reinforcement learning of a Qwen-VL policy, as a configuration says.

fn main() -> std::process::ExitCode {
    run::record::built_from(option_env!("VISUAL_RL_COMMIT"));
    programs::train::main()
}
