//! Tests of the configuration, by what they are about.

mod bad;
mod contradictions;
mod easyr1;
mod lora;
mod overrides;
mod presets;
mod published;
mod round_trip;
mod schema;

use super::{Config, ConfigError, Source, resolve};

/// The smallest valid file.
const SMALL: &str = "[data]\ntrain_files = [\"toy:sum\"]\n";

/// Resolves one file named `run.toml` after the smallest valid one.
fn with(text: &str) -> Result<Config, ConfigError> {
    resolve(&[Source::new("small.toml", SMALL), Source::new("run.toml", text)], &[])
}

/// Resolves the smallest valid file with overrides.
fn overridden(overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    resolve(&[Source::new("small.toml", SMALL)], &overrides)
}
