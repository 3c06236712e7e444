//! What stands between the program and files that a stranger made: limits with their reasons, files that are opened
//! only where they are files, panics of foreign code, work on a stack of its own, and the echo of foreign text.
//!
//! No other crate of the workspace is used here; every one may use it.
//!
//! ```
//! // A file of a stranger is read up to a limit, which its error names; its text is harmless when it is printed.
//! let folder = std::env::temp_dir();
//! assert!(guard::file::read(&folder, guard::limits().record_bytes).is_err(), "a folder is no file");
//! assert_eq!(guard::harmless("a\u{1b}[2Jb").contains('\u{1b}'), false);
//! // A panic of foreign code is an error.
//! assert!(guard::caught(|| [1, 2, 3].get(7).copied().unwrap()).is_err());
//! ```

pub mod caught;
mod echo;
pub mod file;
pub mod limits;
pub mod stack;

pub use caught::caught;
pub use echo::{echo, harmless, printable};
pub use limits::{Limit, Limits, limits};
pub use stack::on_stack;
