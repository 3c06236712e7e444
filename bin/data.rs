//! `data`: look at data sets, check them, convert them, make toy ones.

fn main() -> std::process::ExitCode {
    programs::data::main()
}
