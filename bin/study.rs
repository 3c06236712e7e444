//! `study`: trains the rows of a study from shared warm starts, several at a time, and reports what can be said about
//! them.

fn main() -> std::process::ExitCode {
    programs::study::main()
}
