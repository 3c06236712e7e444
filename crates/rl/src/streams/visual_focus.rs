//! Visual focus (equations 2 to 4): how close each token's hidden state is to the prototype of the prompt's image rows.
//!
//! It costs no forward: the sampler computes it while it decodes, and the scoring pass from hidden states that it has.

use std::ops::Range;

use ::policy::PackedBatch;
use ::vgpo::PrototypeMode;
use burn::tensor::Tensor;
use kernels::{Kernels, host};

use crate::error::TrainError;
use crate::focus;
use crate::learn::ResponseScores;
use crate::trajectory::{ScoredGroup, Trajectory};

/// Whether the sampler reported it for every response to a prompt with an image.
pub(super) fn is_known(groups: &[ScoredGroup]) -> bool {
    let known = |group: &ScoredGroup| group.trajectories.iter().all(|t| t.streams.visual_focus.is_some());
    groups.iter().all(|group| !group.has_image() || known(group))
}

/// From the scoring pass to the record; none for a prompt without an image.
pub(super) fn store(trajectory: &mut Trajectory, scores: &mut ResponseScores) {
    trajectory.streams.visual_focus = scores.visual_focus.take();
}

/// The focus of the responses `segments` of a packed batch, one after the other, to the picture of its `k`-th prompt,
/// whose hidden states are `[N, d]`; none without a picture.
///
/// # Errors
/// A device that cannot be read; image tokens that are not where the grids say.
pub(crate) fn of_group<B: Kernels>(
    hidden: &Tensor<B, 2>,
    batch: &PackedBatch<B>,
    k: usize,
    segments: Range<usize>,
    mode: PrototypeMode,
    grids: &[[usize; 3]],
) -> Result<Option<Vec<f32>>, TrainError> {
    let prototype = focus::prototype(hidden, &batch.image_rows, &batch.prompts[k], mode, grids)?;
    // The responses of a group are neighbours, so one call serves them all.
    let span = batch.responses[segments].iter().map(|r| r.rows.clone());
    let (first, last) = (span.clone().map(|r| r.start).min(), span.map(|r| r.end).max());
    match (prototype, first, last) {
        (Some(prototype), Some(a), Some(b)) => Ok(Some(host::floats(focus::of_range(hidden, a..b, &prototype))?)),
        _ => Ok(None),
    }
}
