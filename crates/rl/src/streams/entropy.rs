//! Entropy of the full vocabulary at each token, in nats, without a gradient.
//!
//! Needs no forward of its own: the head computes it beside the log-probs of the scoring pass
//! ([`super::old_log_probs`]), from the logits that it has at hand.

use crate::learn::ResponseScores;
use crate::trajectory::Trajectory;

/// From the scoring pass to the record.
pub(super) fn store(trajectory: &mut Trajectory, scores: &mut ResponseScores) {
    trajectory.streams.entropy = scores.entropy.take();
}
