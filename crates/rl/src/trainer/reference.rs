//! The reference policy of a stage: the policy that the stage began with, kept in the run folder so that a resumed run
//! has the same.

use std::path::{Path, PathBuf};

use ::policy::{Hold, ModelError, by_all};
use kernels::Kernels;
use run::folder::{copy_files, partial_of, reference_beside, replace_folder};

use super::Trainer;
use crate::checkpoint::TrainerState;
use crate::error::TrainError;
use crate::policy::Policy;
use crate::run_folder::RunFolder;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// The policy at the beginning of this stage.
    pub(super) fn load_reference(&mut self) -> Result<(), TrainError> {
        let name = name(&self.state);
        let path = self.folder.reference(&name);
        self.state.origin.reference = Some(name.clone());
        if self.state.stage_step == 0 {
            let ranks = &self.setup.ranks;
            let staged = self.policy.stage(Some(&self.setup.companions), ranks.copy(), Hold::Tensors)?;
            let save = |folder: &Path| -> Result<(), TrainError> {
                ranks.world.barrier("a reference is begun")?;
                Ok(by_all(folder, staged.write(folder), &ranks.world)?)
            };
            let saved = match self.folder.is_writer() {
                true => replace_folder(&path, save),
                false => save(&partial_of(&path)),
            };
            match saved {
                Err(TrainError::Model(error @ ModelError::NotFinite { .. })) => {
                    return Err(self.diverged(error.to_string()));
                }
                result => result?,
            }
            self.reference = Some(self.policy.clone());
        } else if self.folder.is_writer() && !path.exists() {
            // A run that goes on from the checkpoint of another folder takes that one's reference policy along.
            let source = find(&self.folder, &name, self.saved.as_deref().unwrap_or(Path::new("")))?;
            replace_folder(&path, |folder| copy_files(&source, folder))?;
        }
        self.setup.ranks.world.barrier("the reference is there")?;
        if self.reference.is_none() {
            self.reference = Some((self.setup.load)(&path)?);
        }
        Ok(())
    }
}

/// The folder in `reference/` of the current stage's reference policy; one that was named keeps its name when stages
/// are dropped.
pub(super) fn name(state: &TrainerState) -> String {
    state.origin.reference.clone().unwrap_or_else(|| format!("stage_{}", state.stage))
}

/// The reference policy of this name: this run's, or that of the run which the checkpoint is from.
///
/// # Errors
/// It is nowhere.
pub(super) fn find(folder: &RunFolder, name: &str, checkpoint: &Path) -> Result<PathBuf, TrainError> {
    let own = folder.reference(name);
    if own.exists() {
        return Ok(own);
    }
    reference_beside(checkpoint, name).ok_or_else(|| {
        TrainError::Input(format!(
            "{}: the reference policy of this stage is gone, and its KL term needs it; copy the folder reference/ of \
             the run that the checkpoint is from, or set algorithm.disable_kl = true",
            own.display()
        ))
    })
}
