//! One program: each test program compiles Burn's operations anew.

mod equations;
mod golden;
mod properties;
