//! `analyze`: the pilot study of visual forgetting on a model folder and a data set, for one model or two.

fn main() -> std::process::ExitCode {
    programs::analyze::main()
}
