//! The model card: YAML front matter that the hub reads, and a text for people.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use run::layout::{ADAPTER, CHECKPOINTS, METRICS, MODEL, STATE};
use run::metrics::MetricsReader;
use run::record::RunRecord;
use serde_json::{Map, Value, json};

/// Settings that a reader asks for first, by section.
const SETTINGS: [(&str, &[&str]); 6] = [
    ("algorithm", &["name", "adv_estimator", "shaping", "kl_coef", "use_kl_loss", "online_filtering"]),
    ("rollout", &["n", "temperature", "top_p"]),
    (
        "data",
        &[
            "rollout_batch_size",
            "max_prompt_length",
            "max_response_length",
            "min_pixels",
            "max_pixels",
            "format_prompt",
        ],
    ),
    ("actor", &["global_batch_size", "clip_ratio_low", "clip_ratio_high", "max_grad_norm"]),
    ("reward", &["reward_type", "grader"]),
    ("trainer", &["seed", "dtype"]),
];

/// What is known of a checkpoint.
#[derive(Debug, Clone)]
pub struct Card {
    /// What it is called, `owner/name`.
    name: String,
    /// The folder that others load.
    folder: PathBuf,
    step: u64,
    /// `config.toml` of the run.
    config: toml::Table,
    record: RunRecord,
    /// Metrics up to the checkpoint's step.
    metrics: Vec<Map<String, Value>>,
}

