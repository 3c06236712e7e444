//! The server as its clients see it: in this process over a fixture's model, and as a program.

mod answers;
mod bad_input;
mod endings;
mod load;
mod program;
mod several;
mod support;
