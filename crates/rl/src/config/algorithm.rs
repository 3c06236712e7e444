//! `[algorithm]`: advantages, their shaping, the KL term and the selection of prompts.

use vgpo::{InterScore, PrototypeMode, Schedule, Variant};

use super::field::choices;
use super::section::section;
use crate::advantage::Estimator;
use crate::loss::{KlPenalty, KlType};
use crate::perturb::{AlignChoice, DrawChoice, PerturbationKind};
use crate::shaping::{DependencyKind, ShapingKind};

choices!(Estimator {
    Grpo = "grpo",
    DrGrpo = "dr_grpo",
    Rloo = "rloo",
    Remax = "remax",
    ReinforcePlusPlus = "reinforce_plus_plus",
    GrpoPassk = "grpo_passk",
});
choices!(ShapingKind {
    None = "none",
    Vgpo = "vgpo",
    Vppo = "vppo",
    Pgpo = "pgpo",
    Pepo = "pepo",
    Srpo = "srpo",
    Entropy = "entropy",
});
choices!(Variant { Paper = "paper", Released = "released", });
choices!(Schedule { Linear = "linear", Exponential = "exponential", Step = "step", });
choices!(PrototypeMode { Mean = "mean", PerImage = "per_image", });
choices!(InterScore { Sum = "sum", Mean = "mean", });
choices!(PerturbationKind { PatchBlackout = "patch_blackout", GaussianNoise = "gaussian_noise", Blank = "blank", });
choices!(AlignChoice { Published = "published", Grid = "grid", Stored = "stored", Resized = "resized", });
choices!(DependencyKind { K3 = "k3", LogRatio = "log_ratio", });
choices!(DrawChoice { Published = "published", Response = "response", Prompt = "prompt", });
choices!(KlPenalty { Kl = "kl", Abs = "abs", Mse = "mse", LowVarKl = "low_var_kl", });
choices!(KlType { Fixed = "fixed", Adaptive = "adaptive", });

section! {
    /// From rewards to advantages. beta, gamma, kappa, schedule, variant, intra, inter, compensation, gate,
    /// prototype and inter_score belong to `shaping = "vgpo"` and are read by nothing else.
    pub struct Algorithm {
        /// How the rewards of a group become advantages.
        adv_estimator: Estimator = Estimator::Grpo,
        /// Discount of REINFORCE++'s return.
        discount: f64 = 1.0 => ..=1.0,
        /// How an advantage is spread over the tokens of its response.
        shaping: ShapingKind = ShapingKind::None,
        /// VGPO: "paper" computes the printed equations, "released" what the authors' code computes.
        variant: Variant = Variant::Paper,
        /// VGPO, equation (5): strength of the compensation of late tokens.
        beta: f64 = 0.3 => ..=1e6,
        /// VGPO, equation (6): share of the response, from its end, that may be compensated.
        gamma: f64 = 0.5 => ..=1.0,
        /// VGPO, equation (6): share of those tokens that pass the gate, the most visual first.
        kappa: f64 = 0.2 => ..=1.0,
        /// VGPO: growth of the compensation along the response.
        schedule: Schedule = Schedule::Linear,
        /// VGPO, equations (7)-(8): weigh the tokens within a response.
        intra: bool = true,
        /// VGPO, equations (9)-(11): weigh the responses within a group.
        inter: bool = true,
        /// VGPO, equation (5): compensate late tokens at all.
        compensation: bool = true,
        /// VGPO, equation (6): compensate only the tokens that pass the gate; otherwise all of them.
        gate: bool = true,
        /// VGPO, equation (2): the prototype of a prompt with several images.
        prototype: PrototypeMode = PrototypeMode::Mean,
        /// VGPO, equation (9): the visual score of a response.
        inter_score: InterScore = InterScore::Sum,
        /// No reference policy: no KL term, and no second copy of the weights in memory.
        disable_kl: bool = true,
        /// Put the KL term into the loss; otherwise it is subtracted from the reward.
        use_kl_loss: bool = false,
        /// Estimator of the KL divergence.
        kl_penalty: KlPenalty = KlPenalty::LowVarKl,
        /// Weight of the KL term.
        kl_coef: f64 = 1e-2 => ..=1e6,
        /// Fixed or adaptive weight.
        kl_type: KlType = KlType::Fixed,
        /// Adaptive: the KL divergence to steer to.
        kl_target: f64 = 0.1 => ..=1e6,
        /// Adaptive: responses over which the weight adapts; more is slower.
        kl_horizon: f64 = 10_000.0 => ..=1e12,
        /// Keep only prompts whose group is neither all right nor all wrong (DAPO's dynamic sampling).
        online_filtering: bool = false,
        /// The part of the reward whose group mean is looked at: "overall", "accuracy", "format", "overlong", or a
        /// metric of the reward command.
        filter_key: String = String::from("accuracy"),
        /// Keep a group whose mean lies above this.
        filter_low: f64 = 0.01 => ..=1e9,
        /// Keep a group whose mean lies below this.
        filter_high: f64 = 0.99 => ..=1e9,
        /// Of those, drop groups whose responses all earned the same reward: compared with one another they have no
        /// advantage.
        filter_zero_variance: bool = false,
    }
    sections {
        /// VPPO's own keys.
        vppo: Vppo,
        /// PGPO's own keys.
        pgpo: Pgpo,
        /// PEPO's own keys.
        pepo: Pepo,
        /// SRPO's own keys.
        srpo: Srpo,
        /// Keys of the entropy-based advantage.
        entropy: Entropy,
        /// PAPO's own keys.
        papo: Papo,
        /// How pictures are perturbed.
        perturbation: Perturbation,
    }
}

