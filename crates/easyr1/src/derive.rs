//! From EasyR1's values to this program's: the rules that the table says in words.

use toml::Value;

use crate::rewards::{RewardSourceFile, ShippedRule, look_up};
use crate::stated::{Stated, nearest};
use crate::table::Fate;
use crate::{Conversion, EasyR1Error, Gap, Setting};

/// Collects settings and gaps.
struct Derivation<'a> {
    stated: &'a Stated,
    out: Conversion,
    gaps: Vec<Gap>,
}

/// Applies every rule.
///
/// # Errors
/// All gaps together.
pub(crate) fn derive(stated: &Stated) -> Result<Conversion, EasyR1Error> {
    let mut derivation = Derivation { stated, out: Conversion::default(), gaps: Vec::new() };
    derivation.refuse();
    derivation.data();
    derivation.model();
    derivation.rollout();
    derivation.algorithm();
    derivation.forks();
    derivation.actor();
    derivation.optim();
    let is_dapo = derivation.reward();
    derivation.filter(is_dapo);
    derivation.trainer();
    derivation.same();
    match derivation.gaps.is_empty() {
        true => Ok(derivation.out),
        false => Err(EasyR1Error::Gaps(derivation.gaps)),
    }
}

impl Derivation<'_> {
    fn set(&mut self, key: &'static str, value: impl Into<Value>, from: &str) {
        let at = self.stated.get(from).at.clone();
        self.out.settings.push(Setting { key, value: value.into(), from: from.to_string(), at });
    }

    fn gap(&mut self, key: &str, reason: impl Into<String>) {
        let at = self.stated.get(key).at.clone();
        self.gaps.push(Gap { at, key: key.to_string(), reason: reason.into() });
    }

    /// A note about a key that a file or an override has.
    fn note(&mut self, key: &str, note: &str) {
        let at = &self.stated.get(key).at;
        if !at.is_empty() {
            self.out.notes.push(format!("{key} ({at}): {note}"));
        }
    }

    /// Values of which only some can be had.
    fn refuse(&mut self) {
        for key in &self.stated.keys {
            let Fate::Only(good, why) = key.fate else { continue };
            let found = &self.stated.get(&key.name).value;
            let is_good = good.iter().any(|text| {
                let node = crate::yaml::read("the table", text).ok();
                node.and_then(|node| key.kind.read(&node).ok()).is_some_and(|value| value == *found)
            });
            // A tokenizer of the model's own folder is that folder's.
            let is_models = key.name == "worker.actor.model.tokenizer_path"
                && self.stated.text(&key.name) == self.stated.text("worker.actor.model.model_path");
            if !is_good && !is_models {
                let found = found.as_ref().map_or("null".to_string(), |value| guard::echo(&value.to_string()));
                self.gap(&key.name, format!("is {found}, and only {} can be had: {why}", good.join(" or ")));
            }
        }
    }

    /// Keys that keep their values. Those of an algorithm that is off say nothing.
    fn same(&mut self) {
        let shaping = self.out.settings.iter().find(|setting| setting.key == "algorithm.shaping");
        let shaping = shaping.and_then(|setting| setting.value.as_str()).unwrap_or_default().to_string();
        for key in &self.stated.keys {
            let Fate::Same(to) = key.fate else { continue };
            let of_shaping = ["vgpo", "vppo"].into_iter().find(|name| to.starts_with(&format!("algorithm.{name}.")));
            let is_set = self.out.settings.iter().any(|setting| setting.key == to);
            if of_shaping.is_none_or(|name| name == shaping) && !is_set {
                // Every key that is kept has a value: none of them may be null.
                if let Some(value) = self.stated.get(&key.name).value.clone() {
                    self.set(to, value, &key.name);
                }
            }
        }
    }

    /// One of `names`, else a gap that says what there is.
    fn choice(&mut self, key: &str, names: &[(&str, &'static str)], instead: &str) -> Option<&'static str> {
        let text = self.stated.text(key).to_string();
        let found = names.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let near = nearest(&text, names.iter().map(|(name, _)| *name));
            let near = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            let all: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            self.gap(key, format!("is {}, and there are {}{near}{instead}", guard::echo(&text), all.join(", ")));
        }
        found.map(|(_, ours)| *ours)
    }

    /// A whole number of at least `least`; `none` stands for null, and for less where `below` says so.
    fn whole(&mut self, to: &'static str, key: &str, none: i64) {
        let value = self.stated.int(key).filter(|value| *value >= 0).unwrap_or(none);
        self.set(to, value, key);
    }

    fn data(&mut self) {
        for (to, key) in [("data.train_files", "data.train_files"), ("data.val_files", "data.val_files")] {
            let files = match self.stated.get(key).value.clone() {
                Some(Value::Array(list)) => list,
                Some(Value::String(file)) if !file.is_empty() => vec![Value::String(file)],
                _ => vec![],
            };
            self.set(to, files, key);
        }
        self.set("data.image_dir", self.stated.text("data.image_dir").to_string(), "data.image_dir");
        self.whole("data.min_pixels", "data.min_pixels", 0);
        self.whole("data.max_pixels", "data.max_pixels", 0);
        self.set("data.seed", self.stated.int("data.seed").unwrap_or(1), "data.seed");
        let filter = self.stated.is("data.filter_overlong_prompts");
        self.set("data.filter_overlong_prompts", filter, "data.filter_overlong_prompts");
        self.whole("data.val_batch_size", "data.val_batch_size", 512);
        // As PIL's convert("RGB") and Image.open leave pictures.
        self.set("data.alpha", "drop", "data.image_key");
        self.set("data.exif_orientation", "ignore", "data.image_key");
        self.format_prompt();
    }

    fn format_prompt(&mut self) {
        const KEY: &str = "data.format_prompt";
        const BUILT_IN: &[(&str, &str)] = &[
            ("math.jinja", "math"),
            ("r1v.jinja", "r1v"),
            ("dapo.jinja", "dapo"),
            ("math_perception.jinja", "math_perception"),
            ("math_format_perception.jinja", "math_perception"),
        ];
        let path = self.stated.text(KEY).to_string();
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.is_empty() {
            self.set(KEY, "none", KEY);
        } else if std::path::Path::new(&path).is_file() {
            if !path.ends_with(".jinja") {
                self.gap(KEY, "a format prompt ends in .jinja here; rename the file");
            }
            self.set(KEY, path.clone(), KEY);
        } else if let Some((_, ours)) = BUILT_IN.iter().find(|(file, _)| *file == name) {
            self.note(
                KEY,
                &format!(
                    "the file is not here, so the built-in prompt \"{ours}\" is used, which asks for the same form"
                ),
            );
            self.set(KEY, *ours, KEY);
        } else {
            self.gap(KEY, format!("there is no file {}; paths start where the program runs", guard::echo(&path)));
        }
    }

    fn model(&mut self) {
        const PATH: &str = "worker.actor.model.model_path";
        match self.stated.text(PATH) {
            "" => self.gap(PATH, "no model is named; give a model folder"),
            path => {
                let path = path.to_string();
                self.set("model.path", path, PATH);
            }
        }
        const CHECKPOINTING: &str = "worker.actor.model.enable_gradient_checkpointing";
        let recompute = if self.stated.is(CHECKPOINTING) { "auto" } else { "never" };
        self.set("actor.recompute", recompute, CHECKPOINTING);
        self.lora();
    }

    fn lora(&mut self) {
        const RANK: &str = "worker.actor.model.lora.rank";
        const TARGETS: &str = "worker.actor.model.lora.target_modules";
        const WITHOUT: &str = "worker.actor.model.lora.exclude_modules";
        let rank = self.stated.int(RANK).unwrap_or_default();
        self.set("model.lora.enable", rank > 0, RANK);
        if rank <= 0 {
            return;
        }
        self.set("model.lora.rank", rank, RANK);
        const ALPHA: &str = "worker.actor.model.lora.alpha";
        self.set("model.lora.alpha", self.stated.int(ALPHA).unwrap_or_default() as f64, ALPHA);
        let targets = self.stated.text(TARGETS).trim().to_string();
        let targets: Value = match targets.as_str() {
            "all-linear" => Value::String(targets),
            list => {
                let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
                Value::Array(names.map(Value::from).collect())
            }
        };
        self.set("model.lora.target_modules", targets, TARGETS);
        self.set("model.lora.exclude_modules", self.stated.text(WITHOUT).trim().to_string(), WITHOUT);
    }

    fn rollout(&mut self) {
        const OVER: &str = "worker.rollout.val_override_config";
        self.set("trainer.seed", self.stated.int("worker.rollout.seed").unwrap_or(1), "worker.rollout.seed");
        let mut over = self.stated.dict(OVER);
        let n = over.remove("n").unwrap_or(Value::Integer(1));
        let mut number = |name: &str| {
            let value =
                over.remove(name).unwrap_or(Value::Float(self.stated.number(&format!("worker.rollout.{name}"))));
            value.as_integer().map_or(value, |whole| Value::Float(whole as f64))
        };
        let (temperature, top_p) = (number("temperature"), number("top_p"));
        if over.get("top_k").is_some_and(|value| value.as_integer() == Some(-1)) {
            over.remove("top_k");
        }
        for name in over.keys() {
            self.gap(OVER, format!("has {}, which validation does not know; leave it out", guard::echo(name)));
        }
        if !n.is_integer() || !temperature.is_float() || !top_p.is_float() {
            self.gap(OVER, "temperature and top_p are numbers, n is a whole number");
            return;
        }
        self.set("rollout.val_temperature", temperature, OVER);
        self.set("rollout.val_top_p", top_p, OVER);
        self.set("rollout.val_n", n, OVER);
    }

    fn algorithm(&mut self) {
        const ESTIMATOR: &str = "algorithm.adv_estimator";
        let names = [
            ("grpo", "grpo"),
            ("grpo_passk", "grpo_passk"),
            ("reinforce_plus_plus", "reinforce_plus_plus"),
            ("remax", "remax"),
            ("rloo", "rloo"),
            ("dapo", "grpo"),
        ];
        let instead = " (gae needs a critic, which is not there)";
        if let Some(name) = self.choice(ESTIMATOR, &names, instead) {
            self.set(ESTIMATOR, name, ESTIMATOR);
        }
        const PENALTY: &str = "algorithm.kl_penalty";
        let is_off = self.stated.is("algorithm.disable_kl");
        let in_loss = self.stated.is("algorithm.use_kl_loss") && !is_off;
        self.set("algorithm.use_kl_loss", in_loss, "algorithm.use_kl_loss");
        if !is_off || self.stated.text(PENALTY) != "full" {
            let names = [("kl", "kl"), ("abs", "abs"), ("mse", "mse"), ("low_var_kl", "low_var_kl")];
            if let Some(name) = self.choice(PENALTY, &names, " (full is no estimate of single tokens)") {
                self.set(PENALTY, name, PENALTY);
            }
        }
        const TYPE: &str = "algorithm.kl_type";
        if let Some(name) = self.choice(TYPE, &[("fixed", "fixed"), ("adaptive", "adaptive")], "") {
            // EasyR1's controller acts on the term in the reward alone.
            self.set(TYPE, if is_off || in_loss { "fixed" } else { name }, TYPE);
        }
    }

    fn forks(&mut self) {
        const INTRA: &str = "algorithm.use_intra_trajectory_reweighting";
        const INTER: &str = "algorithm.use_inter_trajectory_reweighting";
        const PERCEPTION: &str = "algorithm.use_vppo_on_perception";
        let (intra, inter) = (self.stated.is(INTRA), self.stated.is(INTER));
        let perception = self.stated.is(PERCEPTION);
        if (intra || inter) && perception {
            self.gap(PERCEPTION, "one shaping at a time: VGPO's or VPPO's");
        }
        if intra || inter {
            let from = if intra { INTRA } else { INTER };
            self.set("algorithm.shaping", "vgpo", from);
            self.set("algorithm.vgpo.variant", "released", from);
            self.set("algorithm.vgpo.intra", intra, INTRA);
            self.set("algorithm.vgpo.inter", inter, INTER);
            const TYPE: &str = "algorithm.visual_compensation_type";
            let names = [("linear", "linear"), ("exponential", "exponential"), ("step-function", "step")];
            if let Some(name) = self.choice(TYPE, &names, "") {
                self.set("algorithm.vgpo.schedule", name, TYPE);
            }
        } else if perception {
            self.set("algorithm.shaping", "vppo", PERCEPTION);
            self.set("algorithm.vppo.token_filtering", true, PERCEPTION);
            self.set("algorithm.vppo.mask_probability", 0.5, PERCEPTION);
            const SHAPING: &str = "algorithm.use_advantage_shaping";
            self.set("algorithm.vppo.trajectory_shaping", self.stated.is(SHAPING), SHAPING);
        } else {
            self.set("algorithm.shaping", "none", PERCEPTION);
        }
        if self.stated.is("algorithm.use_entropy_penalty") {
            const COEF: &str = "algorithm.entropy_penalty_coef";
            self.set("actor.entropy_coef", self.stated.number(COEF), COEF);
            self.set("actor.entropy_type", "sampled", "algorithm.use_entropy_penalty");
        }
        self.papo();
    }

    fn papo(&mut self) {
        const USE: &str = "algorithm.use_kl_prcp";
        const COEF: &str = "algorithm.kl_prcp_coef";
        const PENALTY: &str = "algorithm.kl_prcp_penalty";
        const AUG: &str = "algorithm.aug_config";
        let is_on = self.stated.is(USE);
        if is_on {
            self.choice(PENALTY, &[("low_var_kl", "low_var_kl")], "");
            self.set("algorithm.papo.kl_prcp_coef", self.stated.number(COEF), COEF);
            let mut aug = self.stated.dict(AUG);
            let side = aug.remove("patch_size").unwrap_or(Value::Integer(14));
            let share = aug.remove("black_prob").unwrap_or(Value::Float(0.6));
            let share = share.as_float().or_else(|| share.as_integer().map(|whole| whole as f64));
            match (side.as_integer(), share, aug.keys().next()) {
                (Some(14), Some(share), None) => self.set("algorithm.papo.mask_probability", share, AUG),
                _ => {
                    self.gap(AUG, "takes black_prob, a number, and patch_size: 14; blocks of other sizes are not drawn")
                }
            }
        }
        let entropies = [
            ("algorithm.papo.aug_entropy_loss_coef", "aug_entropy_loss", is_on),
            ("algorithm.papo.ori_entropy_loss_coef", "ori_entropy_loss", true),
        ];
        for (to, name, holds) in entropies {
            if holds && self.stated.is(&format!("algorithm.use_{name}")) {
                let from = format!("algorithm.{name}_coef");
                self.set(to, self.stated.number(&from), &from);
            }
        }
    }

    fn actor(&mut self) {
        const TYPE: &str = "worker.actor.loss_type";
        let names =
            [("default", "ppo"), ("gspo", "gspo"), ("gspo_token", "gspo_token"), ("cispo", "cispo"), ("sapo", "sapo")];
        let loss = self.choice(TYPE, &names, "");
        if let Some(name) = loss {
            self.set("actor.loss_type", name, TYPE);
        }
        // The others clip nothing with it, and it may lie anywhere there.
        const DUAL: &str = "worker.actor.clip_ratio_dual";
        let high = self.stated.number("worker.actor.clip_ratio_high");
        let dual = self.stated.number(DUAL);
        let is_read = matches!(loss, Some("ppo" | "gspo" | "gspo_token"));
        self.set("actor.clip_ratio_dual", if is_read { dual } else { dual.max(1.0 + high) }, DUAL);
        let mode = match self.stated.get("algorithm.loss_avg_mode").is_stated() {
            true => "algorithm.loss_avg_mode",
            false => "worker.actor.loss_avg_mode",
        };
        if let Some(name) = self.choice(mode, &[("token", "token"), ("seq", "seq")], "") {
            self.set("actor.loss_avg_mode", name, mode);
        }
    }

    fn optim(&mut self) {
        const STRATEGY: &str = "worker.actor.optim.strategy";
        const DTYPE: &str = "worker.actor.fsdp.torch_dtype";
        let is_bf16 = match self.stated.text(DTYPE) {
            "" => false,
            _ => {
                self.choice(DTYPE, &[("fp32", "f32"), ("float32", "f32"), ("bf16", "bf16"), ("bfloat16", "bf16")], "")
                    == Some("bf16")
            }
        };
        if let Some(moments) = self.choice(STRATEGY, &[("adamw", "f32"), ("adamw_bf16", "bf16")], "") {
            self.set("actor.optim.moments_dtype", moments, STRATEGY);
            // adamw_bf16 keeps what 16-bit weights lose beside them.
            self.set("actor.optim.master_weights", !is_bf16 || moments == "bf16", DTYPE);
        }
        self.set("actor.optim.grads_dtype", if is_bf16 { "bf16" } else { "f32" }, DTYPE);
        const COMPUTE: &str = "worker.actor.fsdp.mp_param_dtype";
        let names = [("bf16", "auto"), ("bfloat16", "auto"), ("fp32", "f32"), ("float32", "f32")];
        if let Some(name) = self.choice(COMPUTE, &names, " (the range of fp16 is too small)") {
            self.set("trainer.dtype", name, COMPUTE);
        }
        const DECAY: &str = "worker.actor.optim.weight_decay";
        self.set("actor.optim.weight_decay", self.stated.number(DECAY), DECAY);
        self.schedule();
    }

    fn schedule(&mut self) {
        let earlier = "worker.actor.optim.warmup_style";
        let key = match self.stated.get(earlier).is_stated() {
            true => earlier,
            false => "worker.actor.optim.lr_scheduler_type",
        };
        let name = self.choice(key, &[("constant", "constant"), ("cosine", "cosine")], "");
        if let Some(name) = name {
            self.set("actor.optim.lr_scheduler_type", name, key);
        }
        if name == Some("cosine") {
            const LEAST: &str = "worker.actor.optim.min_lr_ratio";
            self.set("actor.optim.min_lr_ratio", self.stated.number(LEAST), LEAST);
        }
        const STEPS: &str = "worker.actor.optim.lr_warmup_steps";
        const RATIO: &str = "worker.actor.optim.lr_warmup_ratio";
        match self.stated.int(STEPS) {
            Some(steps) => {
                let each = self.optimizer_steps();
                if steps > 0 && each > 1 {
                    self.note(
                        STEPS,
                        &format!("{steps} training steps are {} optimizer steps", steps.saturating_mul(each)),
                    );
                }
                self.set("actor.optim.lr_warmup_steps", steps.max(0).saturating_mul(each), STEPS);
            }
            None => self.set("actor.optim.lr_warmup_ratio", self.stated.number(RATIO), RATIO),
        }
    }

    /// Optimizer steps of a training step.
    fn optimizer_steps(&self) -> i64 {
        let of = |key: &str| self.stated.int(key).unwrap_or_default().max(1);
        let (rollout, update) = (of("data.rollout_batch_size"), of("worker.actor.global_batch_size"));
        let cuts = rollout / update + i64::from(rollout % update != 0);
        cuts.saturating_mul(of("worker.actor.ppo_epochs"))
    }

    /// Whether the reward is DAPO's, whose accuracy is -1 or 1 there.
    fn reward(&mut self) -> bool {
        const FUNCTION: &str = "worker.reward.reward_function";
        let named = self.stated.text(FUNCTION).to_string();
        if named.is_empty() {
            self.gap(FUNCTION, "no reward is named; write FILE.py:FUNCTION");
            return false;
        }
        let (path, function) = named.rsplit_once(':').unwrap_or((&named, "main"));
        match look_up(path, function) {
            RewardSourceFile::Shipped(rule) => {
                self.shipped(rule);
                return rule == ShippedRule::Dapo;
            }
            RewardSourceFile::Python { is_changed } => self.python(&format!("{path}:{function}"), is_changed),
            RewardSourceFile::Missing(why) => self.gap(FUNCTION, why),
        }
        false
    }

    fn shipped(&mut self, rule: ShippedRule) {
        const FUNCTION: &str = "worker.reward.reward_function";
        const ARGUMENTS: &str = "worker.reward.reward_function_kwargs";
        let mut arguments = self.stated.dict(ARGUMENTS);
        let mut number = |name: &str| {
            let value = arguments.remove(name)?;
            value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
        };
        let name = match rule {
            ShippedRule::Math => "math",
            ShippedRule::MathAccuracy => "math_accuracy",
            ShippedRule::R1v => "r1v",
            ShippedRule::Dapo => "dapo",
        };
        self.set("reward.reward_type", name, FUNCTION);
        match rule {
            ShippedRule::MathAccuracy => {}
            ShippedRule::Math | ShippedRule::R1v => {
                let given = number("format_weight");
                let weight = given.unwrap_or(if rule == ShippedRule::Math { 0.1 } else { 0.5 });
                let from = if given.is_some() { ARGUMENTS } else { FUNCTION };
                // 1 - 0.1 is a hair off 0.9 in binary; the decimal that was meant is short.
                let accuracy = ((1.0 - weight) * 1e12).round() / 1e12;
                self.set("reward.accuracy_weight", accuracy, from);
                self.set("reward.format_weight", weight, from);
            }
            ShippedRule::Dapo => {
                let longest = number("max_response_length");
                let (buffer, factor) = (number("overlong_buffer_length"), number("overlong_penalty_factor"));
                let run = self.stated.int("data.max_response_length").unwrap_or_default();
                match (longest, buffer, factor) {
                    (Some(longest), Some(buffer), Some(factor)) if longest == run as f64 => {
                        self.set("reward.overlong_buffer_length", buffer as i64, ARGUMENTS);
                        self.set("reward.overlong_penalty_factor", factor, ARGUMENTS);
                    }
                    (Some(_), Some(_), Some(_)) => self.gap(
                        ARGUMENTS,
                        format!("max_response_length has to be data.max_response_length, {run}: the penalty for length ends there"),
                    ),
                    _ => self.gap(
                        ARGUMENTS,
                        "dapo.py needs max_response_length, overlong_buffer_length and overlong_penalty_factor",
                    ),
                }
            }
        }
        for name in arguments.keys() {
            self.gap(ARGUMENTS, format!("has {}, which that function does not take", guard::echo(name)));
        }
    }

    fn python(&mut self, function: &str, is_changed: bool) {
        const FUNCTION: &str = "worker.reward.reward_function";
        const ARGUMENTS: &str = "worker.reward.reward_function_kwargs";
        const STYLE: &str = "worker.reward.reward_type";
        if is_changed {
            self.note(FUNCTION, "the file is not as EasyR1 or a fork ships it, so it runs as Python");
        }
        self.set("reward.function", function.to_string(), FUNCTION);
        let arguments = self.stated.dict(ARGUMENTS);
        if !arguments.is_empty() {
            self.set("reward.function_kwargs", arguments, ARGUMENTS);
        }
        if self.stated.get(STYLE).is_stated() {
            let names = [("batch", "batch"), ("sequential", "sequential")];
            if let Some(name) = self.choice(STYLE, &names, "") {
                self.set("reward.function_style", name, STYLE);
            }
        }
    }

    fn filter(&mut self, is_dapo: bool) {
        const KEY: &str = "algorithm.filter_key";
        let key = self.stated.text(KEY).to_string();
        let by_sign = is_dapo && key == "accuracy";
        let name = if is_dapo && key == "accuracy_normalized" { "accuracy".to_string() } else { key };
        self.set(KEY, name, KEY);
        for bound in ["algorithm.filter_low", "algorithm.filter_high"] {
            let value = self.stated.number(bound);
            let to = if bound == "algorithm.filter_low" { "algorithm.filter_low" } else { "algorithm.filter_high" };
            self.set(to, if by_sign { 0.5 * (value + 1.0) } else { value }, bound);
        }
    }

    fn trainer(&mut self) {
        let epochs = self.stated.int("trainer.total_epochs").unwrap_or_default();
        self.set("trainer.total_epochs", epochs.max(0), "trainer.total_epochs");
        self.whole("trainer.max_steps", "trainer.max_steps", 0);
        self.whole("trainer.val_freq", "trainer.val_freq", 0);
        self.whole("trainer.val_generations_to_log", "trainer.val_generations_to_log", 0);
        self.whole("trainer.save_freq", "trainer.save_freq", 0);
        self.whole("trainer.save_limit", "trainer.save_limit", 0);
        const FIND: &str = "trainer.find_last_checkpoint";
        self.set("trainer.resume", if self.stated.is(FIND) { "auto" } else { "none" }, FIND);
        const PATH: &str = "trainer.save_checkpoint_path";
        match self.stated.text(PATH) {
            "" => {
                let project = format!("checkpoints/{}", self.stated.text("trainer.project_name"));
                self.set("trainer.output_dir", project, "trainer.project_name");
                let name = self.stated.text("trainer.experiment_name").to_string();
                self.set("trainer.experiment_name", name, "trainer.experiment_name");
            }
            path => {
                let path = path.to_string();
                self.set("trainer.output_dir", path, PATH);
                self.set("trainer.experiment_name", "", PATH);
            }
        }
        self.tries();
    }

    /// The limit of rounds: of `data.mini_rollout_batch_size` prompts there, of a whole batch here.
    fn tries(&mut self) {
        const TRIES: &str = "trainer.max_try_make_batch";
        const PART: &str = "data.mini_rollout_batch_size";
        let tries = self.stated.int(TRIES).unwrap_or_default().max(0);
        let whole = self.stated.int("data.rollout_batch_size").unwrap_or_default().max(1);
        let rounds = match self.stated.int(PART) {
            Some(part) if part > 0 && tries > 0 => {
                let prompts = tries.saturating_mul(part);
                let rounds = prompts / whole + i64::from(prompts % whole != 0);
                self.note(PART, &format!("{tries} rounds of {part} prompts are {rounds} of {whole}"));
                rounds
            }
            _ => tries,
        };
        self.set("trainer.max_try_make_batch", rounds, TRIES);
    }
}
