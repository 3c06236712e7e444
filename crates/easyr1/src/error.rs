//! What can be wrong with a file or an override of EasyR1's.

/// One thing of a file that has no place here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// File and line, or the override; empty for one of EasyR1's defaults.
    pub at: String,
    /// The key in EasyR1's spelling.
    pub key: String,
    /// Why not, and what to do.
    pub reason: String,
}

/// Why a file of EasyR1's does not make a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EasyR1Error {
    /// A file is no YAML that can be read.
    #[error("{at}: not valid YAML: {reason}")]
    Syntax {
        /// File and line.
        at: String,
        /// What is wrong there.
        reason: String,
    },
    /// A key that EasyR1 and its forks do not have.
    #[error("{at}: EasyR1 has no key `{key}`; {hint}")]
    Unknown {
        /// File and line, or the override.
        at: String,
        /// Dotted path.
        key: String,
        /// The nearest key, or where keys are listed.
        hint: String,
    },
    /// A value of another type than the key's.
    #[error("{at}: `{key}`: {reason}")]
    Wrong {
        /// File and line, or the override.
        at: String,
        /// Dotted path.
        key: String,
        /// What was expected, and what was found.
        reason: String,
    },
    /// What this program does not do: all of it, one a line.
    #[error("this run of EasyR1's asks for what is not done here:{}", list(.0))]
    Gaps(Vec<Gap>),
}

fn list(gaps: &[Gap]) -> String {
    let line = |gap: &Gap| match gap.at.is_empty() {
        true => format!("\n  {}: {}", gap.key, gap.reason),
        false => format!("\n  {} ({}): {}", gap.key, gap.at, gap.reason),
    };
    gaps.iter().map(line).collect()
}
