//! The tokenizer and processor files of a checkpoint, beside those of the model folder.

use std::path::Path;

use ::policy::Companions;
use run::layout::MODEL;
use serde_json::Value;

use crate::error::TrainError;

/// Compares the tokenizer and processor files of the checkpoint with those that the run would go on with.
///
/// # Errors
/// Another tokenizer: its ids mean other texts than the model has learned.
pub(crate) fn compare_companions(
    checkpoint: &Path,
    now: &Companions,
    notes: &mut Vec<String>,
) -> Result<(), TrainError> {
    let folder = checkpoint.join(MODEL);
    let then = Companions::read(&folder)?;
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let same = |a: &[u8], b: &[u8]| a == b || json(a).is_some_and(|a| Some(a) == json(b));
    for (name, bytes) in now.files() {
        let is = match then.get(name) {
            Some(then) if same(then, bytes) => continue,
            // A file that was cut is the checkpoint's fault, not that of model.path.
            Some(then) if name.ends_with(".json") && json(then).is_none() => {
                return Err(TrainError::Checkpoint {
                    path: folder.join(name),
                    reason: "is damaged: it is not JSON; copy it back, or resume from an earlier checkpoint".into(),
                });
            }
            Some(_) if name == "tokenizer.json" => {
                return Err(TrainError::Input(format!(
                    "{}: the tokenizer.json of model.path is another one than this checkpoint was trained with, so \
                     its ids mean other texts; give model.path={}",
                    checkpoint.display(),
                    folder.display()
                )));
            }
            Some(_) => "another one than",
            None => "not in",
        };
        notes.push(format!("changed since the checkpoint: {name} of model.path is {is} the checkpoint's folder"));
    }
    Ok(())
}
