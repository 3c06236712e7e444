//! `analyze`: the pilot study of visual forgetting on a model folder and a data set, for one model or two.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::common::focus_map::{FocusMap, Panel, Picture};
use crate::common::model::{Model, PictureOptions};
use crate::common::{
    Failure, OnBackend, interrupt_flag, on_backend, parse_backend, parse_dtype, print, ranges, within,
};
use analysis::pilot::{Measured, Pilot, Record, Summary, plots};
use burn::tensor::DType;
use clap::Parser;
use data::{Patches, Processor};
use model_qwen2vl::{Kernels, QwenVl, QwenVlConfig};
use reward::Reward;
use rl::TrainError;
use rl::config::{Config, Source, resolve};
use rl::launch::{check_folder, end_tokens};
use rl::prompts::Prompts;
use rl::sampler::Sampling;
use serde_json::json;

/// Where do generated tokens look, and what does it say about their answer? Attention and visual focus by step, late against early,
/// correct against incorrect responses, for one model or two.
///
/// Writes analysis.json, responses.jsonl, plots (SVG) and heat maps over the pictures (PNG) into the output folder.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  analyze --model DIR --data toy:sum?split=test --out out data.format_prompt=none
  analyze --model Qwen2.5-VL-3B-Instruct --compare runs/vgpo_3b/checkpoints/global_step_150/hf --data MMK12.parquet --limit 200 --out out
  analyze --model DIR --data rows.jsonl --samples 8 --temperature 1 --out out data.answer_key=ground_truth reward.reward_type=math

Exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted."
)]
struct Args {
    /// Model folder in the Hugging Face layout, the run folder of train (its newest checkpoint), or a checkpoint. Pictures are seen as
    /// the model was trained, unless data.min_pixels and the like say otherwise.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// A second model, after training: everything is measured for both, and compared.
    #[arg(long, value_name = "DIR")]
    compare: Option<PathBuf>,
    /// Parquet, JSONL, a folder, a glob, or toy:NAME?key=value, as data.val_files of train.
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Output folder; it must be empty or not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Responses a prompt.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = within::<usize>(ranges::RESPONSES))]
    samples: usize,
    /// Only the first so many rows; 0: all.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = within::<usize>(ranges::ROWS))]
    limit: usize,
    /// 0 takes the likeliest token, always.
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Length limit of a response.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = within::<usize>(ranges::TOKENS))]
    max_new_tokens: usize,
    /// Root of the random numbers.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Heat maps: the first so many responses to prompts with pictures.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = within::<usize>(ranges::ROWS))]
    maps: usize,
    /// Responses decoded at the same time.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = within::<usize>(ranges::RESPONSES))]
    max_batch_rows: usize,
    /// auto, flex, ndarray, wgpu, vulkan or cuda, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = parse_backend)]
    backend: rl::config::Backend,
    /// auto, f32 or bf16.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = parse_dtype)]
    dtype: rl::config::Dtype,
    /// Settings of how rows are read and graded, as of train: data.prompt_key, data.format_prompt, data.max_pixels,
    /// reward.reward_type and so on.
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// What differs from train's defaults: pictures as the model was trained, accuracy alone.
const DEFAULTS: &str =
    "[data]\nmin_pixels = 0\nmax_pixels = 0\nmax_prompt_length = 4096\n[reward]\nreward_type = \"math_accuracy\"\n";

/// Settings of `[data]` that mean something here; all of `[reward]` do.
const DATA_KEYS: [&str; 13] = [
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

impl Args {
    /// The settings by which rows are read and graded.
    fn config(&self) -> Result<Config, Failure> {
        for text in &self.overrides {
            let key = text.split('=').next().unwrap_or_default().trim();
            let known = key.starts_with("reward.") || key.strip_prefix("data.").is_some_and(|k| DATA_KEYS.contains(&k));
            if !known {
                return Err(Failure::input(format!(
                    "{key:?} is no setting of analyze; there are reward.* and data.{}",
                    DATA_KEYS.join(", data.")
                )));
            }
        }
        let mut config = resolve(
            &[Source::new("the defaults of analyze", format!("{DEFAULTS}[trainer]\noutput_dir = \".\"\n"))],
            &[vec![format!("data.train_files=[{}]", json!(self.data))], self.overrides.clone()].concat(),
        )?;
        config.data.val_files = config.data.train_files.clone();
        Ok(config)
    }

    /// How pictures are seen, where that was said; `config` has the values.
    fn pictures(&self, config: &Config) -> PictureOptions {
        let data = &config.data;
        let said = |key: &str| {
            let key = format!("data.{key}");
            self.overrides.iter().any(|text| text.split('=').next().is_some_and(|name| name.trim() == key))
        };
        PictureOptions {
            min_pixels: said("min_pixels").then_some(data.min_pixels as u64),
            max_pixels: said("max_pixels").then_some(data.max_pixels as u64),
            alpha: said("alpha").then_some(data.alpha),
            exif_orientation: said("exif_orientation").then_some(data.exif_orientation),
        }
    }

    fn check(&self) -> Result<(), Failure> {
        for (value, option) in [
            (self.samples, "--samples"),
            (self.max_new_tokens, "--max-new-tokens"),
            (self.max_batch_rows, "--max-batch-rows"),
        ] {
            if value == 0 {
                return Err(Failure::input(format!("{option} is 0; at least 1 is needed")));
            }
        }
        if !(self.temperature == 0.0 || self.temperature.is_finite() && self.temperature >= 1e-5) {
            return Err(Failure::input(format!(
                "--temperature {} is neither 0 (greedy) nor a number from 1e-5 on",
                self.temperature
            )));
        }
        if self.samples > 1 && self.temperature == 0.0 {
            return Err(Failure::input(
                "--samples above 1 needs --temperature above 0: greedy responses to one prompt are all the same",
            ));
        }
        if std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Failure::input(format!("--out {} is not empty; name a new folder", self.out.display())));
        }
        Ok(())
    }
}