/// A text in a cell of a table or in a line: nothing of it is markup.
fn plain(text: &str) -> String {
    let one_line: String = guard::printable(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut out = String::new();
    for c in one_line.chars() {
        if "\\`*_[]<>|&#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Card {
    /// Of the checkpoint at `path` (`RUN/checkpoints/global_step_N`), to be called `name`.
    ///
    /// # Errors
    /// A folder that is no checkpoint of a run, or whose run cannot be read.
    pub fn of_checkpoint(path: &Path, name: &str) -> Result<Self, String> {
        let fail = |what: &str| format!("{}: {what}", path.display());
        let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("global_step_"));
        let step = step.and_then(|step| step.parse().ok()).filter(|_| path.join(STATE).is_file());
        let step: u64 = step.ok_or_else(|| fail("is no checkpoint of a run (RUN/checkpoints/global_step_N)"))?;
        let root = path.canonicalize().ok().and_then(|path| Some(path.parent()?.parent()?.to_path_buf()));
        let root = root.ok_or_else(|| fail("does not lie in a run folder"))?;
        let text = run::folder::read_config(&root).map_err(|error| error.to_string())?;
        let config = toml::from_str(&text).map_err(|error| fail(&format!("the run's config.toml: {error}")))?;
        let metrics = MetricsReader::read(&root.join(METRICS)).map_err(|error| error.to_string())?;
        let metrics = metrics.steps.into_iter().filter(|line| line.step().is_some_and(|s| s <= step));
        Ok(Self {
            name: name.to_string(),
            folder: path.join(MODEL),
            step,
            config,
            record: run::record::read(&root).unwrap_or_default(),
            metrics: metrics.map(|line| line.0).collect(),
        })
    }

    /// The newest checkpoint of the run at `root`.
    ///
    /// # Errors
    /// A run without one.
    pub fn newest_checkpoint(root: &Path) -> Result<PathBuf, String> {
        let all = run::checkpoint::list(&root.join(CHECKPOINTS));
        all.last().map(|(_, path)| path.clone()).ok_or_else(|| format!("{}: the run has no checkpoint", root.display()))
    }

    /// The folder that others load: weights, or an adapter.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn setting(&self, section: &str, key: &str) -> Option<&toml::Value> {
        self.config.get(section)?.as_table()?.get(key)
    }

    fn is_adapter(&self) -> bool {
        self.folder.join("adapter_config.json").is_file()
    }

    /// The model that the run started from.
    fn base(&self) -> &str {
        self.setting("model", "path").and_then(toml::Value::as_str).unwrap_or(&self.record.model)
    }

    /// The data of this key, as it is named there.
    fn data(&self, key: &str) -> Vec<String> {
        match self.setting("data", key) {
            Some(toml::Value::Array(files)) => files.iter().map(source).collect(),
            Some(file) => vec![source(file)],
            None => vec![],
        }
    }

    /// The card.
    pub fn text(&self) -> String {
        let mut out = self.front_matter();
        let title = self.name.rsplit('/').next().unwrap_or(&self.name);
        let algorithm =
            if self.record.algorithm.is_empty() { "reinforcement learning" } else { &self.record.algorithm };
        let _ = write!(out, "# {}\n\n", plain(title));
        let what = if self.is_adapter() { "An adapter (LoRA) for" } else { "A model trained from" };
        // A run folder without a record does not say which version it was.
        let version = Some(plain(&self.record.version)).filter(|version| !version.is_empty());
        let _ = write!(
            out,
            "{what} {}, with {} and verifiable rewards, by visual-rl{}: the checkpoint after step {}.\n\n",
            plain(self.base()),
            plain(algorithm),
            version.map_or(String::new(), |version| format!(" {version}")),
            self.step
        );
        self.results(&mut out);
        self.training(&mut out);
        self.use_of_it(&mut out);
        out
    }

    /// Values are written as JSON in ASCII, which is YAML that holds whatever they are.
    fn front_matter(&self) -> String {
        let mut out = String::from("---\n");
        let mut line = |key: &str, value: Value| out.push_str(&format!("{key}: {}\n", ascii(&value)));
        let is_id = |text: &String| hub::name::RepoName::parse(text).is_some() && !Path::new(text).exists();
        let base = self.base().split('@').next().unwrap_or_default().to_string();
        if is_id(&base) {
            line("base_model", json!(base));
            line("base_model_relation", json!(if self.is_adapter() { "adapter" } else { "finetune" }));
        }
        let without_split = |source: String| source.split('@').next().unwrap_or_default().to_string();
        let mut data: Vec<String> = self.data("train_files").into_iter().map(without_split).filter(is_id).collect();
        data.dedup();
        if !data.is_empty() {
            line("datasets", json!(data));
        }
        line("library_name", json!(if self.is_adapter() { "peft" } else { "transformers" }));
        line("pipeline_tag", json!("image-text-to-text"));
        let mut tags = vec!["visual-rl", "reinforcement-learning"];
        if !self.record.algorithm.is_empty() {
            tags.push(&self.record.algorithm);
        }
        line("tags", json!(tags));
        out.push_str("---\n\n");
        out
    }

    /// Validation before and after, and the last reward.
    fn results(&self, out: &mut String) {
        let first = |key: &str| self.metrics.iter().find_map(|line| line.get(key)?.as_f64());
        let last = |key: &str| self.metrics.iter().rev().find_map(|line| line.get(key)?.as_f64());
        let mut keys: Vec<&str> = self.metrics.iter().flat_map(Map::keys).map(String::as_str).collect();
        keys.retain(|key| key.starts_with("val/") && key.contains("accuracy"));
        keys.sort_unstable();
        keys.dedup();
        out.push_str("## Results\n\n");
        if keys.is_empty() {
            out.push_str("The run was not validated.\n\n");
        } else {
            out.push_str(
                "Measured by the run itself, on its validation data:\n\n| metric | before | after |\n|---|---|---|\n",
            );
            for key in keys {
                let before = first(&key.replacen("val/", "val_before/", 1));
                let show = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.4}"));
                let _ = writeln!(out, "| {} | {} | {} |", plain(key), show(before), show(last(key)));
            }
            out.push('\n');
        }
        if let Some(reward) = last("reward") {
            let _ = write!(out, "Mean reward of the last training step: {reward:.4}.\n\n");
        }
    }

    /// Data, settings, machine.
    fn training(&self, out: &mut String) {
        out.push_str("## Training\n\n");
        for (what, key) in [("Training data", "train_files"), ("Validation data", "val_files")] {
            let files: Vec<String> = self.data(key).iter().map(|file| plain(file)).collect();
            if !files.is_empty() {
                let _ = writeln!(out, "- {what}: {}", files.join(", "));
            }
        }
        let record = &self.record;
        if !record.backend.is_empty() {
            let commit = record.commit.as_ref().map_or(String::new(), |commit| format!(", commit {}", plain(commit)));
            let _ = writeln!(
                out,
                "- {} on {} ({} rank{}), {:.2} hours{commit}",
                plain(&record.dtype),
                plain(&record.backend),
                record.ranks,
                if record.ranks == 1 { "" } else { "s" },
                record.wall_clock_s / 3600.0
            );
        }
        out.push_str("\n| setting | value |\n|---|---|\n");
        for (section, keys) in SETTINGS {
            for key in keys {
                if let Some(value) = self.setting(section, key).filter(|value| value.as_str() != Some("")) {
                    let _ = writeln!(out, "| {} | {} |", plain(&format!("{section}.{key}")), plain(&source(value)));
                }
            }
        }
        out.push('\n');
    }

    fn use_of_it(&self, out: &mut String) {
        let id = plain_code(&self.name);
        out.push_str("## Use\n\n```python\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n");
        match self.is_adapter() {
            true => {
                let base = plain_code(self.base());
                let _ = write!(
                    out,
                    "from peft import PeftModel\n\nbase = AutoModelForImageTextToText.from_pretrained({base})\n\
                     model = PeftModel.from_pretrained(base, {id})\n"
                );
            }
            false => {
                let _ = write!(out, "\nmodel = AutoModelForImageTextToText.from_pretrained({id})\n");
            }
        }
        let _ = write!(out, "processor = AutoProcessor.from_pretrained({id})\n```\n");
        if self.folder.with_file_name(ADAPTER).is_dir() {
            out.push_str("\nThe weights have the adapter that was trained merged into them.\n");
        }
    }
}

/// JSON with all but ASCII escaped: readers of YAML refuse some characters that stand in JSON as they are.
fn ascii(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        match c {
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out += &format!("\\u{unit:04x}")),
        }
    }
    out
}

/// A text as a literal in a program, which cannot end the block that it stands in.
fn plain_code(text: &str) -> String {
    json!(text.replace('`', "'")).to_string()
}

/// A value of the configuration as a person reads it; of a data file with settings of its own, its path.
fn source(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Table(table) => match table.get("path").and_then(toml::Value::as_str) {
            Some(path) => path.to_string(),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}
