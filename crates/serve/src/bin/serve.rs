//! `serve`: a model behind OpenAI's HTTP interface.

fn main() -> std::process::ExitCode {
    serve::program::main()
}
