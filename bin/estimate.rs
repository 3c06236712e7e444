//! `estimate`: will a run fit, and how long will a step of it take?

fn main() -> std::process::ExitCode {
    programs::estimate::main()
}
