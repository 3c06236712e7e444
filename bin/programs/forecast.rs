//! What a run will ask of its devices, before it starts: the last comments of `train --dry-run`, and the program
//! `estimate`.

mod published;
mod stages;

use std::path::PathBuf;

use burn::tensor::DType;
use clap::Args;
use clap::builder::PossibleValuesParser;
use model_qwen2vl::QwenVlConfig;
use plan::{DATA_SHEETS, DataSheet, DeviceSpeeds, MemoryPlan, ModelShapes, RankGrid, ZeroStage, table};
use rl::config::{Backend, Config, Dtype};

use crate::common::{Failure, above_zero, card_name, device_memory, ranges, within};
use published::architecture;
use stages::StageRows;

/// What a device is taken to have where none is asked.
const MEMORY_GIB: f64 = 80.0;

/// The card that is taken where none is there or named: what most of those runs are done on.
const CARD: &str = "h100";

/// For what is counted.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub(crate) struct ForecastOptions {
    /// Count for so many ranks. Default: those that it runs under.
    #[arg(long, value_name = "N", value_parser = within::<usize>(1..=1 << 16))]
    pub ranks: Option<usize>,
    /// GiB of a device's memory. Default: what is free on the card that is there, else 80.
    #[arg(long, value_name = "G", value_parser = above_zero)]
    memory_gib: Option<f64>,
    /// What `bench step --json` printed on such a machine, from which the seconds of a step are worked out.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// The card whose data sheet gives the seconds where there are no figures. Default: the one that is there, else
    /// h100.
    #[arg(long, value_name = "CARD", conflicts_with = "figures", value_parser = cards())]
    card: Option<String>,
    /// Tokens of a response, on average. Default: the longest that may be.
    #[arg(long, value_name = "N", value_parser = within::<usize>(ranges::TOKENS))]
    response_tokens: Option<usize>,
}

/// The cards whose data sheets are known.
fn cards() -> PossibleValuesParser {
    PossibleValuesParser::new(DATA_SHEETS.map(|sheet| sheet.key))
}

/// What was counted of a run, each part as lines that are comments in TOML.
pub(crate) struct Forecast {
    /// Memory of a rank, or why it was not counted.
    pub memory: String,
    /// What the rows of the data cost; empty where they were not looked at.
    rows: String,
    /// Seconds of a step.
    time: String,
}

impl Forecast {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        self.memory.clone() + &self.rows + &self.time
    }
}

/// A run that is asked what it will take.
pub(crate) struct PlannedRun<'a> {
    config: &'a Config,
    options: &'a ForecastOptions,
    architecture: QwenVlConfig,
    /// A line on the model, where its folder is not there.
    note: String,
    stages: Vec<StageRows>,
    /// Why the data could not be opened.
    no_data: Option<String>,
}

impl<'a> PlannedRun<'a> {
    /// Opens what is there of model and data, fetching nothing; with `data.worst_first` looks at the rows.
    ///
    /// # Errors
    /// A model that nothing is known of.
    pub(crate) fn new(config: &'a Config, options: &'a ForecastOptions) -> Result<Self, String> {
        hub::fetch_nothing();
        let (architecture, note) = architecture(config)?;
        let (stages, no_data) = match stages::look(config) {
            Ok(stages) => (stages, None),
            Err(why) => (config.stages().into_iter().map(StageRows::unknown).collect(), Some(why)),
        };
        Ok(Self { config, options, architecture, note, stages, no_data })
    }

    /// Bytes of a device's memory.
    fn memory(&self) -> f64 {
        let gib = (1u64 << 30) as f64;
        let free = || device_memory().map(|[free, _]| free as f64);
        self.options.memory_gib.map(|given| given * gib).or_else(free).unwrap_or(MEMORY_GIB * gib)
    }

    /// Whether the run is one for a processor, whose speed no data sheet says.
    fn on_processor(&self) -> bool {
        let backend = self.config.trainer.backend;
        let named = matches!(backend, Backend::Flex | Backend::Ndarray);
        named || backend == Backend::Auto && self.config.model.path == "toy" && card_name().is_none()
    }

    /// "auto" is what a GPU takes.
    fn dtype(&self) -> DType {
        if self.config.trainer.dtype == Dtype::F32 { DType::F32 } else { DType::BF16 }
    }

    fn zero(&self) -> ZeroStage {
        if self.config.parallel.zero == 1 { ZeroStage::One } else { ZeroStage::Two }
    }

