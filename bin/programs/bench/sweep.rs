//! `bench sweep`: steps while one size grows, as a table and as pictures.

use std::path::{Path, PathBuf};

use burn::tensor::DType;
use clap::ValueEnum;
use model_qwen2vl::Kernels;
use report::svg::axis::Axis;
use report::svg::chart::{Chart, Mark, Series};

use super::options::Shared;
use super::row::BenchRow;
use super::workload::reset_peak;
use crate::common::{Failure, print};

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Over {
    /// Words of the prompt.
    Prompt,
    /// Tokens of a response.
    Response,
    /// Responses a prompt.
    Rollouts,
    /// Side of the picture.
    Image,
    /// The model: presets and folders.
    Model,
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Response => "response",
            Self::Rollouts => "rollouts",
            Self::Image => "image",
            Self::Model => "model",
        }
    }

    /// On the axis of a picture.
    fn label(self) -> &'static str {
        match self {
            Self::Prompt => "words of the prompt",
            Self::Response => "tokens of a response",
            Self::Rollouts => "responses a prompt",
            Self::Image => "side of the picture, pixels",
            Self::Model => "model",
        }
    }

    /// Gives it one of its values.
    fn set(self, shared: &mut Shared, value: &str) -> Result<(), Failure> {
        let size = match self {
            Self::Model => {
                let folder = PathBuf::from(value);
                (shared.model, shared.preset) = match folder.is_dir() {
                    true => (Some(folder), None),
                    false => (None, Some(value.to_string())),
                };
                return Ok(());
            }
            Self::Prompt => &mut shared.text_tokens,
            Self::Response => &mut shared.response_tokens,
            Self::Rollouts => &mut shared.rollouts,
            Self::Image => &mut shared.image,
        };
        let may_be_0 = matches!(self, Self::Image | Self::Prompt);
        *size = value.parse().ok().filter(|v| *v > 0 || may_be_0).ok_or_else(|| {
            let name = self.name();
            Failure::input(format!("--values {value:?}: {name} takes whole numbers of 1 or more"))
        })?;
        Ok(())
    }
}

/// Medians of the steps at each value; one value after the other, so that the highest memory is that value's own.
///
/// # Errors
/// A value that means nothing, before anything is computed; a device or a file that cannot be used.
pub(super) fn sweep<B: Kernels>(
    shared: &Shared,
    over: Over,
    values: &[String],
    plot: Option<PathBuf>,
    dtype: DType,
    device: &B::Device,
) -> Result<(), Failure> {
    if over == Over::Model && plot.is_some() {
        return Err(Failure::input("--plot needs numbers on its axis; models have none"));
    }
    let at = |value: &String| {
        let mut shared = shared.clone();
        over.set(&mut shared, value)?;
        Ok(shared)
    };
    let places = values.iter().map(at).collect::<Result<Vec<_>, Failure>>()?;
    print(&format!("| {} {}\n|---{}|\n", over.name(), BenchRow::header(), "|---".repeat(BenchRow::COLUMNS)))?;
    let mut points = Vec::new();
    let mut bench = None;
    for (value, shared) in std::iter::zip(values, &places) {
        shared.check()?;
        reset_peak();
        if over == Over::Model {
            bench = None;
        }
        let bench = match &mut bench {
            Some(bench) => bench,
            none => none.insert(shared.bench::<B>(dtype, device)?),
        };
        let sizes = shared.sizes();
        let rows = (0..shared.steps).map(|s| bench.step(&sizes, s as u64)).collect::<Result<Vec<_>, _>>()?;
        let row = BenchRow::median(rows);
        print(&format!("| {value} {}\n", row.line()))?;
        points.push((value.parse().unwrap_or(0.0), row));
    }
    plot.map_or(Ok(()), |file| draw(over, &points, &file))
}

/// Seconds by phase and the highest memory over the values, as two pictures.
fn draw(over: Over, points: &[(f64, BenchRow)], file: &Path) -> Result<(), Failure> {
    let series = |name: &str, value: &dyn Fn(&BenchRow) -> f64| Series {
        name: name.into(),
        points: points.iter().map(|(x, row)| (*x, value(row))).collect(),
        mark: Mark::Line { half: vec![] },
    };
    let chart = |title: &str, y: &str, series: Vec<Series>| Chart {
        title: title.into(),
        note: String::new(),
        x: Axis::new(over.label()),
        y: Axis::new(y),
        series,
    };
    let seconds = chart(
        "Seconds of a training step",
        "seconds",
        vec![
            series("total", &|r| r.phases().total),
            series("update", &|r| r.phases().update),
            series("generate", &|r| r.phases().generate),
            series("old log-probs", &|r| r.phases().old_log_probs),
        ],
    );
    let memory =
        chart("Highest resident memory", "GiB", vec![series("peak", &|r| r.phases().peak_gib.unwrap_or(f64::NAN))]);
    for (name, chart) in [("seconds", seconds), ("memory", memory)] {
        let path =
            file.with_file_name(format!("{}-{name}.svg", file.file_stem().unwrap_or_default().to_string_lossy()));
        std::fs::write(&path, chart.draw()).map_err(|e| Failure::other(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}
