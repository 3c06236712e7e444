//! What can be wrong with a configuration.

use super::Problem;

/// A configuration that cannot be used. Each message names the place, the key and the way out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A file could not be read.
    #[error("{name}: cannot read the configuration: {reason}")]
    Unreadable {
        /// The file.
        name: String,
        /// The system's reason.
        reason: String,
    },
    /// A file is no TOML.
    #[error("{at}: not valid TOML: {reason}")]
    Syntax {
        /// File and line.
        at: String,
        /// The parser's reason.
        reason: String,
    },
    /// An override is not `key=value`.
    #[error("override `{text}`: {reason}")]
    Override {
        /// The override as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key that does not exist.
    #[error("{at}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// File and line, or the override.
        at: String,
        /// Dotted path.
        key: String,
        /// The nearest key, or the keys there are.
        hint: String,
    },
    /// A value of the wrong type, or none of the choices.
    #[error("{at}: `{key}`: {reason}")]
    WrongValue {
        /// File and line, or the override.
        at: String,
        /// Dotted path.
        key: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A file or an override of EasyR1's.
    #[error(transparent)]
    EasyR1(#[from] easyr1::EasyR1Error),
    /// Values that are out of range or contradict one another; all of them, one per line.
    #[error("the configuration cannot be used:{}", Problem::list(.0))]
    Invalid(Vec<Problem>),
}