/// A model to look at, opened as far as its weights.
struct Subject {
    name: String,
    path: PathBuf,
    prompts: Prompts,
    processor: Arc<Processor>,
    config: QwenVlConfig,
}

impl Subject {
    /// `pictures` are the settings of pictures that the user gave; others are as the model was trained.
    fn open(path: &Path, config: &Config, pictures: PictureOptions) -> Result<Self, Failure> {
        let model = Model::find(path)?;
        let processor = model.processor(pictures)?.with_max_prompt_length(config.data.max_prompt_length);
        let processor = Arc::new(processor);
        let path = &model.folder;
        let architecture = QwenVlConfig::from_folder(path)?;
        check_folder(path, &processor, &architecture)?;
        let prompts = Prompts::open(&config.data.val_files, "--data", config, processor.clone())?;
        Ok(Self {
            name: path.display().to_string(),
            path: path.to_path_buf(),
            prompts,
            processor,
            config: architecture,
        })
    }
}

struct Analyze {
    args: Args,
    config: Config,
    subjects: Vec<Subject>,
    interrupt: Arc<AtomicBool>,
}

impl OnBackend for Analyze {
    type Output = Result<(), Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let out = &self.args.out;
        create(out)?;
        let mut summaries = Vec::new();
        let mut records = Vec::new();
        let mut figures = Vec::new();
        for (k, subject) in self.subjects.iter().enumerate() {
            let suffix = if self.subjects.len() == 1 { "" } else { ["_before", "_after"][k] };
            let model = QwenVl::<B>::load(&subject.path, dtype, &device)?;
            let (found, aside) = self.measure(&model, subject, suffix)?;
            let summary = Summary::of(&found);
            if summary.with_image == 0 {
                eprintln!(
                    "no row of {} has a picture: attention on images is 0, and there is no visual focus",
                    self.args.data
                );
            }
            print(&table(&subject.name, &summary))?;
            figures.push(json!({"model": subject.name, "rows_set_aside": aside, "summary": summary}));
            summaries.push(summary);
            records.push(found);
        }
        let models: Vec<plots::Model> = self
            .subjects
            .iter()
            .zip(&summaries)
            .zip(&records)
            .map(|((s, summary), records)| plots::Model { name: &s.name, summary, records })
            .collect();
        for (name, svg) in plots::all(&models) {
            write(&out.join(format!("{name}.svg")), svg.as_bytes())?;
        }
        let a = &self.args;
        let file = json!({
            "data": a.data, "samples": a.samples, "limit": a.limit, "temperature": a.temperature,
            "max_new_tokens": a.max_new_tokens, "seed": a.seed, "models": figures,
        });
        let text = serde_json::to_string_pretty(&file).map_err(Failure::other)?;
        write(&out.join("analysis.json"), format!("{text}\n").as_bytes())?;
        print(&format!("written to {}\n", out.display()))
    }
}

