//! `doctor`: whether a device computes what it should, before hours are spent on it.

fn main() -> std::process::ExitCode {
    programs::doctor::main()
}
