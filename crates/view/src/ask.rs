//! What the page asks for, and the answers, all JSON. A server answers as the page asks; a file holds the answers.

use run::metrics::registry;
use serde_json::{Value, json};

use crate::error::ViewError;
use crate::viewed::ViewedRun;
use crate::{curves, rollouts, settings};

/// Something that the page asks for; `run` is the place of a run among those that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The runs, and what each metric means.
    Runs,
    /// The curves of a run from a byte of its log on.
    Metrics {
        /// Which run.
        run: usize,
        /// The byte, 0 for all.
        from: u64,
    },
    /// The steps whose responses were logged.
    Steps {
        /// Which run.
        run: usize,
    },
    /// The groups of a step.
    Rollouts {
        /// Which run.
        run: usize,
        /// Which step.
        step: u64,
    },
    /// One group of a step, with every token.
    Group {
        /// Which run.
        run: usize,
        /// Which step.
        step: u64,
        /// Which group of it, from 0.
        group: usize,
    },
    /// The validation responses after a step.
    Validation {
        /// Which run.
        run: usize,
        /// Which step.
        step: u64,
    },
    /// The rows that were set aside.
    SetAside {
        /// Which run.
        run: usize,
    },
    /// The configuration.
    Config {
        /// Which run.
        run: usize,
    },
}

impl Ask {
    /// What a path asks for: `api/runs/0/rollouts/12`, for curves with the query `from=BYTE`. `None` for any other.
    pub fn parse(path: &str, query: &str) -> Option<Self> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let place = |text: &str| usize::try_from(number(text)?).ok();
        let parts: Vec<&str> = path.split('/').collect();
        Some(match parts[..] {
            ["api", "runs"] => Self::Runs,
            ["api", "runs", run, "metrics"] => {
                let from = query.split('&').find_map(|pair| pair.strip_prefix("from="));
                Self::Metrics { run: place(run)?, from: from.map_or(Some(0), number)? }
            }
            ["api", "runs", run, "steps"] => Self::Steps { run: place(run)? },
            ["api", "runs", run, "rollouts", step] => Self::Rollouts { run: place(run)?, step: number(step)? },
            ["api", "runs", run, "rollouts", step, group] => {
                Self::Group { run: place(run)?, step: number(step)?, group: place(group)? }
            }
            ["api", "runs", run, "validation", step] => Self::Validation { run: place(run)?, step: number(step)? },
            ["api", "runs", run, "set_aside"] => Self::SetAside { run: place(run)? },
            ["api", "runs", run, "config"] => Self::Config { run: place(run)? },
            _ => return None,
        })
    }

    /// The path that asks for it, under which a file holds the answer.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Runs => "api/runs".into(),
            Self::Metrics { run, .. } => format!("api/runs/{run}/metrics"),
            Self::Steps { run } => format!("api/runs/{run}/steps"),
            Self::Rollouts { run, step } => format!("api/runs/{run}/rollouts/{step}"),
            Self::Group { run, step, group } => format!("api/runs/{run}/rollouts/{step}/{group}"),
            Self::Validation { run, step } => format!("api/runs/{run}/validation/{step}"),
            Self::SetAside { run } => format!("api/runs/{run}/set_aside"),
            Self::Config { run } => format!("api/runs/{run}/config"),
        }
    }

    /// The answer, as JSON.
    ///
    /// # Errors
    /// [`ViewError::Absent`] for what is not there; a file that cannot be read.
    pub fn answer(self, runs: &[ViewedRun]) -> Result<Vec<u8>, ViewError> {
        let of = |index: usize| runs.get(index).ok_or_else(|| ViewError::Absent(format!("there is no run {index}")));
        let value = match self {
            Self::Runs => self::runs(runs),
            Self::Metrics { run, from } => return curves::since(of(run)?, from),
            Self::Steps { run } => rollouts::steps(of(run)?).json(),
            Self::Rollouts { run, step } => rollouts::list(of(run)?, step, usize::MAX)?,
            Self::Group { run, step, group } => rollouts::group(of(run)?, step, group)?,
            Self::Validation { run, step } => rollouts::validation(of(run)?, step, usize::MAX)?,
            Self::SetAside { run } => rollouts::set_aside(of(run)?, usize::MAX)?,
            Self::Config { run } => settings::read(of(run)?),
        };
        Ok(value.to_string().into_bytes())
    }
}

/// The runs, and the registry of metrics as it is declared.
pub(crate) fn runs(runs: &[ViewedRun]) -> Value {
    let metric = |metric: &registry::Metric| {
        json!({
            "name": metric.name, "unit": metric.unit, "reduction": metric.reduction.text(), "meaning": metric.meaning,
        })
    };
    let sections = registry::sections().iter().map(|section| {
        let metrics: Vec<Value> = section.metrics.iter().map(metric).collect();
        json!({"title": section.title, "note": section.note, "metrics": metrics})
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "runs": runs.iter().map(ViewedRun::about).collect::<Vec<_>>(),
        "sections": sections.collect::<Vec<_>>(),
    })
}
