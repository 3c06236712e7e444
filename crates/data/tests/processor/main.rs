//! Model folders, prompts, counting and decoding.

mod folders;
mod pictures;
mod prompts;
mod support;
mod tokens;
