//! `train`: supervised warm start and reinforcement learning of a Qwen-VL policy, as a configuration says.

fn main() -> std::process::ExitCode {
    programs::train::main()
}
