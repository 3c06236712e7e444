//! One program: each test program compiles Burn's operations anew.

mod control;
mod equations;
mod golden;
mod oracle;
mod properties;