section! {
    /// VPPO (arXiv 2510.09285), read when `algorithm.shaping = "vppo"`. It needs one more forward pass over
    /// each response, with a perturbed image.
    pub struct Vppo {
        /// Probability that a 14x14 pixel block of the perturbed image is blacked out.
        mask_probability: f64 = 0.5 => ..=1.0,
        /// Learn only from the tokens that depend most on the image.
        token_filtering: bool = true,
        /// Share of the tokens of a response that is kept.
        keep_share: f64 = 0.4 => ..=1.0,
        /// Weigh responses by their mean visual dependency.
        trajectory_shaping: bool = true,
        /// Weight of the least dependent response; the greatest follows from a mean weight of 1.
        beta_min: f64 = 0.9 => ..=1.0,
    }
}

section! {
    /// PGPO (arXiv 2604.01840, its equations 4 to 8), read when `algorithm.shaping = "pgpo"`: token weights that keep
    /// their sum, from the divergence over the full vocabulary between the predictions with the image and without it.
    /// It needs one more forward pass over each response, with the image taken out of the prompt.
    pub struct Pgpo {
        /// Dependency on the image, normalised to 0..=1, below which a token is suppressed and from which on it is
        /// amplified.
        tau: f64 = 0.4 => ..=1.0,
        /// Strength of the amplification.
        beta: f64 = 2.0 => ..=1e6,
    }
}

section! {
    /// PEPO (arXiv 2603.22847), read when `algorithm.shaping = "pepo"`: token weights from the similarity to the
    /// image and the entropy, which fade in over the training steps of the stage (weight 1 + step / max_steps (w -
    /// 1)). The paper's base is GRPO with `actor.loss_avg_mode = "seq"` and a KL term of 0.001.
    pub struct Pepo {
        /// Strength of the entropy gate.
        gate_alpha: f64 = 0.05 => ..=1.0,
        /// Temperature of the softmax over the tokens of a response; the released 3B runs use 1.8.
        gate_temperature: f64 = 1.0 => ..=1e6,
    }
}

section! {
    /// SRPO (arXiv 2605.07274, our reading of its abstract), read when `algorithm.shaping = "srpo"`: perception tokens
    /// are weighted by how they depend on the picture, reasoning tokens by how they depend on the description before them. It needs two more forward passes over each response.
    pub struct Srpo {
        /// Strength of the weights.
        lambda: f64 = 1.0 => ..=1e6,
        /// The largest weight; the smallest is its inverse.
        bound: f64 = 2.0 => ..=1e6,
        /// How a token's dependency is read from its log-probability with and without what it should rest on: "k3", a
        /// divergence, or "log_ratio", the signed difference, which is high only where that makes the token likelier
        /// ("consistency"). Both are readings of the abstract.
        dependency: DependencyKind = DependencyKind::K3,
        /// Probability that a 14x14 pixel block of the perturbed image is blacked out.
        mask_probability: f64 = 0.5 => ..=1.0,
    }
}

section! {
    /// Entropy-based advantage (arXiv 2506.14758), read when `algorithm.shaping = "entropy"`: min(alpha H, |A| /
    /// kappa) is added to the advantage of each token, H being its entropy over the full vocabulary, without a
    /// gradient. Not an entropy bonus, which is `actor.entropy_coef`.
    pub struct Entropy {
        /// Weight of the entropy.
        alpha: f64 = 0.4 => ..=1e6,
        /// The term is at most this part of the advantage's size; above 1, so that no advantage changes its sign.
        kappa: f64 = 2.0 => ..=1e6,
    }
}

section! {
    /// PAPO (arXiv 2507.06448): terms added to the loss. It needs one more forward pass over each response,
    /// with a masked image, when `kl_prcp_coef` is above 0. Responses to prompts without an image get the entropy term only.
    pub struct Papo {
        /// gamma: weight of the divergence between log-probabilities with the image and with the masked one,
        /// which is maximised. 0: off. The paper uses 0.01 and 0.02; at 0.04 training collapses.
        kl_prcp_coef: f64 = 0.0 => ..=1e6,
        /// eta 1: weight of the entropy with the image, which is minimised.
        ori_entropy_loss_coef: f64 = 0.0 => ..=1e6,
        /// eta 2: weight of the entropy with the masked image. It stands in the reported loss; its log-probabilities
        /// are constants, as in the released code, so it has no gradient, and is refused without `kl_prcp_coef`.
        aug_entropy_loss_coef: f64 = 0.0 => ..=1e6,
        /// Probability that a 14x14 pixel block of the masked image is blacked out.
        mask_probability: f64 = 0.6 => ..=1.0,
    }
}

section! {
    /// How the picture is perturbed where VPPO, SRPO or PAPO compare with a perturbed one. (PGPO compares with none.)
    pub struct Perturbation {
        /// "patch_blackout" turns blocks of 14x14 pixels black, each with the `mask_probability` of the algorithm;
        /// "gaussian_noise" adds noise to every pixel of the resized picture; "blank" turns all of it black.
        kind: PerturbationKind = PerturbationKind::PatchBlackout,
        /// Where the blocks of a blackout lie: on the "resized" picture (within `data.min_pixels` and
        /// `data.max_pixels`, before the model folder's own resize; released code of VPPO), on the "stored" picture
        /// before any resize (released code of PAPO), on the "grid" of the vision tower's patches, or as "published":
        /// VPPO and SRPO resized, PAPO stored.
        align: AlignChoice = AlignChoice::Published,
        /// Standard deviation of the noise, where black is 0 and white 1.
        sigma: f64 = 0.5 => ..=1e6,
        /// A new draw for each "response", one for each "prompt" (cheaper: its responses share the pass), or as
        /// "published": VPPO and SRPO a response, PAPO a prompt.
        draw: DrawChoice = DrawChoice::Published,
    }
}