    /// How the ranks lie, or why they cannot.
    fn grid(&self, shapes: &ModelShapes, ranks: usize) -> Result<RankGrid, String> {
        let memory = self.memory() as usize;
        RankGrid::of_run(self.config, &self.architecture, shapes, ranks, self.zero(), memory)
            .map_err(|error| error.to_string())
    }

    /// How fast the devices are; the inner error says in words why it is not known.
    ///
    /// # Errors
    /// A file of figures that cannot be used.
    fn speeds(&self) -> Result<Result<DeviceSpeeds, String>, Failure> {
        if let Some(path) = &self.options.figures {
            let fail = |why: String| Failure::input(format!("--figures {}: {why}", path.display()));
            let text = guard::file::read_text(path, guard::limits().record_bytes).map_err(|e| fail(e.to_string()))?;
            let parameters = ModelShapes::new(&self.architecture, self.dtype()).counts()[0] as f64;
            let all = self.config.data.rollout_batch_size * self.config.rollout.n;
            let rows = match self.config.rollout.max_batch_rows {
                0 => all,
                most => all.min(most),
            };
            return DeviceSpeeds::of_figures(&text, parameters, rows as f64).map(Ok).map_err(fail);
        }
        let sheet = |name: &str| DataSheet::find(name).map(|sheet| DeviceSpeeds::of_sheet(sheet, self.dtype()));
        if let Some(name) = &self.options.card {
            return Ok(sheet(name).ok_or_else(|| format!("{name} has no data sheet here")));
        }
        const MEASURE: &str = "measure this machine with `bench step --preset small --json > figures.jsonl` (or --model \
                               with the run's own), and give --figures figures.jsonl";
        if self.on_processor() {
            return Ok(Err(format!("a processor has no data sheet here: {MEASURE}, or name a --card")));
        }
        Ok(match card_name() {
            Some(name) => sheet(&name).ok_or_else(|| format!("{name} has no data sheet here: {MEASURE}")),
            None => sheet(CARD).ok_or_else(|| MEASURE.into()),
        })
    }

    /// Everything for so many ranks.
    ///
    /// # Errors
    /// As [`Self::speeds`]; a configuration that names no algorithm.
    pub(crate) fn forecast(&self, ranks: usize) -> Result<Forecast, Failure> {
        let shapes = ModelShapes::of_run(self.config, &self.architecture, self.dtype())?;
        let memory = self.memory() as usize;
        let grid = match self.grid(&shapes, ranks) {
            Ok(grid) => grid,
            // A file for many ranks is shown on one device, too.
            Err(why) => {
                let memory = format!("{}# Memory: not counted, {why} (--ranks N)\n", self.note);
                return Ok(Forecast { memory, rows: String::new(), time: String::new() });
            }
        };
        let memory_text = self.note.clone() + &table(self.config, &shapes, grid, memory)?;
        let rows = self.rows(&shapes, grid, memory)?;
        let time = match self.speeds()? {
            Err(why) => format!("# Time: not estimated, {why}.\n"),
            Ok(speeds) => self.time(&speeds, ranks)?,
        };
        Ok(Forecast { memory: memory_text, rows, time })
    }

    /// Where the speeds come from, and what is left out.
    fn time_heading(&self, speeds: &DeviceSpeeds) -> String {
        format!(
            "# Time of a step: by count, not measured (docs/estimate.md).\n# Speeds: {}.\n# Validation, grading, \
             checkpoints and reading are not counted, and no part hides behind another.\n",
            speeds.source
        )
    }
}

/// What a run holds, if it is to be compared with a device.
pub(crate) fn fits(plan: &MemoryPlan, memory: usize) -> &'static str {
    if MemoryPlan::holds(plan.peak(), memory) { "fits" } else { "TOO MUCH" }
}

/// A configuration as a file, with what a rank of the run will take as comments under it.
///
/// # Errors
/// As [`PlannedRun::forecast`].
pub(crate) fn dry_run(config: &Config, options: &ForecastOptions, ranks: usize) -> Result<String, Failure> {
    let printed = config.to_toml();
    match PlannedRun::new(config, options) {
        Ok(planned) => Ok(format!("{printed}\n{}", planned.forecast(ranks)?.text())),
        Err(why) => {
            let why = why.lines().next().unwrap_or_default();
            Ok(format!("{printed}\n# Memory: not counted, {why}\n"))
        }
    }
}
