//! Published algorithms whole: what `algorithm.name` names.
//!
//! A bundle is a TOML fragment with the settings of a paper's run, embedded in the program. It stands on top of the
//! defaults and below every file and override, so each of its keys can be changed.

use super::Source;
use super::field::{nearest, quote};
use super::section::KeyError;

/// The settings of one published algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bundle {
    /// The value of `algorithm.name`.
    pub name: &'static str,
    /// The bundle that stands below this one.
    pub base: Option<&'static str>,
    /// TOML; its first comment says what it is and where it is from.
    pub text: &'static str,
}

macro_rules! bundles {
    ($( $name:literal $( on $base:literal )?, )*) => {
        /// Every bundle, in the order of the documentation.
        pub(crate) const BUNDLES: &[Bundle] = &[$( Bundle {
            name: $name,
            base: bundles!(@base $( $base )?),
            text: include_str!(concat!("bundles/", $name, ".toml")),
        }, )*];
    };
    (@base $base:literal) => { Some($base) };
    (@base) => { None };
}

bundles! {
    "grpo",
    "dr_grpo" on "grpo",
    "rloo" on "grpo",
    "remax" on "grpo",
    "reinforce_plus_plus" on "grpo",
    "grpo_passk" on "grpo",
    "gspo" on "grpo",
    "gspo_token" on "grpo",
    "look_back" on "grpo",
    "pepo" on "grpo",
    "dapo",
    "dapo_entropy" on "dapo",
    "cispo" on "dapo",
    "sapo" on "dapo",
    "vgpo" on "dapo",
    "vgpo_released" on "vgpo",
    "vppo" on "dapo",
    "vppo_8b" on "vppo",
    "pgpo" on "dapo",
    "srpo" on "dapo",
    "papo_g",
    "papo_g_3b" on "papo_g",
    "papo_d" on "dapo",
}

/// The bundle of that name.
pub(crate) fn bundle(name: &str) -> Option<&'static Bundle> {
    BUNDLES.iter().find(|bundle| bundle.name == name)
}

impl Bundle {
    /// What it is and where it is from: its first comment as one paragraph.
    #[cfg(test)]
    pub(crate) fn about(&self) -> String {
        let lines: Vec<&str> = self.text.lines().map_while(|line| line.strip_prefix("# ")).collect();
        lines.join(" ")
    }

    /// Its fragment on top of those below it, as files that come before all others.
    pub(super) fn sources(&self) -> Vec<Source> {
        let mut sources = self.base.and_then(bundle).map(Bundle::sources).unwrap_or_default();
        sources.push(Source::new(format!("algorithm.name = {}", quote(self.name)), self.text));
        sources
    }
}

/// Refuses a name that no bundle has; none at all is good.
pub(super) fn check_name(name: &str) -> Result<(), KeyError> {
    if name.is_empty() || bundle(name).is_some() {
        return Ok(());
    }
    let names: Vec<&str> = BUNDLES.iter().map(|bundle| bundle.name).collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {}?", quote(near)),
        None => format!("the published algorithms are {}", names.join(", ")),
    };
    Err(KeyError::wrong("algorithm.name", format!("no published algorithm is named {}; {hint}", quote(name))))
}
