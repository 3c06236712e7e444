//! The reference policy of a stage: the policy that the stage began with, kept in the run folder so that a resumed run
//! has the same.

use std::path::{Path, PathBuf};

use ::policy::ModelError;
use kernels::Kernels;

use super::Trainer;
use crate::checkpoint::TrainerState;
use crate::error::TrainError;
use crate::policy::Policy;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// The policy at the beginning of this stage, kept in the run folder so that a resumed run has the same.
    pub(super) fn load_reference(&mut self) -> Result<(), TrainError> {
        let name = reference_name(&self.state);
        let path = self.folder.root().join("reference").join(&name);
        self.state.origin.reference = Some(name);
        // Under another name until it is whole.
        let partial = path.with_extension("partial");
        if self.state.stage_step == 0 {
            let io = io_error(&path);
            match self.policy.save(&partial, Some(&self.setup.companions)) {
                Err(error @ ModelError::NotFinite { .. }) => return Err(self.diverged(error.to_string())),
                result => result?,
            }
            if path.exists() {
                std::fs::remove_dir_all(&path).map_err(&io)?;
            }
            std::fs::rename(&partial, &path).map_err(io)?;
            self.reference = Some(self.policy.clone());
        } else if !path.exists() {
            // A run that goes on from the checkpoint of another folder takes that one's reference policy along.
            let checkpoint = self.saved.clone().unwrap_or_default();
            let source = reference_elsewhere(&path, &checkpoint)?;
            std::fs::create_dir_all(&partial).map_err(io_error(&partial))?;
            for entry in std::fs::read_dir(&source).map_err(io_error(&source))? {
                let from = entry.map_err(io_error(&source))?.path();
                std::fs::copy(&from, partial.join(from.file_name().unwrap_or_default())).map_err(io_error(&from))?;
            }
            std::fs::rename(&partial, &path).map_err(io_error(&path))?;
        }
        if self.reference.is_none() {
            self.reference = Some((self.setup.load)(&path)?);
        }
        Ok(())
    }
}

/// The folder in `reference/` of the current stage's reference policy; one that was named keeps its name when stages
/// are dropped.
pub(super) fn reference_name(state: &TrainerState) -> String {
    state.origin.reference.clone().unwrap_or_else(|| format!("stage_{}", state.stage))
}

/// Where the reference policy `path` is that this run does not have: beside the checkpoint.
pub(super) fn reference_elsewhere(path: &Path, checkpoint: &Path) -> Result<PathBuf, TrainError> {
    let name = path.file_name().unwrap_or_default();
    let run = checkpoint.parent().and_then(Path::parent);
    run.map(|run| run.join("reference").join(name)).filter(|source| source.is_dir()).ok_or_else(|| {
        TrainError::Input(format!(
            "{}: the reference policy of this stage is gone, and its KL term needs it; copy the folder reference/ of the run that the \
             checkpoint is from, or set algorithm.disable_kl = true",
            path.display()
        ))
    })
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> TrainError + use<> {
    let path = path.to_path_buf();
    move |source| TrainError::Model(ModelError::Io { path: path.clone(), source })
}
