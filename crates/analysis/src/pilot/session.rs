//! One model or two, asked and measured, and everything that is written about them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::DType;
use comm::Ranks;
use data::{DataError, Processor};
use launch::{ModelFolder, PictureOptions};
use model_qwen2vl::{Kernels, QwenVl};
use report::focus_map::{DrawnMap, MapFormat};
use report::missing_note;
use rl::TrainError;
use rl::config::{Config, Source, resolve};
use rl::prompts::Prompts;
use serde_json::json;

use super::measure::{MapSource, Pilot, PilotRecord};
use super::plots;
use super::summary::PilotSummary;
use crate::focus_map::{Drawn, cannot_be_drawn};
use crate::forgetting::{self, Forgetting};

/// What differs from train's defaults: pictures as the model was trained, accuracy alone.
const DEFAULTS: &str =
    "[data]\nmin_pixels = 0\nmax_pixels = 0\nmax_prompt_length = 4096\n[reward]\nreward_type = \"math_accuracy\"\n";

/// Settings of `[data]` that mean something here; all of `[reward]` do.
pub(crate) const DATA_KEYS: [&str; 13] = [
    "prompt_key",
    "answer_key",
    "image_key",
    "id_key",
    "image_dir",
    "format_prompt",
    "system_prompt",
    "max_prompt_length",
    "min_pixels",
    "max_pixels",
    "alpha",
    "exif_orientation",
    "filter_overlong_prompts",
];

/// A model to look at, opened as far as its weights.
#[derive(Debug)]
pub struct Subject {
    /// Its folder, as it is named in tables.
    pub name: String,
    folder: ModelFolder,
    /// The rows that it answers.
    pub prompts: Prompts,
    /// Ids that end its responses.
    pub eos: Vec<u32>,
    /// How its responses are graded.
    pub config: Config,
    processor: Arc<Processor>,
}

impl Subject {
    /// Opens a model and the data that it is asked. It is asked as its run asked it; `overrides` (`key=value`, as of
    /// `train`) come last.
    ///
    /// # Errors
    /// A setting that means nothing here, a model folder, data or a prompt that cannot be used.
    pub fn open(path: &Path, data: &str, overrides: &[String]) -> Result<Self, TrainError> {
        check_overrides(overrides)?;
        let folder = ModelFolder::open(path)?;
        let defaults = Source::new("the defaults of analyze", format!("{DEFAULTS}[trainer]\noutput_dir = \".\"\n"));
        let sources = [defaults, folder.run().source()];
        let mut config =
            resolve(&sources, &[vec![format!("data.train_files=[{}]", json!(data))], overrides.to_vec()].concat())?;
        config.data.val_files = config.data.train_files.clone();
        // What is missing of the folder is said before what is wrong with the data.
        folder.config()?;
        let processor = folder.processor(pictures(&config, overrides))?;
        let processor = Arc::new(processor.with_max_prompt_length(config.data.max_prompt_length));
        let prompts = Prompts::open(&config.data.val_files, "--data", &config, processor.clone())?;
        let eos = folder.end_tokens(&processor)?;
        Ok(Self { name: folder.path().display().to_string(), folder, prompts, eos, config, processor })
    }
}

impl Subject {
    /// The model with its weights.
    ///
    /// # Errors
    /// As [`ModelFolder::load`].
    pub(crate) fn load<B: Kernels>(&self, dtype: DType, device: &B::Device) -> Result<QwenVl<B>, TrainError> {
        Ok(self.folder.load::<B>(dtype, device)?)
    }
}

fn name_of(text: &str) -> &str {
    text.split('=').next().unwrap_or_default().trim()
}

fn check_overrides(overrides: &[String]) -> Result<(), TrainError> {
    let known =
        |key: &str| key.starts_with("reward.") || key.strip_prefix("data.").is_some_and(|key| DATA_KEYS.contains(&key));
    match overrides.iter().map(|text| name_of(text)).find(|key| !known(key)) {
        None => Ok(()),
        Some(key) => Err(TrainError::Input(format!(
            "{key:?} is no setting of analyze; there are reward.* and data.{}",
            DATA_KEYS.join(", data.")
        ))),
    }
}

