//! How a run asked its model: what stands in its `config.toml`, and holds for its model unless a user says otherwise.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use answer::{Grader, RewardType};
use data::{Alpha, ExifOrientation, KeyOptions, RunPixels};
use rl::TrainError;
use rl::config::Source;
use rl::run_folder::layout;
use toml::{Table, Value};

/// The part of a run's `config.toml` that its model depends on; empty where there is no run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSettings {
    /// `data.min_pixels` and `max_pixels`, `data.alpha`, `data.exif_orientation`.
    pub(crate) pictures: Option<(RunPixels, Alpha, ExifOrientation)>,
    /// `data.format_prompt`.
    pub format_prompt: Option<String>,
    /// `data.system_prompt`, if it is not empty.
    pub system_prompt: Option<String>,
    /// `data.prompt_key`, `answer_key`, `image_key`, `solution_key`, `id_key`, `task_key`.
    pub keys: KeyOptions,
    /// `reward.reward_type`: where its answers stand.
    pub reward_type: Option<RewardType>,
    /// `reward.grader`.
    pub grader: Option<Grader>,
}

impl RunSettings {
    /// Of the run that a model folder `RUN/checkpoints/global_step_N/hf` belongs to.
    ///
    /// # Errors
    /// A `config.toml` that cannot be read, or says something else than a run writes.
    pub(crate) fn of_folder(folder: &Path) -> Result<Self, TrainError> {
        run_of(folder).map_or(Ok(Self::default()), |config| Self::read(&config))
    }

    /// Reads what is needed and no more: the data that the run was trained on may be gone.
    fn read(config: &Path) -> Result<Self, TrainError> {
        let fail = |reason: String| TrainError::Input(format!("{}: {reason}", config.display()));
        let text = guard::file::read_text(config, guard::limits().record_bytes)
            .map_err(|e| fail(format!("cannot be read: {e}")))?;
        let table: Table = toml::from_str(&text).map_err(|e| fail(e.to_string().trim().to_owned()))?;
        let of =
            |section: &'static str| RunSection { values: table.get(section).and_then(Value::as_table), name: section };
        Self::of_tables(&of("data"), &of("reward")).map_err(fail)
    }

    fn of_tables(data: &RunSection, reward: &RunSection) -> Result<Self, String> {
        let pixels = RunPixels { min_pixels: data.pixels("min_pixels")?, max_pixels: data.pixels("max_pixels")? };
        let alpha = data.parsed("alpha")?.unwrap_or_default();
        Ok(Self {
            pictures: Some((pixels, alpha, data.parsed("exif_orientation")?.unwrap_or_default())),
            format_prompt: data.text("format_prompt")?,
            system_prompt: data.text("system_prompt")?,
            keys: KeyOptions {
                prompt_key: data.text("prompt_key")?,
                answer_key: data.text("answer_key")?,
                image_key: data.text("image_key")?,
                solution_key: data.text("solution_key")?,
                id_key: data.text("id_key")?,
                task_key: data.text("task_key")?,
            },
            reward_type: reward.parsed("reward_type")?,
            grader: reward.parsed("grader")?,
        })
    }

    /// The settings as a configuration that goes between a program's defaults and a user's words: prompt, keys, and the
    /// rule that finds and grades an answer. Pictures are [`ModelFolder::processor`](crate::ModelFolder::processor)'s.
    /// A reward command is not among them: whoever names a run does not ask to start a program.
    pub fn source(&self) -> Source {
        let keys = &self.keys;
        let data = [
            ("format_prompt", &self.format_prompt),
            ("system_prompt", &self.system_prompt),
            ("prompt_key", &keys.prompt_key),
            ("answer_key", &keys.answer_key),
            ("image_key", &keys.image_key),
            ("solution_key", &keys.solution_key),
            ("id_key", &keys.id_key),
            ("task_key", &keys.task_key),
        ];
        let data = data.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        // The form of a response earns nothing where accuracy alone is measured.
        let kind = self.reward_type.map(|kind| if kind == RewardType::Math { RewardType::MathAccuracy } else { kind });
        let reward =
            [("reward_type", kind.map(|kind| kind.to_string())), ("grader", self.grader.map(|g| g.to_string()))];
        let reward = reward.into_iter().filter_map(|(key, value)| Some((key, value?)));
        let section = |values: &mut dyn Iterator<Item = (&'static str, String)>| {
            Value::Table(values.map(|(key, value)| (key.to_owned(), Value::String(value))).collect())
        };
        let mut table = Table::new();
        table.insert("data".into(), section(&mut { data }));
        table.insert("reward".into(), section(&mut { reward }));
        Source::new("the config.toml of the model's run", table.to_string())
    }
}

