//! The model of `--model`: a model folder, the run folder of `train`, or a checkpoint of a run; and how a run saw its
//! pictures and asked its questions, which holds for its model unless a user says otherwise.

use std::path::{Path, PathBuf};

use data::{Alpha, ExifOrientation, Processor, RunPixels};

use super::Failure;

/// A model that a user named.
pub struct Model {
    /// In the Hugging Face layout.
    pub folder: PathBuf,
    /// What its run says, where it stands in one.
    pub run: Option<Run>,
}

/// The part of a run's `config.toml` that its model depends on.
#[derive(Debug, Default)]
pub struct Run {
    pixels: RunPixels,
    alpha: Alpha,
    exif_orientation: ExifOrientation,
    /// `data.format_prompt`.
    pub format_prompt: Option<String>,
    /// `data.system_prompt`, if it is not empty.
    pub system_prompt: Option<String>,
}

/// What a command line says about pictures; the rest is the model's.
#[derive(Debug, Clone, Copy, Default)]
pub struct PictureOptions {
    /// `--min-pixels`.
    pub min_pixels: Option<u64>,
    /// `--max-pixels`.
    pub max_pixels: Option<u64>,
    /// `--alpha`.
    pub alpha: Option<Alpha>,
    /// `--exif-orientation`.
    pub exif_orientation: Option<ExifOrientation>,
}

impl Model {
    /// Finds the model folder, and the run that it stands in.
    ///
    /// # Errors
    /// A run without a checkpoint, a `config.toml` that cannot be read.
    pub fn find(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("toy") && !path.exists() {
            return Err(Failure::input(
                "--model toy: the toy model is random before it is trained; run `train` and name its run folder (runs/toy)",
            ));
        }
        let folder = if path.join("config.json").is_file() {
            path.to_path_buf()
        } else if path.join("trainer.json").is_file() {
            path.join("hf")
        } else if path.join("checkpoints").is_dir() {
            match rl::checkpoint::list(&path.join("checkpoints")).pop() {
                Some((_, checkpoint)) => checkpoint.join("hf"),
                None => {
                    return Err(Failure::input(format!("--model {}: the run has no checkpoint yet", path.display())));
                }
            }
        } else {
            path.to_path_buf()
        };
        let run = run_of(&folder).map(|config| Run::read(&config)).transpose()?;
        Ok(Self { folder, run })
    }

    /// Tokenizer and image processor, with pictures as in training unless `options` say otherwise.
    ///
    /// # Errors
    /// A folder that cannot be used, limits that no picture can satisfy.
    pub fn processor(&self, options: PictureOptions) -> Result<Processor, Failure> {
        let processor = Processor::from_folder(&self.folder)?;
        let own = processor.limits();
        // The folder of a checkpoint says how its pictures were seen; one of an earlier version does not, but its run
        // does.
        let said = (own.run, own.alpha, own.exif_orientation);
        let (run, alpha, exif_orientation) = match &self.run {
            Some(run) if said == Default::default() => (run.pixels, run.alpha, run.exif_orientation),
            _ => said,
        };
        let processor = processor
            .with_limits(options.min_pixels.unwrap_or(run.min_pixels), options.max_pixels.unwrap_or(run.max_pixels))?;
        Ok(processor.with_picture_settings(
            options.alpha.unwrap_or(alpha),
            options.exif_orientation.unwrap_or(exif_orientation),
        ))
    }
}

/// The configuration of the run that a model folder `RUN/checkpoints/global_step_N/hf` belongs to.
fn run_of(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let checkpoint = folder.parent()?;
    let checkpoints = checkpoint.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "checkpoints"))?;
    let config = checkpoints.parent()?.join("config.toml");
    (checkpoint.join("trainer.json").is_file() && config.is_file()).then_some(config)
}

impl Run {
    /// Reads what is needed and no more: the data that the run was trained on may be gone.
    fn read(config: &Path) -> Result<Self, Failure> {
        let fail = |reason: String| Failure::input(format!("{}: {reason}", config.display()));
        let text = std::fs::read_to_string(config).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let table: toml::Table = toml::from_str(&text).map_err(|e| fail(e.to_string().trim().to_owned()))?;
        let data = |key: &str| table.get("data").and_then(|data| data.get(key));
        let text = |key: &str| data(key).and_then(toml::Value::as_str).filter(|text| !text.is_empty());
        let pixels = |key: &str| match data(key).map(|value| value.as_integer().and_then(|n| u64::try_from(n).ok())) {
            Some(None) => Err(fail(format!("data.{key} is no number of pixels"))),
            Some(Some(pixels)) => Ok(pixels),
            None => Ok(0),
        };
        Ok(Self {
            pixels: RunPixels { min_pixels: pixels("min_pixels")?, max_pixels: pixels("max_pixels")? },
            alpha: text("alpha").map_or(Ok(Alpha::default()), str::parse).map_err(fail)?,
            exif_orientation: text("exif_orientation")
                .map_or(Ok(ExifOrientation::default()), str::parse)
                .map_err(fail)?,
            format_prompt: text("format_prompt").map(str::to_owned),
            system_prompt: text("system_prompt").map(str::to_owned),
        })
    }
}