/// How pictures are seen, where that was said; `config` has the values.
fn pictures(config: &Config, overrides: &[String]) -> PictureOptions {
    let data = &config.data;
    let said = |key: &str| overrides.iter().any(|text| name_of(text).strip_prefix("data.") == Some(key));
    PictureOptions {
        min_pixels: said("min_pixels").then_some(data.min_pixels as u64),
        max_pixels: said("max_pixels").then_some(data.max_pixels as u64),
        alpha: said("alpha").then_some(data.alpha),
        exif_orientation: said("exif_orientation").then_some(data.exif_orientation),
    }
}

/// What is measured, and where it is written.
///
/// ```no_run
/// use analysis::pilot::{Pilot, PilotSession, Subject};
/// use burn::tensor::DType;
///
/// fn measure(pilot: Pilot) -> Result<(), rl::TrainError> {
///     let data = "toy:sum";
///     let open = |path: &str| Subject::open(path.as_ref(), data, &[]);
///     let subjects = vec![open("runs/before")?, open("runs/after")?];
///     let (out, ranks) = ("pilot".into(), comm::Ranks::solo());
///     let session = PilotSession { pilot, data: data.into(), out, subjects, exchanged: vec![], ranks };
///     let (stop, mut note) = (Default::default(), |line| eprintln!("{line}"));
///     session.run::<burn_flex::Flex>(&Default::default(), DType::F32, &stop, &mut note, &mut |table| {
///         println!("{table}");
///         Ok(())
///     })
/// }
/// ```
#[derive(Debug)]
pub struct PilotSession {
    /// How the models are asked.
    pub pilot: Pilot,
    /// What `--data` named.
    pub data: String,
    /// The output folder, made when the first model is loaded.
    pub out: PathBuf,
    /// One model, or the one before and the one after training.
    pub subjects: Vec<Subject>,
    /// The same, each asked the same rows with their pictures exchanged half-way; empty where there are no such rows.
    pub exchanged: Vec<Subject>,
    /// Those that answer together, each with a session of its own, all the same; the first one writes and tells.
    pub ranks: Ranks,
}

impl PilotSession {
    /// Measures the models and writes `responses.jsonl`, `analysis.json`, plots and heat maps; `tell` gets the table of
    /// each model, `note` lines about how it goes.
    ///
    /// # Errors
    /// A model, data or a file that cannot be used, and an interrupt.
    pub fn run<B: Kernels>(
        &self,
        device: &B::Device,
        dtype: DType,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
        tell: &mut dyn FnMut(String) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        create(&self.out)?;
        let mut summaries = Vec::new();
        let mut records = Vec::new();
        let mut figures = Vec::new();
        for (k, subject) in self.subjects.iter().enumerate() {
            let suffix = if self.subjects.len() == 1 { "" } else { ["_before", "_after"][k.min(1)] };
            let model = subject.load::<B>(dtype, device)?;
            let (found, aside) = self.measure(&model, subject, suffix, interrupt, note)?;
            let summary = PilotSummary::of(&found);
            if summary.with_image == 0 && self.ranks.is_first() {
                note(format!(
                    "no row of {} has a picture: attention on images is 0, and there is no visual focus",
                    self.data
                ));
            }
            let mut forgetting = None;
            if self.ranks.is_first() {
                forgetting = self.forgetting(&model, k, interrupt, note)?;
                tell(summary.table(&subject.name) + &forgetting.as_ref().map_or(String::new(), Forgetting::table))?;
            }
            figures.push(json!({
                "model": subject.name, "rows_set_aside": aside, "summary": summary, "forgetting": forgetting,
            }));
            summaries.push(summary);
            records.push(found);
        }
        self.ranks.barrier("all is measured")?;
        if !self.ranks.is_first() {
            return Ok(());
        }
        let models = self.subjects.iter().zip(summaries.iter().zip(&records));
        let models: Vec<plots::PlottedModel> =
            models.map(|(s, (summary, records))| plots::PlottedModel { name: &s.name, summary, records }).collect();
        for (name, svg) in plots::all(&models) {
            write(&self.out.join(format!("{name}.svg")), svg.as_bytes())?;
        }
        let pilot = &self.pilot;
        let file = json!({
            "data": self.data, "samples": pilot.samples, "limit": pilot.limit, "temperature": pilot.sampling.temperature,
            "max_new_tokens": pilot.max_new_tokens, "seed": pilot.sampling.seed, "models": figures,
        });
        write(&self.out.join("analysis.json"), format!("{file:#}\n").as_bytes())?;
        tell(format!("written to {}\n", self.out.display()))
    }

