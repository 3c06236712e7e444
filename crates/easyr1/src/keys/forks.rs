//! What VGPO, VPPO and PAPO add.

use super::keys;
use crate::table::{Fate::*, KeyEntry};

pub(crate) const VGPO: &[KeyEntry] = keys! {
    "use_intra_trajectory_reweighting": Bool = "false" => Derived(
        &["algorithm.shaping", "algorithm.vgpo.variant", "algorithm.vgpo.intra"],
        "with this or use_inter_trajectory_reweighting the shaping is \"vgpo\", in the form of the released code");
    "use_visual_compensation": Bool = "false" => Same("algorithm.vgpo.compensation");
    "visual_compensation_type": Text = "linear" => Derived(&["algorithm.vgpo.schedule"],
        "linear, exponential; step-function is \"step\"");
    "visual_compensation_strength": Number = "0.5" => Same("algorithm.vgpo.beta");
    "visual_compensation_start_ratio": Number = "0.0" => Only(&["0.0"], "the compensation grows from the first token on; leave it out");
    "visual_compensation_exponent": Number = "2.0" => Only(&["2.0"], "the exponential schedule is a square; leave it out");
    "visual_compensation_step_ratio": Number = "0.5" => Only(&["0.5"], "the step is in the middle; leave it out");
    "use_gated_visual_compensation": Bool = "false" => Same("algorithm.vgpo.gate");
    "visual_attention_threshold": Number = "0.4" => Same("algorithm.vgpo.kappa");
    "gated_visual_compensation_start_ratio": Number = "0.5" => Same("algorithm.vgpo.gamma");
    "use_inter_trajectory_reweighting": Bool = "false" => Derived(
        &["algorithm.shaping", "algorithm.vgpo.variant", "algorithm.vgpo.inter"],
        "with this or use_intra_trajectory_reweighting the shaping is \"vgpo\", in the form of the released code");
    "inter_reweighting_gamma_late": Number = "0.5" => Ignored("VGPO's code does not read it either");
};

pub(crate) const VPPO: &[KeyEntry] = keys! {
    "use_vppo_on_entropy": Bool = "false" => Only(&["false"], "tokens are not chosen by their entropy here; set it to false");
    "top_p_entropy_tokens": Number = "0.2" => Ignored("it belongs to use_vppo_on_entropy, which is refused");
    "use_vppo_on_perception": Bool = "false" => Derived(
        &["algorithm.shaping", "algorithm.vppo.token_filtering", "algorithm.vppo.mask_probability"],
        "the shaping \"vppo\", half of the blocks of a picture blacked out");
    "top_p_perception_tokens": Number = "0.2" => Same("algorithm.vppo.keep_share");
    "use_advantage_shaping": Bool = "false" => Derived(&["algorithm.vppo.trajectory_shaping"],
        "with use_vppo_on_perception; alone it does nothing there either");
    "advantage_scaling_min": Number = "0.8" => Same("algorithm.vppo.beta_min");
};

pub(crate) const ENTROPY_PENALTY: &[KeyEntry] = keys! {
    "use_entropy_penalty": Bool = "false" => Derived(&["actor.entropy_coef", "actor.entropy_type"],
        "the coefficient, or 0; the entropy of the sampled tokens");
    "entropy_penalty_coef": Number = "0.06" => Derived(&["actor.entropy_coef"], "with use_entropy_penalty");
};

pub(crate) const PAPO: &[KeyEntry] = keys! {
    "loss_avg_mode": Text = "token" => Derived(&["actor.loss_avg_mode"], "where it is given it stands above the actor's");
    "use_kl_prcp": Bool = "false" => Derived(&["algorithm.papo.kl_prcp_coef"], "the coefficient, or 0");
    "contrastive_type": Text = "augmented" => Only(&["augmented"], "PAPO's code knows no other either");
    "kl_prcp_schedule": Text = "fixed" => Only(&["fixed"], "the coefficient stays; set it to fixed");
    "kl_prcp_schedule_args": Dict = "{}" => Ignored("it belongs to kl_prcp_schedule = annealing, which is refused");
    "kl_prcp_penalty": Text = "kl" => Derived(&["algorithm.papo.kl_prcp_coef"],
        "low_var_kl; any other is refused where use_kl_prcp is true");
    "kl_prcp_coef": Number = "1e-3" => Derived(&["algorithm.papo.kl_prcp_coef"], "with use_kl_prcp");
    "kl_prcp_apply_mode": Text = "all" => Only(&["all"], "PAPO's code knows no other either");
    "aug_config": Dict = "{}" => Derived(&["algorithm.papo.mask_probability"],
        "black_prob; patch_size has to be 14");
    "incorrect_weighting": Number = "0.1" => Ignored("PAPO's code does not read it either");
    "use_aug_entropy_loss": Bool = "false" => Derived(&["algorithm.papo.aug_entropy_loss_coef"], "the coefficient, or 0");
    "aug_entropy_loss_coef": Number = "0.03" => Derived(&["algorithm.papo.aug_entropy_loss_coef"],
        "with use_aug_entropy_loss and use_kl_prcp");
    "use_ori_entropy_loss": Bool = "false" => Derived(&["algorithm.papo.ori_entropy_loss_coef"], "the coefficient, or 0");
    "ori_entropy_loss_coef": Number = "0.03" => Derived(&["algorithm.papo.ori_entropy_loss_coef"],
        "with use_ori_entropy_loss");
    "use_kl_prcp_clipping": Bool = "false" => Only(&["false"], "the perception term is not clipped; set it to false");
    "kl_prcp_clipping": Number = "0.2" => Ignored("it belongs to use_kl_prcp_clipping, which is refused");
    "use_kl_prcp_token_level_mask": Bool = "false" => Only(&["false"],
        "the perception term is of all tokens; set it to false");
    "kl_prcp_token_level_mask_top_p": Number = "0.2" => Ignored("it belongs to use_kl_prcp_token_level_mask, which is refused");
    "use_sft_loss": Bool = "false" => Only(&["false"], "there is no imitation of right responses beside RL; set it to false");
    "sft_loss_coef": Number = "1e-3" => Ignored("it belongs to use_sft_loss, which is refused");
};

pub(crate) const PAPO_DATA: &[KeyEntry] = keys! {
    "aug_image_key": Text = "images_aug" => Ignored("pictures are masked while a run goes on; a column of masked ones is not read");
};

pub(crate) const PAPO_TRAINER: &[KeyEntry] = keys! {
    "save_best_checkpoint": Bool = "false" => Ignored("the newest trainer.save_limit checkpoints are kept; raise it");
};

pub(crate) const REWARD: &[KeyEntry] = keys! {
    "reward_type": Text = "batch" => Derived(&["reward.function_style"],
        "batch is \"batch\", sequential is \"sequential\", where the function runs as Python");
};

pub(crate) const OPTIM: &[KeyEntry] = keys! {
    "warmup_style": Text = "constant" => Derived(&["actor.optim.lr_scheduler_type"], "the earlier name of lr_scheduler_type");
};
