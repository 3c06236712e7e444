//! `push`: a checkpoint to the Hugging Face hub, with a model card.

fn main() -> std::process::ExitCode {
    publish::push::main()
}
