//! The names of all random numbers of a run. Every number is a hash of a seed and of what it decides
//! ([`uniform`](crate::sampler::uniform)), or comes from a generator that is seeded anew for one purpose; here is what
//! goes into the seeds and keys, so that no two purposes share a stream and a resumed run draws what an uninterrupted
//! one draws.

/// Keeps the random numbers of validation apart from those of training: "validate".
const VALIDATION: u64 = 0x7661_6c69_6461_7465;
/// Keeps those of perturbed pictures apart: "perturb".
const PERTURBATION: u64 = 0x0070_6572_7475_7262;

/// Keeps what adapters drop apart: "dropout".
const DROPOUT: u64 = 0x0064_726f_706f_7574;

/// Which prompt of which draw per group of responses answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RolloutDraw {
    /// Step of the trainer, from 0.
    pub step: u64,
    /// Which draw of prompts within the step, from 0: filtering draws again.
    pub round: u64,
    /// How often the row came before in the same draw.
    pub twin: u64,
    /// Row of the data.
    pub row: u64,
}

/// Key of a group in a training rollout; its seed is `trainer.seed`.
pub(crate) fn rollout(draw: RolloutDraw) -> u64 {
    let RolloutDraw { step, round, twin, row } = draw;
    (step << 24) ^ (round << 16) ^ (twin << 56) ^ (row << 32).rotate_left(7) ^ row
}

/// Names response `number` (from 0) of the group that answers `row`, for what shapings draw. The factor is not the step
/// of splitmix64, by which the draws of one row would be those of the row before, moved by one.
pub(crate) fn response(row: u64, number: u64) -> u64 {
    row.wrapping_mul(0xD6E8_FEB8_6659_FD93) ^ number.rotate_left(48)
}

/// Seed of what a shaping draws in step `step` of a stage, besides the response's name: "shuffle".
pub(crate) fn shaping_seed(step: u64) -> u64 {
    0x0073_6875_6666_6c65 ^ step.wrapping_mul(0xC2B2_AE3D_27D4_EB4F)
}

/// Seed of what adapters drop in the passes of an optimizer step of a stage.
pub(crate) fn dropout_seed(trainer_seed: u64, optimizer_step: u64) -> u64 {
    trainer_seed ^ DROPOUT ^ optimizer_step.rotate_left(20)
}

/// Seed of the sampled responses of validation; the key of a group is its row.
pub(crate) fn validation_seed(trainer_seed: u64) -> u64 {
    trainer_seed ^ VALIDATION
}

/// Seed of the perturbed pictures of a step; the key of a picture is its row.
pub(crate) fn perturbation_seed(trainer_seed: u64, step: u64) -> u64 {
    trainer_seed ^ PERTURBATION ^ step
}

/// Seed of the order in which stage `stage` (from 0) of a run draws its data.
pub(crate) fn stage_seed(data_seed: u64, stage: usize) -> u64 {
    data_seed.wrapping_add(stage as u64 * 0x9E37_79B9)
}

/// Seed of the stochastic rounding of one parameter and its moments in update `step` of the optimizer (FNV-1a).
pub(crate) fn rounding_seed(name: &str, step: usize) -> u64 {
    let bytes = name.bytes().chain((step as u64).to_le_bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints and published figures depend on these.
    #[test]
    fn values_are_what_they_have_always_been() {
        let draw = RolloutDraw { step: 3, round: 2, twin: 1, row: 5 };
        assert_eq!(rollout(draw), (3 << 24) ^ (2 << 16) ^ (1 << 56) ^ (5 << 39) ^ 5);
        let late = RolloutDraw { row: 1 << 30, ..draw };
        assert_eq!(rollout(late), (3 << 24) ^ (2 << 16) ^ (1 << 56) ^ (1 << 5) ^ (1 << 30), "the row is rotated");
        assert_eq!(validation_seed(1), 0x7661_6c69_6461_7464);
        assert_eq!(perturbation_seed(1, 6), 0x0070_6572_7475_7265);
        assert_eq!(stage_seed(u64::MAX, 1), 0x9E37_79B8);
        assert_eq!(response(1, 2), 0xD6EA_FEB8_6659_FD93);
        assert_eq!(shaping_seed(0), 0x0073_6875_6666_6c65);
        assert_eq!(
            rounding_seed("a", 0),
            b"a\0\0\0\0\0\0\0\0"
                .iter()
                .fold(0xCBF2_9CE4_8422_2325, |h, b| { (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3) })
        );
    }
}
