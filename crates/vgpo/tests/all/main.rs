//! One program: each test program compiles Burn's operations anew.

mod equations;
mod golden;
mod oracle;
mod properties;
