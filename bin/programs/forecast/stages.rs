//! The stages of a run that is asked what it will take: their rows, their steps, their seconds.

use burn::tensor::DType;
use plan::{
    DeviceSpeeds, MemoryPlan, ModelShapes, RankGrid, Seconds, StepCount, StepLengths, StepWork, rl_step, sft_step,
    stage, time_table,
};
use rl::checkpoint::TrainerState;
use rl::config::{Config, Stage};
use rl::prompts::{EpochSizes, RowSize};

use super::{PlannedRun, fits};
use crate::common::Failure;

/// A stage, with what is known of its rows.
pub(super) struct StageRows {
    stage: Stage,
    /// Rows of an epoch; none where the data is not there.
    epoch_len: Option<usize>,
    /// What they cost, where that was asked; and where the first of the dearest stands.
    sizes: Option<(EpochSizes, String)>,
}

impl StageRows {
    /// Of data that is not there.
    pub(super) fn unknown(stage: Stage) -> Self {
        Self { stage, epoch_len: None, sizes: None }
    }

    /// Rows that a step takes.
    fn batch(&self, config: &Config) -> usize {
        match &self.stage {
            Stage::Sft(stage) => stage.batch_size,
            Stage::Rl(_) => config.data.rollout_batch_size,
        }
    }

    /// Steps, where they are known.
    fn steps(&self, config: &Config) -> Option<usize> {
        match &self.stage {
            Stage::Sft(stage) => Some(stage.steps),
            Stage::Rl(stage) if stage.steps > 0 || config.trainer.max_steps > 0 => Some(config.rl_steps(stage, 0)),
            Stage::Rl(stage) => self.epoch_len.map(|len| config.rl_steps(stage, len)),
        }
    }

    /// The row that costs most.
    fn worst(&self) -> Option<&RowSize> {
        self.sizes.as_ref()?.0.worst.first().map(|(_, size)| size)
    }
}

/// The stages of a run with their data; with `data.worst_first` all rows are looked at.
///
/// # Errors
/// Why the data cannot be opened, in a line.
pub(super) fn look(config: &Config) -> Result<Vec<StageRows>, String> {
    let said = |error: rl::TrainError| error.to_string().lines().next().unwrap_or_default().to_string();
    let all = launch::stage_prompts(config).map_err(said)?;
    let of = |(index, (stage, prompts)): (usize, (Stage, rl::prompts::Prompts))| {
        let mut rows = StageRows { stage, epoch_len: Some(prompts.epoch_len()), sizes: None };
        if config.data.worst_first {
            let cursor = TrainerState::first_cursor(index, config);
            let sizes = prompts.sizes(&cursor, rows.batch(config)).map_err(said)?;
            let place = sizes.worst.first().map(|(_, worst)| prompts.place(worst.row)).unwrap_or_default();
            rows.sizes = Some((sizes, place));
        }
        Ok(rows)
    };
    std::iter::zip(config.stages(), all).enumerate().map(of).collect()
}

