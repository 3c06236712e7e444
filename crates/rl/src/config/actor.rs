//! `[actor]` and `[actor.optim]`: the loss and the update.

use super::field::{choice, choices};
use super::section::section;
use crate::loss::{CorrectionMode, EntropyType, LossAvgMode};

choices!(LossAvgMode { Token = "token", Seq = "seq", Constant = "constant", });
choices!(EntropyType { Sampled = "sampled", Full = "full", });
choices!(CorrectionMode {
    None = "none",
    TokenTruncate = "token_truncate",
    TokenMask = "token_mask",
    SequenceTruncate = "sequence_truncate",
    SequenceMask = "sequence_mask",
});

choice! {
    /// Where the log-probabilities of the sampling policy come from.
    pub enum OldLogProbs {
        /// A forward pass of the trainer before the update.
        Recompute = "recompute",
        /// The numbers that the sampler saw.
        Rollout = "rollout",
    }
}

choice! {
    /// Whether a layer's activations are computed again in its backward pass.
    pub enum Recompute {
        /// Where the memory of the device asks for it.
        Auto = "auto",
        /// Always.
        Always = "always",
        /// Never.
        Never = "never",
    }
}

choice! {
    /// The learning rate after the warm-up.
    pub enum LrScheduler {
        /// Stays.
        Constant = "constant",
        /// Falls to `min_lr_ratio` along half a cosine.
        Cosine = "cosine",
    }
}

choice! {
    /// Number format of the optimizer's moments.
    pub enum MomentsDtype {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits with stochastic rounding: half the memory.
        Bf16 = "bf16",
    }
}

choice! {
    /// Number format that gradients are kept in until the update.
    pub enum GradsDtype {
        /// 32 bits.
        F32 = "f32",
        /// 16 bits: half the memory, as PyTorch keeps the gradients of 16-bit weights.
        Bf16 = "bf16",
    }
}

section! {
    /// The loss and the update of the weights.
    pub struct Actor {
        /// Prompts in one optimizer step, each with all its responses; larger than
        /// `data.rollout_batch_size` is taken as that.
        global_batch_size: usize = 128 => 1..=1_048_576,
        /// Tokens in one forward and backward pass; bounds memory, changes no result.
        micro_batch_tokens: usize = 16_384 => 1..=16_777_216,
        /// Passes over a rollout batch.
        ppo_epochs: usize = 1 => 1..=1_000,
        /// Leave responses that were cut at `data.max_response_length` out of the loss, and out of what it is divided
        /// by. They still count in the rewards that the others of their group are compared with.
        mask_truncated: bool = false,
        /// The policy loss.
        loss_type: String = String::from("ppo"),
        /// How token losses are averaged over an optimizer step: "token", over its tokens; "seq", over the tokens of
        /// each response and then over responses; "constant", their sum over responses x `data.max_response_length`
        /// (Dr. GRPO).
        loss_avg_mode: LossAvgMode = LossAvgMode::Token,
        /// The ratio is clipped below at 1 minus this.
        clip_ratio_low: f64 = 0.2 => ..=1.0,
        /// The ratio is clipped above at 1 plus this.
        clip_ratio_high: f64 = 0.3 => ..=1e6,
        /// Dual clip: bound of the ratio where the advantage is negative.
        clip_ratio_dual: f64 = 3.0 => ..=1e9,
        /// Weight of the entropy in the loss: above 0 the entropy is lowered (VPPO's penalty), below 0 raised.
        entropy_coef: f64 = 0.0 => ..=1e6,
        /// Which entropy.
        entropy_type: EntropyType = EntropyType::Sampled,
        /// The gradient is scaled down to this global norm.
        max_grad_norm: f64 = 1.0 => ..=1e38,
        /// Log-probabilities of the sampling policy: a forward pass of the trainer, or the sampler's own.
        old_log_probs: OldLogProbs = OldLogProbs::Recompute,
        /// Weigh the loss by the ratio of the trainer's to the sampler's probabilities, of each token or of
        /// the whole response; ratios above the cap are cut ("truncate") or dropped ("mask").
        rollout_correction: CorrectionMode = CorrectionMode::None,
        /// The largest such weight.
        rollout_correction_cap: f64 = 2.0 => ..=1e9,
        /// Warn where the mean absolute difference between the sampler's log-probs and the trainer's
        /// (`mismatch/log_prob_abs_mean`, in nats) is above this. 0: never.
        mismatch_warning: f64 = 0.05 => ..=1e6,
        /// End the run before it learns from a batch where it is above this: something computes wrongly. 0: never.
        mismatch_limit: f64 = 0.5 => ..=1e6,
        /// Compute a layer's activations again in its backward pass instead of keeping them.
        recompute: Recompute = Recompute::Auto,
        /// With recompute = "auto": GiB that the activations of all layers of a micro-batch may take before they are
        /// computed again. Raise it where the device has room.
        activation_memory_gib: f64 = 4.0 => ..=1e5,
    }
    sections {
        /// AdamW.
        optim: Optim,
    }
}

section! {
    /// AdamW and its learning rate.
    pub struct Optim {
        /// Learning rate after the warm-up.
        lr: f64 = 1e-6 => ..=1e38,
        /// Decay of the two moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Added to the root of the second moment.
        eps: f64 = 1e-8 => ..=1e6,
        /// Decoupled weight decay of matrices; norms and biases have none.
        weight_decay: f64 = 1e-2 => ..=1e6,
        /// Optimizer steps of linear warm-up.
        lr_warmup_steps: usize = 0 => 0..=1_000_000_000_000,
        /// Warm-up as a share of all optimizer steps; instead of `lr_warmup_steps`.
        lr_warmup_ratio: f64 = 0.0 => ..=1.0,
        /// The learning rate after the warm-up.
        lr_scheduler_type: LrScheduler = LrScheduler::Constant,
        /// Cosine: the share of `lr` at the end.
        min_lr_ratio: f64 = 0.0 => ..=1.0,
        /// Keep the weights in 32 bits beside a 16-bit model, so that small updates are not lost.
        master_weights: bool = true,
        /// Number format of the moments.
        moments_dtype: MomentsDtype = MomentsDtype::F32,
        /// Number format that gradients are kept in from their sum to the update.
        grads_dtype: GradsDtype = GradsDtype::F32,
    }
}
