//! `generate`: one response of a Qwen-VL folder to pictures and a question, streamed; its numbers and its visual
//! focus on request.

fn main() -> std::process::ExitCode {
    programs::generate::main()
}
