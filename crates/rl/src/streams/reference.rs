//! Log-probs under the reference policy, for a KL term.
//!
//! Needs the reference policy in memory and one forward of it over all groups.

use kernels::Kernels;

use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::learn::{GroupRef, ScoreRequest, score};
use crate::policy::Policy;
use crate::trajectory::ScoredGroup;

/// Sets `ref_log_probs` of every response.
///
/// # Errors
/// No reference policy; a device that cannot be read.
pub(super) fn compute<B: Kernels, P: Policy<B>>(
    reference: Option<&P>,
    groups: &mut [ScoredGroup],
    request: &ScoreRequest,
) -> Result<(), TrainError> {
    let reference = reference
        .ok_or_else(|| TrainError::Input("a KL term needs the reference policy, which was not loaded".into()))?;
    let refs: Vec<GroupRef> = groups.iter().map(ScoredGroup::refs).collect();
    // Its tower may be another one, so the policy's embeddings are not its own.
    let scores = score(reference, &mut ImageCache::default(), &refs, request)?;
    for (group, scores) in std::iter::zip(groups, scores) {
        for (trajectory, scores) in std::iter::zip(&mut group.trajectories, scores) {
            trajectory.streams.ref_log_probs = Some(scores.log_probs);
        }
    }
    Ok(())
}