impl PlannedRun<'_> {
    /// What the rows cost, and the memory that the dearest of them ask for.
    pub(super) fn rows(&self, shapes: &ModelShapes, grid: RankGrid, memory: usize) -> Result<String, Failure> {
        if !self.config.data.worst_first {
            return Ok(String::new());
        }
        if let Some(why) = &self.no_data {
            return Ok(format!("# Rows: not looked at, {why}\n"));
        }
        let mut out = String::new();
        for rows in &self.stages {
            let Some((sizes, place)) = &rows.sizes else { continue };
            let [prompt, image, _] = sizes.means;
            out += &format!(
                "# Rows of stage {:?}: {} can be used; prompts have {prompt:.0} tokens on average, {image:.0} of them of \
                 pictures.\n",
                rows.stage.name(),
                sizes.usable
            );
            let Some(worst) = rows.worst() else { continue };
            let mut own = self.config.clone();
            own.data.max_prompt_length = worst.prompt;
            let plan = MemoryPlan::new(&own, shapes, grid, stage(&own, grid), memory)?;
            let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
            out += &format!(
                "#   Worst row: {place}, a prompt of {} tokens, {} of them of pictures. With it an update takes {:.2} GiB, \
                 sampling {:.2}: {}.\n",
                worst.prompt,
                worst.image,
                gib(plan.update()),
                gib(plan.rollout()),
                fits(&plan, memory)
            );
        }
        Ok(out)
    }

    /// Average lengths of a stage's rows: those that were looked at, else the longest.
    fn lengths(&self, rows: &StageRows, shapes: &ModelShapes) -> StepLengths {
        let longest = StepLengths::longest(self.config, shapes);
        let sizes = rows.sizes.as_ref().map(|(sizes, _)| sizes);
        let [prompt, image] = sizes.map_or([longest.prompt, longest.image], |sizes| [sizes.means[0], sizes.means[1]]);
        let response = match &rows.stage {
            Stage::Sft(stage) => sizes.map_or(stage.max_response_length as f64, |sizes| sizes.means[2]),
            Stage::Rl(_) => self.options.response_tokens.map_or(longest.response, |tokens| tokens as f64),
        };
        StepLengths { prompt, image, response }
    }

    /// Steps of all stages on a grid, each with its count and lengths.
    fn steps(&self, dtype: DType, ranks: usize) -> Result<Vec<(&StageRows, StepWork, StepLengths)>, Failure> {
        let shapes = ModelShapes::of_run(self.config, &self.architecture, dtype)?;
        let grid = self.grid(&shapes, ranks).map_err(Failure::input)?;
        let plan = MemoryPlan::new(self.config, &shapes, grid, stage(self.config, grid), self.memory() as usize)?;
        let of = |rows: &StageRows| -> Result<_, Failure> {
            let lengths = self.lengths(rows, &shapes);
            Ok(match &rows.stage {
                Stage::Sft(stage) => (sft_step(self.config, stage, (&shapes, grid, &plan), &lengths), lengths),
                Stage::Rl(_) => (rl_step(self.config, &shapes, grid, &plan, &lengths)?, lengths),
            })
        };
        self.stages.iter().map(|rows| of(rows).map(|(work, lengths)| (rows, work, lengths))).collect()
    }

    /// Seconds of a step of each stage.
    pub(super) fn time(&self, speeds: &DeviceSpeeds, ranks: usize) -> Result<String, Failure> {
        let mut out = self.time_heading(speeds);
        if let Some(why) = self.no_data.as_ref().filter(|_| !self.config.data.worst_first) {
            out += &format!("# The data was not opened: {why}\n");
        }
        let steps = self.steps(speeds.dtype, ranks)?;
        for (rows, work, lengths) in &steps {
            out += &format!(
                "# Prompts of {:.0} tokens, {:.0} of them of pictures, responses of {:.0}{}.\n",
                lengths.prompt,
                lengths.image,
                lengths.response,
                match (&rows.sizes, self.options.response_tokens) {
                    (None, None) => ": the longest that may be (--worst-first looks at the data, --response-tokens N)",
                    (Some(_), None) if matches!(rows.stage, Stage::Rl(_)) =>
                        ": the longest that may be (--response-tokens N)",
                    _ => "",
                }
            );
            out += &time_table(rows.stage.name(), work, speeds, StepCount { steps: rows.steps(self.config), ranks });
        }
        Ok(out)
    }

    /// Seconds of all steps together where they are known, and of a step of the last stage.
    fn whole(&self, speeds: &DeviceSpeeds, ranks: usize) -> Result<(Option<Seconds>, Seconds), Failure> {
        let steps = self.steps(speeds.dtype, ranks)?;
        let of = |(rows, work, _): &(&StageRows, StepWork, StepLengths)| {
            Some(work.seconds(speeds) * rows.steps(self.config)? as f64)
        };
        let all = steps.iter().map(of).try_fold(Seconds::default(), |sum, stage| Some(sum + stage?));
        let last = steps.last().map(|(_, work, _)| work.seconds(speeds)).unwrap_or_default();
        Ok((all, last))
    }

    /// A line for each of these numbers of ranks: whether it fits, a step, the hours of the run.
    ///
    /// # Errors
    /// As [`Self::forecast`].
    pub(crate) fn by_ranks(&self, numbers: &[usize]) -> Result<String, Failure> {
        let shapes = ModelShapes::of_run(self.config, &self.architecture, self.dtype())?;
        let speeds = self.speeds()?.ok();
        let memory = self.memory() as usize;
        let line = |cells: [&str; 6]| {
            let [ranks, copies, holds, step, hours, device] = cells;
            format!("#   {ranks:>6} {copies:>11} {holds:>10} {step:>12} {hours:>12} {device:>14}\n")
        };
        let mut out = String::from("# By ranks:\n");
        out += &line(["ranks", "copies x", "memory", "s a step", "hours", "device-hours"]);
        for &ranks in numbers {
            let Ok(grid) = self.grid(&shapes, ranks) else {
                out += &line([&ranks.to_string(), "-", "-", "-", "-", "-"]);
                continue;
            };
            let plan = MemoryPlan::new(self.config, &shapes, grid, stage(self.config, grid), memory)?;
            let copies = format!("{} x {}", grid.data, grid.tensor);
            let [step, hours, device] = match &speeds {
                None => ["-", "-", "-"].map(String::from),
                Some(speeds) => {
                    let (all, last) = self.whole(speeds, ranks)?;
                    let hours = |times: f64| all.map_or("-".into(), |s| format!("{:.2}", times * s.expected / 3600.0));
                    [format!("{:.2}", last.expected), hours(1.0), hours(ranks as f64)]
                }
            };
            out += &line([&ranks.to_string(), &copies, fits(&plan, memory), &step, &hours, &device]);
        }
        Ok(out)
    }
}