impl Analyze {
    fn measure<B: Kernels>(
        &self,
        model: &QwenVl<B>,
        subject: &Subject,
        suffix: &str,
    ) -> Result<(Vec<Record>, usize), Failure> {
        let a = &self.args;
        let pilot = Pilot {
            samples: a.samples,
            limit: a.limit,
            sampling: Sampling { temperature: a.temperature, top_p: 1.0, seed: a.seed },
            max_new_tokens: a.max_new_tokens,
            eos: end_tokens(&subject.path, &subject.config, subject.prompts.processor())?,
            max_batch_rows: a.max_batch_rows,
            maps: a.maps,
        };
        let mut reward = Reward::new(&self.config.to_reward_config()).map_err(TrainError::from)?;
        let path = a.out.join(format!("responses{suffix}.jsonl"));
        let fail = |e: std::io::Error| Failure::other(format!("{}: {e}", path.display()));
        let mut lines = BufWriter::new(File::create(&path).map_err(fail)?);
        let mut records: Vec<Record> = Vec::new();
        let total = if a.limit == 0 { subject.prompts.len() } else { a.limit.min(subject.prompts.len()) } * a.samples;
        let aside = pilot.run(
            model,
            &subject.prompts,
            &mut reward,
            &self.interrupt,
            &mut |text| eprintln!("{text}"),
            &mut |measured: Measured| -> Result<(), Failure> {
                serde_json::to_writer(&mut lines, &measured.record).map_err(Failure::other)?;
                lines.write_all(b"\n").map_err(fail)?;
                if !measured.panels.is_empty() {
                    let png = map(subject, &measured)?;
                    let r = &measured.record;
                    let folder = a.out.join(format!("maps{suffix}"));
                    create(&folder)?;
                    write(&folder.join(format!("row_{}_sample_{}.png", r.row, r.sample)), &png)?;
                }
                records.push(measured.record);
                if records.len().is_multiple_of(100) {
                    eprintln!("{} of {total} responses", records.len());
                }
                Ok(())
            },
        )?;
        lines.flush().map_err(fail)?;
        if records.is_empty() {
            return Err(Failure::input(format!(
                "--data {}: none of its rows can be used; the reasons are above",
                a.data
            )));
        }
        Ok((records, aside))
    }
}

/// The heat map of a response.
fn map(subject: &Subject, measured: &Measured) -> Result<Vec<u8>, Failure> {
    let limits = subject.processor.limits();
    let mut values = &measured.source.pixel_values[..];
    let pictures: Vec<Picture> = measured
        .source
        .image_grid_thw
        .iter()
        .map(|&grid_thw| {
            let (own, rest) = values.split_at(grid_thw.iter().product::<usize>() * limits.patch_dim());
            values = rest;
            Picture::from_patches(&Patches { values: own.to_vec(), grid_thw }, limits)
        })
        .collect();
    let texts: Vec<String> =
        measured.ids.iter().map(|&id| subject.processor.decode(&[id], false)).collect::<Result<_, _>>()?;
    let panels: Vec<Panel> =
        measured.panels.iter().map(|p| Panel { token: p.token, cosines: p.cosines.clone() }).collect();
    let r = &measured.record;
    let verdict = if r.accuracy >= 0.5 { "correct" } else { "incorrect" };
    let prompt = format!("{} [answer {}, {verdict}]", r.problem, r.answer);
    let map = FocusMap { prompt: &prompt, pictures: &pictures, texts: &texts, focus: &r.focus, panels: &panels };
    let mut png = std::io::Cursor::new(Vec::new());
    map.draw().write_to(&mut png, image::ImageFormat::Png).map_err(|e| Failure::other(format!("heat map: {e}")))?;
    Ok(png.into_inner())
}

fn create(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(|e| Failure::input(format!("--out {}: {e}", folder.display())))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|e| Failure::other(format!("{}: {e}", path.display())))
}

/// The figures that a person asks for first.
fn table(name: &str, s: &Summary) -> String {
    let interval = |i: Option<analysis::stats::Interval>| match i {
        Some(i) if i.half.is_finite() => format!("{:.3} ± {:.3} ({})", i.mean, i.half, i.n),
        Some(i) => format!("{:.3} ({})", i.mean, i.n),
        None => "-".into(),
    };
    let [image, prompt, generated] = s.attention.map(|v| 100.0 * v);
    let mut out = format!(
        "{name}\n  responses            {} ({} with a picture), accuracy {:.1}%, {:.1} tokens\n  attention            image {image:.1}%, prompt text {prompt:.1}%, generated text {generated:.1}%\n",
        s.responses,
        s.with_image,
        100.0 * s.accuracy,
        s.tokens
    );
    if s.with_image > 0 {
        for (label, of) in [("late/early attention", &s.accumulation), ("late/early focus", &s.focus)] {
            out += &format!(
                "  {label:20} {}; correct {}; incorrect {}\n",
                interval(of.all),
                interval(of.correct),
                interval(of.incorrect)
            );
        }
        let c = &s.focus_and_attention;
        out += &format!(
            "  focus and attention  Pearson {} over all tokens, {} within responses\n",
            c.pooled.map_or("-".into(), |v| format!("{v:.3}")),
            interval(c.within)
        );
    }
    out
}

fn run(args: Args) -> Result<(), Failure> {
    args.check()?;
    let config = args.config()?;
    let subjects = std::iter::once(&args.model)
        .chain(&args.compare)
        .map(|path| Subject::open(path, &config, args.pictures(&config)))
        .collect::<Result<Vec<_>, _>>()?;
    let interrupt = interrupt_flag(None)?;
    let (backend, dtype) = (args.backend, args.dtype);
    on_backend(backend, dtype, Analyze { args, config, subjects, interrupt })?
}

/// The program.
pub fn main() -> ExitCode {
    crate::common::program(|args: Args| run(args).map(|()| ExitCode::SUCCESS))
}
