//! `view`: runs in the browser, or as one HTML file.

fn main() -> std::process::ExitCode {
    view_server::program::main()
}