    /// Forgetting of model `k`, where the rows have worked responses that say where their parts are.
    fn forgetting<B: Kernels>(
        &self,
        model: &QwenVl<B>,
        k: usize,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
    ) -> Result<Option<Forgetting>, TrainError> {
        let rows = forgetting::read(model, &self.subjects[k], self.pilot.limit, interrupt, note)?;
        let exchanged = match self.exchanged.get(k) {
            Some(other) => forgetting::read(model, other, self.pilot.limit, interrupt, note)?,
            None => vec![],
        };
        if rows.is_empty() && !exchanged.is_empty() {
            note(
                "forgetting: the rows of --data have no worked responses with a column parts; see docs/analysis.md"
                    .into(),
            );
        }
        Ok(Forgetting::of(&rows, &exchanged))
    }

    /// The records of one model, and the number of rows set aside.
    fn measure<B: Kernels>(
        &self,
        model: &QwenVl<B>,
        subject: &Subject,
        suffix: &str,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(String),
    ) -> Result<(Vec<PilotRecord>, usize), TrainError> {
        let path = self.out.join(format!("responses{suffix}.jsonl"));
        let fail = |e: std::io::Error| DataError::write(&path, e);
        let is_first = self.ranks.is_first();
        let mut lines: Box<dyn Write> = match is_first {
            true => Box::new(BufWriter::new(File::create(&path).map_err(fail)?)),
            false => Box::new(std::io::sink()),
        };
        let mut records: Vec<PilotRecord> = Vec::new();
        let rows = subject.prompts.len();
        let total = if self.pilot.limit == 0 { rows } else { self.pilot.limit.min(rows) } * self.pilot.samples;
        let mut missing = BTreeSet::new();
        let aside = self.pilot.run(&self.ranks, model, subject, interrupt, note, &mut |measured, note| {
            serde_json::to_writer(&mut lines, &measured.record).map_err(|e| fail(e.into()))?;
            lines.write_all(b"\n").map_err(fail)?;
            if let Some(source) = &measured.map {
                let folder = self.out.join(format!("maps{suffix}"));
                create(&folder)?;
                let name = format!("row_{}_sample_{}.png", measured.record.row, measured.record.sample);
                let drawn = map(subject, &measured.record, source)?;
                missing.extend(drawn.missing());
                write(&folder.join(name), &drawn.file(MapFormat::Png).map_err(cannot_be_drawn)?)?;
            }
            records.push(measured.record);
            if is_first && records.len().is_multiple_of(100) {
                note(format!("{} of {total} responses", records.len()));
            }
            Ok(())
        })?;
        lines.flush().map_err(fail)?;
        if let Some(said) = missing_note(&missing) {
            note(format!("focus maps: {said}"));
        }
        match records.is_empty() {
            false => Ok((records, aside)),
            true => Err(TrainError::Input(format!(
                "--data {}: none of its rows can be used; the reasons are above",
                self.data
            ))),
        }
    }
}

/// The heat map of a response.
fn map(subject: &Subject, record: &PilotRecord, drawn_from: &MapSource) -> Result<DrawnMap<'static>, DataError> {
    let verdict = if record.accuracy >= 0.5 { "correct" } else { "incorrect" };
    let title = format!("{} [answer {}, {verdict}]", record.problem, record.answer);
    let MapSource { source, ids, panels } = drawn_from;
    Drawn { title: &title, prompt: source, ids, focus: &record.focus, panels }.draw(&subject.processor)
}

fn create(folder: &Path) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(|e| TrainError::Input(format!("--out {}: {e}", folder.display())))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    std::fs::write(path, bytes).map_err(|e| DataError::write(path, e))
}
