//! The page of runs as it is served, as the program `view` starts it, and as a browser shows it.

mod browser;
mod chromium;
mod invented;
mod program;
mod server;
