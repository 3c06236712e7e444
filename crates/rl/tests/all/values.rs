//! What the metrics of a small run have to be, worked out from its settings and its logged responses.

use std::path::Path;

use serde_json::{Map, Value};

use crate::common::pairs;

/// Responses of a group.
pub(crate) const GROUP: usize = 8;

/// A finished run of two steps.
pub(crate) struct Run<'a> {
    settings: &'a [&'a str],
    lines: &'a [Map<String, Value>],
    /// The responses of the first step.
    responses: Vec<Map<String, Value>>,
    complaints: Vec<String>,
}

/// What is wrong with a run; `plain` are the lines of the same run without any of the settings.
pub(crate) fn complaints(
    settings: &[&str],
    dir: &Path,
    lines: &[Map<String, Value>],
    plain: &[Map<String, Value>],
) -> Vec<String> {
    let text = std::fs::read_to_string(dir.join("rollouts/step_1.jsonl")).unwrap();
    let responses = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut run = Run { settings, lines, responses, complaints: vec![] };
    run.rewards();
    run.advantages();
    run.losses();
    run.shapings();
    run.options(plain);
    run.complaints
}

impl Run<'_> {
    /// The value of a setting, if the run has it.
    fn set(&self, key: &str) -> Option<&str> {
        self.settings.iter().rev().find_map(|s| s.strip_prefix(key)?.strip_prefix('='))
    }

    fn is(&self, setting: &str) -> bool {
        self.settings.contains(&setting)
    }

    /// A metric of step 1 or 2; NaN if it is not there.
    fn at(&self, step: usize, key: &str) -> f64 {
        self.lines[step - 1].get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    fn one(&self, key: &str) -> f64 {
        self.at(1, key)
    }

    fn check(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.complaints.push(what());
        }
    }

    fn near(&mut self, what: &str, found: f64, expected: f64, tolerance: f64) {
        let right = (found - expected).abs() <= tolerance * (1.0 + expected.abs());
        self.check(right, || format!("{what} is {found}, not {expected}"));
    }

    fn within(&mut self, what: &str, found: f64, low: f64, high: f64) {
        self.check(found >= low && found <= high, || format!("{what} is {found}, not in {low}..{high}"));
    }

    fn column(&self, key: &str) -> Vec<f64> {
        self.responses.iter().map(|r| r[key].as_f64().unwrap()).collect()
    }

    fn rewards(&mut self) {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (tokens, rewards) = (self.column("tokens"), self.column("reward"));
        let accuracies = self.column("accuracy");
        self.near("reward", self.one("reward"), mean(&rewards), 1e-9);
        self.near("accuracy", self.one("accuracy"), mean(&accuracies), 1e-9);
        self.near("response_length/mean", self.one("response_length/mean"), mean(&tokens), 1e-9);
        let cut = self.responses.iter().filter(|r| r["finish"] == "length").count() as f64 / tokens.len() as f64;
        self.near("response_length/clip_ratio", self.one("response_length/clip_ratio"), cut, 1e-9);
        for (tokens, (reward, accuracy)) in pairs(&tokens, pairs(&rewards, &accuracies)) {
            match self.set("reward.reward_type") {
                // The bandit: right or wrong, and a penalty that grows from the first token on.
                None => self.near("a reward", *reward, 2.0 * accuracy - 1.0 - tokens / 8.0, 1e-6),
                Some(_) => self.within("a reward", *reward, 0.0, 1.0),
            }
        }
    }

    /// Rewards of the groups of the first step; a group's responses are neighbours.
    fn groups(&self) -> Vec<Vec<f64>> {
        self.column("reward").chunks(GROUP).map(<[f64]>::to_vec).collect()
    }

    /// Without a shaping the mean advantage of a response is the estimator's.
    fn advantages(&mut self) {
        let shaping = self.set("algorithm.shaping").unwrap_or("none").to_string();
        let unshaped = shaping == "none" || (shaping == "srpo" && self.one("srpo/shaped_responses") == 0.0);
        if !unshaped {
            return;
        }
        let estimator = self.set("algorithm.adv_estimator").unwrap_or("grpo").to_string();
        let (found, tokens) = (self.column("advantage_mean"), self.column("tokens"));
        let groups = self.groups();
        if estimator == "reinforce_plus_plus" {
            // Whitened over the tokens of the batch.
            let sum: f64 = pairs(&found, &tokens).map(|(a, t)| a * t).sum();
            self.near("sum of the whitened advantages", sum / tokens.iter().sum::<f64>(), 0.0, 1e-4);
            let order = |values: &[f64]| (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
            if !self.is("algorithm.discount=0.9") {
                let best = order(&groups.concat()).map(|i| found[i]);
                self.near("the best response's advantage", best.unwrap(), found[order(&found).unwrap()], 1e-6);
            }
            return;
        }
        for (rewards, found) in pairs(&groups, found.chunks(GROUP)) {
            let n = rewards.len() as f64;
            let mean = rewards.iter().sum::<f64>() / n;
            let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
            let mut sorted = rewards.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            // ReMax's baseline, the greedy response's reward, is not logged: one number for the whole group.
            let greedy = rewards[0] - found[0];
            for (reward, found) in pairs(rewards, found) {
                let expected = match estimator.as_str() {
                    "dr_grpo" => reward - mean,
                    "rloo" => reward - (mean * n - reward) / (n - 1.0),
                    "grpo_passk" if *reward == sorted[0] => (sorted[0] - sorted[1]) / (std + 1e-6),
                    "grpo_passk" => 0.0,
                    "remax" => reward - greedy,
                    _ => (reward - mean) / (std + 1e-6),
                };
                self.near(&format!("an advantage of {estimator}"), *found, expected, 2e-3);
            }
        }
    }

    fn losses(&mut self) {
        // One optimizer step a batch: the policy is still the one that the ratio is taken against.
        let once = self.set("actor.ppo_epochs").is_none() && self.set("data.rollout_batch_size").is_none();
        for step in [1, 2] {
            let of = |key: &str| self.lines[step - 1].get(key).and_then(Value::as_f64).unwrap_or(0.0);
            let terms = ["actor/pg_loss", "actor/kl_loss", "actor/entropy_loss", "actor/papo_loss"];
            let sum: f64 = terms.iter().map(|key| of(key)).sum();
            self.near("actor/loss", self.at(step, "actor/loss"), sum, 1e-5);
            self.near("actor/skipped_steps", self.at(step, "actor/skipped_steps"), 0.0, 0.0);
            if once {
                self.near("actor/ratio_mean", self.at(step, "actor/ratio_mean"), 1.0, 1e-3);
            }
            let others = terms[1..].iter().any(|key| of(key) != 0.0);
            // Discounted returns of equal rewards differ from token to token.
            let by_token = self.set("algorithm.adv_estimator") == Some("reinforce_plus_plus");
            let flat = self.at(step, "group/zero_variance_share") == 1.0 && !by_token;
            let norm = self.at(step, "actor/grad_norm");
            // The pass@k form reinforces nothing where two responses share the best reward.
            let tied = self.set("algorithm.adv_estimator") == Some("grpo_passk") && of("actor/pg_loss") == 0.0;
            match (flat || tied) && !others {
                true => self.near("actor/grad_norm of flat groups", norm, 0.0, 1e-6),
                false => self.check(norm > 1e-6, || format!("actor/grad_norm is {norm}")),
            }
        }
        let (tokens, advantages) = (self.column("tokens"), self.column("advantage_mean"));
        let masked = self.set("algorithm.shaping") == Some("vppo");
        let surrogate = !matches!(self.set("actor.loss_type"), Some("cispo" | "sapo"));
        if once && surrogate && !masked {
            // At a ratio of 1 the surrogate is the advantage.
            let expected = match self.set("actor.loss_avg_mode") {
                Some("seq") => -advantages.iter().sum::<f64>() / advantages.len() as f64,
                _ => -pairs(&tokens, &advantages).map(|(t, a)| t * a).sum::<f64>() / tokens.iter().sum::<f64>(),
            };
            self.near("actor/pg_loss", self.one("actor/pg_loss"), expected, 2e-3);
        }
    }

    fn shapings(&mut self) {
        match self.set("algorithm.shaping") {
            Some("vgpo") => self.vgpo(),
            Some("vppo") => {
                // Of T tokens ceil(.4 T) are kept: 3 of 7 at most above four tenths, all of one.
                self.within("vppo/kept_tokens", self.one("vppo/kept_tokens"), 0.4, 0.75);
                self.check(self.one("vppo/dependency_mean") > 0.0, || "vppo/dependency_mean is not above 0".into());
                self.within("vppo/trajectory_weight_max", self.one("vppo/trajectory_weight_max"), 1.0, 1.71);
            }
            Some("pgpo") => {
                self.check(self.one("pgpo/dependency_mean") > 0.0, || "pgpo/dependency_mean is not above 0".into());
                // Weights of a response have mean 1 and are at most as many as its tokens.
                self.within("pgpo/token_weight_max", self.one("pgpo/token_weight_max"), 1.0 + 1e-6, 8.0);
            }
            Some("pepo") => {
                // In the last step, where weights that fade in have done so in part.
                self.within("pepo/token_weight_max", self.at(2, "pepo/token_weight_max"), 1.0 + 1e-6, 8.0);
                self.within("pepo/token_weight_min", self.at(2, "pepo/token_weight_min"), 0.0, 1.0 - 1e-6);
            }
            // A policy that was never taught the tags describes nothing.
            Some("srpo") => self.near("srpo/shaped_responses", self.one("srpo/shaped_responses"), 0.0, 0.0),
            _ => {}
        }
    }

    fn vgpo(&mut self) {
        let released = self.is("algorithm.variant=released");
        self.within("vgpo/focus_mean", self.one("vgpo/focus_mean"), 0.0, 1.0);
        for factor in ["token_factor", "trajectory_factor"] {
            let of = |end: &str| self.one(&format!("vgpo/{factor}_{end}"));
            let (low, mean, high) = (of("min"), of("mean"), of("max"));
            let off = factor == "trajectory_factor" && self.is("algorithm.inter=false");
            if off {
                self.check((low, mean, high) == (1.0, 1.0, 1.0), || format!("{factor}: {low} {mean} {high}"));
                continue;
            }
            self.check(low < mean && mean < high, || format!("{factor}: {low} {mean} {high}"));
            let least = if !released {
                0.0
            } else if factor == "token_factor" {
                0.1
            } else {
                0.9
            };
            self.within(&format!("vgpo/{factor}_min"), low, least - 1e-6, 1.0);
            self.within(&format!("vgpo/{factor}_max"), high, 1.0, 2.0 + 1e-6);
            if !released {
                // psi and phi have mean 0.
                self.near(&format!("vgpo/{factor}_mean"), mean, 1.0, 1e-4);
            }
        }
        match self.is("algorithm.gate=false") {
            true => self.near("vgpo/gate_pass_rate", self.one("vgpo/gate_pass_rate"), 1.0, 1e-6),
            // At most one of the tail's few tokens passes, in each response.
            false => self.within("vgpo/gate_pass_rate", self.one("vgpo/gate_pass_rate"), 1.0 / 16.0, 1.0 - 1e-6),
        }
        self.near("vgpo/non_finite_responses", self.one("vgpo/non_finite_responses"), 0.0, 0.0);
    }

    fn options(&mut self, plain: &[Map<String, Value>]) {
        self.papo();
        self.kl();
        let number = |text: Option<&str>| text.and_then(|t| t.parse::<f64>().ok());
        if let Some(coef) = number(self.set("actor.entropy_coef")) {
            let entropy = self.one("actor/entropy");
            self.near("actor/entropy_loss", self.one("actor/entropy_loss"), coef * entropy, 1e-5);
            // The toy's vocabulary has fewer than 200 words.
            self.within("actor/entropy", entropy, 0.1, 200f64.ln());
        }
        if self.set("actor.rollout_correction").is_some() {
            self.near("actor/rollout_correction", self.one("actor/rollout_correction"), 1.0, 1e-3);
        }
        // The pass that PGPO needs beside the sampler gives log-probs, too.
        let recomputes = self.set("actor.old_log_probs") != Some("rollout") || self.is("algorithm.shaping=pgpo");
        self.check(recomputes == self.lines[0].contains_key("mismatch/kl"), || "mismatch/kl".into());
        if recomputes {
            self.within("mismatch/log_prob_abs_max", self.one("mismatch/log_prob_abs_max"), 0.0, 1e-3);
        }
        if self.is("algorithm.online_filtering=true") {
            self.near("filter/kept_share", self.one("filter/kept_share"), 1.0, 0.0);
        }
        if self.is("actor.optim.lr_scheduler_type=cosine") {
            self.near("actor/lr", self.one("actor/lr"), 2e-3, 1e-9);
            self.within("actor/lr of the last step", self.at(2, "actor/lr"), 0.0, 1e-3);
        }
        if self.set("data.val_files").is_some() {
            let (mean, best) = (self.at(2, "val/sampled_accuracy"), self.at(2, "val/pass_at_n"));
            self.within("val/accuracy", self.at(2, "val/accuracy"), 0.0, 1.0);
            self.check((0.0..=1.0).contains(&mean) && best >= mean, || format!("{mean} sampled, {best} at best"));
        }
        let was = |key: &str| plain[0][key].as_f64().unwrap();
        if self.is("model.freeze_vision_tower=true") {
            self.near("actor/pg_loss", self.one("actor/pg_loss"), was("actor/pg_loss"), 1e-5);
            let (frozen, whole) = (self.one("actor/grad_norm"), was("actor/grad_norm"));
            self.check(frozen < whole * (1.0 - 1e-6), || format!("a frozen tower has gradients: {frozen} of {whole}"));
        }
        if self.is("actor.micro_batch_tokens=60") && self.set("algorithm.shaping").is_none() {
            self.near("actor/grad_norm", self.one("actor/grad_norm"), was("actor/grad_norm"), 1e-4);
        }
    }

    fn papo(&mut self) {
        let coef = |key: &str| self.set(&format!("algorithm.papo.{key}")).map_or(0.0, |v| v.parse::<f64>().unwrap());
        let (prcp, own, masked) = (coef("kl_prcp_coef"), coef("ori_entropy_loss_coef"), coef("aug_entropy_loss_coef"));
        if prcp + own + masked == 0.0 {
            return;
        }
        let seen = |key: &str, coef: f64| if coef == 0.0 { 0.0 } else { coef * self.one(key) };
        // Every row of this data has a picture, so means over its tokens are means over all.
        let expected = seen("actor/entropy", own) + seen("actor/masked_entropy", masked) - seen("actor/kl_prcp", prcp);
        self.near("actor/papo_loss", self.one("actor/papo_loss"), expected, 1e-5);
        if prcp > 0.0 {
            self.check(self.one("actor/kl_prcp") > 0.0, || "actor/kl_prcp is not above 0".into());
        }
    }

    fn kl(&mut self) {
        if !self.is("algorithm.disable_kl=false") {
            return;
        }
        // The reference is the policy that the stage began with.
        if self.is("algorithm.use_kl_loss=true") {
            self.near("actor/kl", self.one("actor/kl"), 0.0, 1e-6);
            let kl = self.at(2, "actor/kl");
            self.check(kl > 1e-9, || format!("actor/kl after a step is {kl}"));
            self.near("actor/kl_loss", self.at(2, "actor/kl_loss"), 0.01 * kl, 1e-6);
        } else if self.set("algorithm.kl_type").is_some() || self.lines[0].contains_key("critic/kl") {
            self.near("critic/kl", self.one("critic/kl"), 0.0, 1e-5);
            let kl = self.at(2, "critic/kl");
            self.check(kl.abs() > 1e-9, || format!("critic/kl after a step is {kl}"));
            self.check(self.one("critic/kl_coef") > 0.0, || "critic/kl_coef is not above 0".into());
        }
    }
}
