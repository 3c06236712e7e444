//! What a checkpoint says to those who find it: a model card (`README.md`) with base model, data, algorithm,
//! the settings and what was measured. All of it is read from the run folder, and what is not there is not claimed.
//!
//! ```no_run
//! let card = publish::card::Card::of_checkpoint("runs/mine/checkpoints/global_step_900".as_ref(), "me/mine")?;
//! println!("{}", card.text());
//! # Ok::<(), String>(())
//! ```

#![warn(missing_docs)]

pub mod card;
pub mod push;
