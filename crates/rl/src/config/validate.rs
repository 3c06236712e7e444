//! The one place where values are checked against their ranges and against one another.

use std::collections::BTreeSet;

use super::checks::{Checks, Problem};
use super::section::Node as _;
use super::{Config, ConfigError, LoraSection, LrScheduler, OldLogProbs, SaveFormat, Stage};
use crate::loss::{CorrectionMode, KlType};
use ::reward::RewardType;

/// Responses of one step or of one part of a validation, which are in memory together.
const MOST_RESPONSES: usize = 1 << 24;

impl Config {
    /// Every value out of range and every contradiction; [`resolve`](super::resolve) calls it.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all of them.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut checks = Checks::default();
        self.check_model_and_data(&mut checks);
        self.check_lora(&mut checks);
        self.check_rollout(&mut checks);
        self.check_estimator(&mut checks);
        self.algorithm.methods.validate(self, &mut checks);
        self.check_kl(&mut checks);
        self.check_filter(&mut checks);
        self.algorithm.papo.validate(&mut checks);
        checks.positive(self.algorithm.perturbation.sigma, "algorithm.perturbation.sigma");
        self.check_actor(&mut checks);
        self.check_optim(&mut checks);
        self.check_reward(&mut checks);
        self.check_trainer(&mut checks);
        checks.need(
            !self.parallel.exact_sums || self.actor.old_log_probs == OldLogProbs::Recompute,
            &["parallel.exact_sums", "actor.old_log_probs"],
            "the last bits of the sampler's log-probs depend on the rows that are decoded together; set \
             actor.old_log_probs = \"recompute\"",
        );
        checks.need(
            !self.parallel.exact_sums || self.parallel.tensor <= 1,
            &["parallel.exact_sums", "parallel.tensor"],
            "the sums within a layer that is shared out have an order; set parallel.tensor = 1",
        );
        self.check_stages(&mut checks);
        self.check("", &mut checks);
        if checks.is_empty() {
            // The parts check themselves as well, with a range that was tightened there but not here.
            self.check_parts(&mut checks);
        }
        if checks.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(checks.problems())) }
    }

    /// Settings that can be used but that are known to disappoint.
    pub fn warnings(&self) -> Vec<Problem> {
        let mut checks = Checks::default();
        self.algorithm.papo.warn(&mut checks);
        self.algorithm.methods.warn(self, &mut checks);
        checks.need(
            self.rollout.top_p >= 1.0 || self.actor.old_log_probs == OldLogProbs::Recompute,
            &["rollout.top_p", "actor.old_log_probs"],
            "truncates the distribution while the sampler's log-probabilities are those of the untruncated one",
        );
        checks.problems()
    }

    fn check_parts(&self, checks: &mut Checks) {
        let results = [
            ("actor", self.to_loss_config().validate().map_err(|e| e.to_string())),
            ("reward", self.to_reward_config().validate().map_err(|e| e.to_string())),
        ];
        for (section, result) in results {
            if let Err(reason) = result {
                checks.need(false, &[section], reason);
            }
        }
    }

    fn check_model_and_data(&self, checks: &mut Checks) {
        let data = &self.data;
        checks.need(!self.model.path.trim().is_empty(), &["model.path"], "is empty; name a model folder, or \"toy\"");
        let built_in = self.model.path == "toy" && ["", "toy"].contains(&&self.model.init[..]);
        checks.need(
            built_in || self.model.family.is_empty(),
            &["model.family", "model.path", "model.init"],
            "family is that of the built-in model (path \"toy\", no other init); a folder and an init have their own",
        );
        let all_stages_have_data =
            !self.stages.is_empty() && self.stages.iter().all(|stage| !stage.train_files().is_empty());
        checks.need(
            !data.train_files.is_empty() || all_stages_have_data,
            &["data.train_files"],
            "is empty; name the training data",
        );
        checks.files(&data.train_files, "data.train_files");
        checks.files(&data.val_files, "data.val_files");
        for (value, key) in [
            (&data.prompt_key, "data.prompt_key"),
            (&data.answer_key, "data.answer_key"),
            (&data.image_key, "data.image_key"),
            (&data.format_prompt, "data.format_prompt"),
        ] {
            checks.need(!value.is_empty(), &[key], "is empty");
        }
        checks.need(
            data.max_pixels == 0 || data.min_pixels <= data.max_pixels,
            &["data.min_pixels", "data.max_pixels"],
            format!("min_pixels ({}) is above max_pixels ({})", data.min_pixels, data.max_pixels),
        );
    }

    fn check_lora(&self, checks: &mut Checks) {
        let (model, lora) = (&self.model, &self.model.lora);
        checks.positive(lora.alpha, "model.lora.alpha");
        checks.proper_share(lora.dropout, "model.lora.dropout");
        let as_it_stands = LoraSection { enable: lora.enable, ..LoraSection::default() };
        checks.need(
            lora.enable || *lora == as_it_stands,
            &["model.lora", "model.lora.enable"],
            "its keys do nothing while adapters are not trained; set model.lora.enable = true",
        );
        let on_weights = model.path != "toy" && model.init.is_empty();
        checks.need(
            !lora.enable || on_weights,
            &["model.lora.enable", "model.path", "model.init"],
            "the weights below an adapter stay as they are, and random ones teach nothing; start from a folder with \
             weights, such as a checkpoint's hf/",
        );
        checks.need(
            model.adapter.is_empty() || on_weights,
            &["model.adapter", "model.path", "model.init"],
            "an adapter belongs to the weights that it was trained on; name their folder as model.path",
        );
        checks.need(
            lora.enable || self.trainer.save == SaveFormat::Auto,
            &["trainer.save", "model.lora.enable"],
            "there is no adapter to save; set model.lora.enable = true or save = \"auto\"",
        );
    }

    fn check_rollout(&self, checks: &mut Checks) {
        let rollout = &self.rollout;
        for (n, key, prompts, other) in [
            (rollout.n, "rollout.n", self.data.rollout_batch_size, "data.rollout_batch_size"),
            (rollout.val_n, "rollout.val_n", self.data.val_batch_size, "data.val_batch_size"),
        ] {
            checks.need(
                n.checked_mul(prompts).is_some_and(|responses| responses <= MOST_RESPONSES),
                &[key, other],
                format!("{n} responses to each of {prompts} prompts are more than {MOST_RESPONSES} at once"),
            );
        }
        checks.positive(rollout.temperature, "rollout.temperature");
        checks.positive_share(rollout.top_p, "rollout.top_p");
        checks.positive_share(rollout.val_top_p, "rollout.val_top_p");
        checks.not_negative(rollout.val_temperature, "rollout.val_temperature");
        checks.not_negative(rollout.image_cache_gib, "rollout.image_cache_gib");
        checks.need(
            rollout.val_n <= 1 || rollout.val_temperature > 0.0,
            &["rollout.val_n", "rollout.val_temperature"],
            format!(
                "{} greedy responses to one prompt would all be the same; set val_temperature above 0 or val_n = 1",
                rollout.val_n
            ),
        );
    }

    fn check_estimator(&self, checks: &mut Checks) {
        checks.need(
            self.rollout.n != 1 || !self.algorithm.needs_group(),
            &["rollout.n", "algorithm.adv_estimator"],
            format!(
                "\"{}\" compares the responses to one prompt, so one response has no advantage; \
                 set rollout.n to 2 or more, or use \"remax\" or \"reinforce_plus_plus\"",
                self.algorithm.adv_estimator
            ),
        );
    }

    fn check_kl(&self, checks: &mut Checks) {
        let algorithm = &self.algorithm;
        checks.need(
            !(algorithm.use_kl_loss && algorithm.disable_kl),
            &["algorithm.use_kl_loss", "algorithm.disable_kl"],
            "the KL term cannot be in the loss while it is switched off; set disable_kl = false",
        );
        checks.not_negative(algorithm.kl_coef, "algorithm.kl_coef");
        if algorithm.kl_type == KlType::Adaptive {
            checks.positive(algorithm.kl_target, "algorithm.kl_target");
            // The factor of a step is 1 +- 0.2 responses / horizon.
            let least = 0.2 * self.data.rollout_batch_size as f64 * self.rollout.n as f64;
            checks.need(
                algorithm.kl_horizon > least,
                &["algorithm.kl_horizon"],
                format!(
                    "must be above {least} (a fifth of the responses of a step), is {}; below that one step can take the weight to 0",
                    algorithm.kl_horizon
                ),
            );
            checks.need(
                algorithm.kl_coef > 0.0,
                &["algorithm.kl_coef", "algorithm.kl_type"],
                "an adaptive weight moves by factors, so 0 stays 0; start above 0",
            );
            checks.need(
                !algorithm.disable_kl,
                &["algorithm.kl_type", "algorithm.disable_kl"],
                "an adaptive KL weight needs the KL term; set disable_kl = false",
            );
            checks.need(
                !algorithm.use_kl_loss,
                &["algorithm.kl_type", "algorithm.use_kl_loss"],
                "the adaptive weight is that of the KL term in the reward; set use_kl_loss = false or kl_type = \"fixed\"",
            );
        }
    }

    fn check_filter(&self, checks: &mut Checks) {
        let algorithm = &self.algorithm;
        checks.need(
            !algorithm.filter_zero_variance || algorithm.online_filtering,
            &["algorithm.filter_zero_variance", "algorithm.online_filtering"],
            "drops nothing without dynamic sampling; set online_filtering = true",
        );
        if algorithm.online_filtering {
            checks.need(
                self.rollout.n >= 2,
                &["algorithm.online_filtering", "rollout.n"],
                "one response to a prompt is always all right or all wrong; set rollout.n to 2 or more",
            );
            let key = algorithm.filter_key.as_str();
            checks.need(!key.is_empty(), &["algorithm.filter_key"], "is empty");
            let known = match key {
                "overall" | "accuracy" | "format" => true,
                "overlong" => self.reward.reward_type == RewardType::Dapo || self.reward.overlong_buffer_length > 0,
                _ => false,
            };
            checks.need(
                known || key.is_empty() || self.reward.is_own(),
                &["algorithm.filter_key"],
                format!("is \"{key}\"; this reward has \"overall\", \"accuracy\" and \"format\" (and \"overlong\" with a penalty for length)"),
            );
            checks.need(
                algorithm.filter_low < algorithm.filter_high,
                &["algorithm.filter_low", "algorithm.filter_high"],
                format!("no mean lies above {} and below {}", algorithm.filter_low, algorithm.filter_high),
            );
        }
    }

    fn check_actor(&self, checks: &mut Checks) {
        let actor = &self.actor;
        let update = self.update_batch_size();
        checks.need(
            update == 0 || self.data.rollout_batch_size.is_multiple_of(update),
            &["actor.global_batch_size", "data.rollout_batch_size"],
            format!(
                "{} prompts cannot be cut into optimizer steps of {update}; make one a multiple of the other",
                self.data.rollout_batch_size
            ),
        );
        checks.proper_share(actor.clip_ratio_low, "actor.clip_ratio_low");
        checks.not_negative(actor.clip_ratio_high, "actor.clip_ratio_high");
        checks.need(
            actor.clip_ratio_dual >= 1.0 + actor.clip_ratio_high,
            &["actor.clip_ratio_dual", "actor.clip_ratio_high"],
            format!(
                "must be at least 1 + clip_ratio_high = {}, is {}; it bounds what the first clip leaves unbounded",
                1.0 + actor.clip_ratio_high,
                actor.clip_ratio_dual
            ),
        );
        checks.positive(actor.max_grad_norm, "actor.max_grad_norm");
        checks.positive(actor.activation_memory_gib, "actor.activation_memory_gib");
        checks.positive(actor.rollout_correction_cap, "actor.rollout_correction_cap");
        checks.not_negative(actor.mismatch_warning, "actor.mismatch_warning");
        checks.not_negative(actor.mismatch_limit, "actor.mismatch_limit");
        checks.need(
            !actor.rollout_correction.drops() || actor.rollout_correction_cap > 1.0,
            &["actor.rollout_correction_cap", "actor.rollout_correction"],
            format!("is {}; {}", actor.rollout_correction_cap, crate::loss::correction::TOO_LOW),
        );
        checks.need(
            actor.rollout_correction == CorrectionMode::None || actor.old_log_probs == OldLogProbs::Recompute,
            &["actor.rollout_correction", "actor.old_log_probs"],
            "the correction compares the sampler's log-probabilities with recomputed ones; set \
             old_log_probs = \"recompute\" or rollout_correction = \"none\"",
        );
    }

    fn check_optim(&self, checks: &mut Checks) {
        let optim = &self.actor.optim;
        checks.positive(optim.lr, "actor.optim.lr");
        for beta in optim.betas {
            checks.proper_share(beta, "actor.optim.betas");
        }
        checks.positive(optim.eps, "actor.optim.eps");
        checks.not_negative(optim.weight_decay, "actor.optim.weight_decay");
        checks.proper_share(optim.lr_warmup_ratio, "actor.optim.lr_warmup_ratio");
        checks.share(optim.min_lr_ratio, "actor.optim.min_lr_ratio");
        checks.need(
            optim.lr_warmup_steps == 0 || optim.lr_warmup_ratio == 0.0,
            &["actor.optim.lr_warmup_steps", "actor.optim.lr_warmup_ratio"],
            "both say how long the warm-up is; set one of them to 0",
        );
        checks.need(
            optim.min_lr_ratio == 0.0 || optim.lr_scheduler_type == LrScheduler::Cosine,
            &["actor.optim.min_lr_ratio", "actor.optim.lr_scheduler_type"],
            "a constant learning rate has no end value; set lr_scheduler_type = \"cosine\" or min_lr_ratio = 0",
        );
    }

    fn check_reward(&self, checks: &mut Checks) {
        let reward = &self.reward;
        checks.not_negative(reward.accuracy_weight, "reward.accuracy_weight");
        checks.not_negative(reward.format_weight, "reward.format_weight");
        checks.need(
            reward.accuracy_weight + reward.format_weight > 0.0,
            &["reward.accuracy_weight", "reward.format_weight"],
            "with both 0 every response earns the same",
        );
        checks.not_negative(reward.numeric_tolerance, "reward.numeric_tolerance");
        checks.not_negative(reward.overlong_penalty_factor, "reward.overlong_penalty_factor");
        checks.need(
            reward.overlong_buffer_length == 0 || reward.overlong_penalty_factor != 0.0,
            &["reward.overlong_penalty_factor", "reward.overlong_buffer_length"],
            "a penalty times 0 is none; set overlong_buffer_length = 0",
        );
        checks.need(
            reward.overlong_buffer_length <= self.data.max_response_length,
            &["reward.overlong_buffer_length", "data.max_response_length"],
            format!(
                "a buffer of {} tokens does not fit into responses of {}",
                reward.overlong_buffer_length, self.data.max_response_length
            ),
        );
        checks.need(
            reward.overlong_buffer_length == 0 || reward.uses_rule(),
            &[
                "reward.overlong_buffer_length",
                if reward.command.is_empty() { "reward.function" } else { "reward.command" },
            ],
            "a reward command says the whole reward and gets each response's length; set the buffer to 0",
        );
        checks.positive(reward.command_timeout_s, "reward.command_timeout_s");
        let judges = reward.function.iter().any(|name| name == "judge");
        let alone = "means nothing without reward.function";
        let own = "means nothing without reward.function or reward.command";
        for (good, key, reason) in [
            (reward.function_kwargs.0.is_empty() || !reward.function.is_empty(), "reward.function_kwargs", alone),
            (reward.num_processes <= 1 || reward.is_own(), "reward.num_processes", own),
            (!reward.write_images || reward.is_own(), "reward.write_images", own),
            (
                judges || reward.judge.url.is_empty(),
                "reward.judge.url",
                "is asked where reward.function names \"judge\"",
            ),
        ] {
            checks.need(good, &[key], reason);
        }
        if reward.uses_rule() {
            self.check_prompt_against_reward(checks);
        }
        if !reward.command.is_empty() {
            checks.need(
                !reward.command[0].trim().is_empty(),
                &["reward.command"],
                "names no program; the first element is the program",
            );
        }
    }

    /// The prompt must ask for the form in which the reward looks for the answer.
    fn check_prompt_against_reward(&self, checks: &mut Checks) {
        let prompt = self.data.format_prompt.as_str();
        let Some(asked) = self.data.asked_form() else {
            return;
        };
        checks.need(
            self.reward.reward_type != RewardType::LookBack || prompt == "look_back",
            &["data.format_prompt", "reward.reward_type"],
            format!(
                "\"{prompt}\" does not ask for the <back> span that is rewarded; write format_prompt = \"look_back\""
            ),
        );
        checks.need(
            self.reward.reward_type != RewardType::Math || prompt != "srpo" || self.reward.format_weight == 0.0,
            &["data.format_prompt", "reward.reward_type"],
            "\"srpo\" asks for <perception> first, but the form of \"math\" begins with <think>; write reward_type = \"math_accuracy\"",
        );
        let read = match self.reward.reward_type {
            RewardType::Math | RewardType::MathAccuracy | RewardType::LookBack => "\\boxed{}",
            RewardType::R1v => "<answer> tags",
            RewardType::Dapo => "a last line \"Answer: ...\"",
            // These look for an answer in any of the forms.
            RewardType::MultipleChoice | RewardType::Exact | RewardType::Numeric => return,
        };
        checks.need(
            asked == read,
            &["data.format_prompt", "reward.reward_type"],
            format!(
                "the prompt \"{}\" asks for {asked}, but the reward \"{}\" reads {read}",
                self.data.format_prompt, self.reward.reward_type
            ),
        );
    }

    fn check_trainer(&self, checks: &mut Checks) {
        let trainer = &self.trainer;
        checks.need(!trainer.output_dir.is_empty(), &["trainer.output_dir"], "is empty; name a folder");
        let name = trainer.experiment_name.as_str();
        checks.need(
            !name.contains(['/', '\\']) && name != "." && name != "..",
            &["trainer.experiment_name"],
            format!("\"{name}\" is a path; the name of a folder is needed, and output_dir says where"),
        );
        checks.need(
            trainer.total_epochs >= 1 || trainer.max_steps >= 1,
            &["trainer.total_epochs", "trainer.max_steps"],
            "both are 0, so there is nothing to train",
        );
        checks.need(
            trainer.val_freq == 0 || !self.data.val_files.is_empty(),
            &["trainer.val_freq", "data.val_files"],
            "there is nothing to validate on; name val_files or set val_freq = 0",
        );
    }

    fn check_stages(&self, checks: &mut Checks) {
        let mut names = BTreeSet::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let key = |name: &str| format!("stages.{index}.{name}");
            let last = index + 1 == self.stages.len();
            checks.files(stage.train_files(), &key("train_files"));
            match stage {
                Stage::Sft(stage) => {
                    checks.positive(stage.lr, &key("lr"));
                    checks.not_negative(stage.weight_decay, &key("weight_decay"));
                    checks.share(stage.until_accuracy, &key("until_accuracy"));
                    checks.need(
                        stage.until_accuracy == 0.0 || !self.data.val_files.is_empty(),
                        &[&key("until_accuracy"), "data.val_files"],
                        "there is nothing to measure the accuracy on; name val_files or set until_accuracy = 0",
                    );
                    checks.need(
                        !self.data.solution_key.is_empty(),
                        &[&key("stage"), "data.solution_key"],
                        "a supervised stage needs the column of worked responses; name solution_key",
                    );
                }
                Stage::Rl(stage) => checks.need(
                    stage.steps >= 1 || last,
                    &[&key("steps")],
                    "is 0, which means to the end of training; only the last stage can do that",
                ),
            }
            checks.need(!stage.name().is_empty(), &[&key("name")], "is empty");
            checks.need(
                names.insert(stage.name()) || stage.name() == "sft" || stage.name() == "rl",
                &[&key("name")],
                format!("\"{}\" is the name of an earlier stage; logs could not tell them apart", stage.name()),
            );
        }
    }
}
