//! `grade`: grades answers in JSON lines, as training does.

fn main() -> std::process::ExitCode {
    answer::grade::main()
}
