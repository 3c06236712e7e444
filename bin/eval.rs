//! `eval`: a model answers benchmarks, or answers made elsewhere are graded; a table with standard errors at the end.

fn main() -> std::process::ExitCode {
    programs::eval::main()
}