/// The configuration of the run that a model folder `RUN/checkpoints/global_step_N/hf` belongs to.
fn run_of(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let checkpoint = folder.parent()?;
    let checkpoints =
        checkpoint.parent().filter(|dir| dir.file_name().is_some_and(|name| name == layout::CHECKPOINTS))?;
    let config = checkpoints.parent()?.join(layout::CONFIG);
    (checkpoint.join(layout::STATE).is_file() && config.is_file()).then_some(config)
}

/// A table of `config.toml`.
struct RunSection<'a> {
    values: Option<&'a Table>,
    name: &'static str,
}

impl RunSection<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values?.get(key)
    }

    /// A text that is not empty.
    fn text(&self, key: &str) -> Result<Option<String>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(format!("{}.{key} is no text", self.name)),
        }
    }

    fn parsed<T: FromStr<Err = String>>(&self, key: &str) -> Result<Option<T>, String> {
        self.text(key)?.map(|text| text.parse()).transpose().map_err(|e| format!("{}.{key}: {e}", self.name))
    }

    fn pixels(&self, key: &str) -> Result<u64, String> {
        let number = |value: &Value| value.as_integer().and_then(|n| u64::try_from(n).ok());
        self.get(key).map_or(Some(0), number).ok_or_else(|| format!("{}.{key} is no number of pixels", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[data]\nformat_prompt = \"r1v\"\nsystem_prompt = \"\"\nprompt_key = \"question\"\nmax_pixels = 9000\n\
        alpha = \"drop\"\n[reward]\nreward_type = \"r1v\"\ngrader = \"math\"\n";

    fn read(text: &str) -> Result<RunSettings, String> {
        let dir = tempfile::tempdir().unwrap();
        let hf = dir.path().join("checkpoints/global_step_3/hf");
        std::fs::create_dir_all(&hf).unwrap();
        std::fs::write(hf.with_file_name("trainer.json"), "{}").unwrap();
        std::fs::write(dir.path().join("config.toml"), text).unwrap();
        RunSettings::of_folder(&hf).map_err(|e| e.to_string())
    }

    #[test]
    fn a_run_says_how_its_model_is_asked() {
        let run = read(CONFIG).unwrap();
        assert_eq!((run.format_prompt.as_deref(), run.system_prompt.as_deref()), (Some("r1v"), None));
        assert_eq!(run.keys, KeyOptions { prompt_key: Some("question".into()), ..KeyOptions::default() });
        let pixels = RunPixels { min_pixels: 0, max_pixels: 9000 };
        assert_eq!(run.pictures, Some((pixels, Alpha::Drop, ExifOrientation::Apply)));
        let config = rl::config::resolve(&[run.source()], &["data.train_files=[a]".into()]).unwrap();
        assert_eq!((config.data.format_prompt.as_str(), config.data.prompt_key.as_str()), ("r1v", "question"));
        assert_eq!((config.reward.reward_type, config.reward.grader), (RewardType::R1v, Grader::Math));
        // Not in a run: nothing is said.
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(RunSettings::of_folder(dir.path()).unwrap(), RunSettings::default());
    }

    #[test]
    fn a_damaged_configuration_is_named() {
        for (text, needles) in [
            ("[data", &["config.toml"][..]),
            ("[data]\nmax_pixels = -1\n", &["config.toml", "data.max_pixels is no number of pixels"]),
            ("[data]\nformat_prompt = 3\n", &["data.format_prompt is no text"]),
            ("[reward]\ngrader = \"guess\"\n", &["reward.grader", "guess"]),
        ] {
            let error = read(text).unwrap_err();
            assert!(needles.iter().all(|needle| error.contains(needle)), "{text}: {error}");
        }
    }
}
