//! Which keys of the configuration lower what does not fit, and by how much.

use rl::TrainError;
use rl::config::{Config, GradsDtype, MomentsDtype, Recompute};

use crate::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};

/// Settings, and what the plan is with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// As they are written behind `train`.
    pub settings: String,
    /// The plan with these alone changed.
    pub plan: MemoryPlan,
}

/// A key, the values that lower it, largest first, and what each does to a configuration.
struct Lever {
    key: &'static str,
    /// The most that it may be, its least, and in which steps; none where there is one value only.
    range: Option<[usize; 3]>,
    /// How the only value is written.
    only: &'static str,
    set: fn(&mut Config, usize),
}

impl Lever {
    const fn one(key: &'static str, only: &'static str, set: fn(&mut Config, usize)) -> Self {
        Self { key, range: None, only, set }
    }

    fn written(&self, value: usize) -> String {
        match self.range {
            Some(_) => format!("{}={value}", self.key),
            None => format!("{}={}", self.key, self.only),
        }
    }

    /// The largest of its values that `fits`, or the smallest where none does.
    fn largest(&self, fits: impl Fn(usize) -> Result<bool, TrainError>) -> Result<usize, TrainError> {
        let Some([most, least, step]) = self.range else { return Ok(0) };
        let (mut low, mut high) = (0, (most - least) / step + 1);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if fits(least + middle * step)? { low = middle } else { high = middle }
        }
        Ok(least + low * step)
    }
}

/// All there are. Those that cost least come first.
fn levers(run: &Config, plan: &MemoryPlan) -> [Lever; 9] {
    let n = run.rollout.n;
    let shortest = (run.data.max_prompt_length + run.data.max_response_length).next_multiple_of(256);
    let range = |most: usize, least: usize, step: usize| Some([most.max(least), least, step]);
    let many = |key, range, set| Lever { key, range, only: "", set };
    [
        Lever::one("actor.recompute", "always", |run, _| run.actor.recompute = Recompute::Always),
        many("actor.micro_batch_tokens", range(run.actor.micro_batch_tokens, shortest, 256), |run, tokens| {
            run.actor.micro_batch_tokens = tokens;
        }),
        many("rollout.max_batch_rows", range(plan.rows, n, n), |run, rows| run.rollout.max_batch_rows = rows),
        many(
            "rollout.prefill_token_budget",
            range(run.rollout.prefill_token_budget, run.data.max_prompt_length, 256),
            |run, tokens| run.rollout.prefill_token_budget = tokens,
        ),
        Lever::one("rollout.image_cache_gib", "0", |run, _| run.rollout.image_cache_gib = 0.0),
        Lever::one("actor.optim.grads_dtype", "bf16", |run, _| run.actor.optim.grads_dtype = GradsDtype::Bf16),
        Lever::one("actor.optim.moments_dtype", "bf16", |run, _| run.actor.optim.moments_dtype = MomentsDtype::Bf16),
        Lever::one("actor.optim.master_weights", "false", |run, _| run.actor.optim.master_weights = false),
        Lever::one("algorithm.disable_kl", "true", |run, _| run.algorithm.disable_kl = true),
    ]
}

/// A run that is to be made smaller.
struct TooLarge<'a> {
    run: &'a Config,
    shapes: &'a ModelShapes,
    grid: RankGrid,
    zero: ZeroStage,
    memory: usize,
    levers: [Lever; 9],
}

/// The value of each lever that is used.
type LoweringChoice = [Option<usize>; 9];

impl TooLarge<'_> {
    fn plan(&self, choice: &LoweringChoice) -> Result<MemoryPlan, TrainError> {
        let mut run = self.run.clone();
        for (lever, value) in self.levers.iter().zip(choice) {
            if let Some(value) = value {
                (lever.set)(&mut run, *value);
            }
        }
        MemoryPlan::new(&run, self.shapes, self.grid, self.zero, self.memory)
    }

    fn fits(&self, choice: &LoweringChoice) -> Result<bool, TrainError> {
        Ok(MemoryPlan::holds(self.plan(choice)?.peak(), self.memory))
    }

    fn with(&self, choice: &LoweringChoice, lever: usize, value: Option<usize>) -> LoweringChoice {
        let mut choice = *choice;
        choice[lever] = value;
        choice
    }

    /// `choice` with the largest value of a lever that fits beside the others.
    fn raised(&self, choice: &LoweringChoice, lever: usize) -> Result<LoweringChoice, TrainError> {
        let value = self.levers[lever].largest(|value| self.fits(&self.with(choice, lever, Some(value))))?;
        Ok(self.with(choice, lever, Some(value)))
    }

    /// What of `all` is enough: without what is not needed, the last ones first, and with the largest values.
    fn enough(&self, all: &LoweringChoice) -> Result<LoweringChoice, TrainError> {
        let mut choice = *all;
        for lever in (0..choice.len()).rev().filter(|&i| all[i].is_some()) {
            let without = self.with(&choice, lever, None);
            if self.fits(&without)? {
                choice = without;
            }
        }
        for lever in 0..choice.len() {
            if choice[lever].is_some() {
                choice = self.raised(&choice, lever)?;
            }
        }
        Ok(choice)
    }

    fn lowered(&self, choice: &LoweringChoice) -> Result<Lowered, TrainError> {
        let used = self.levers.iter().zip(choice).filter_map(|(lever, value)| Some(lever.written((*value)?)));
        Ok(Lowered { settings: used.collect::<Vec<_>>().join(" "), plan: self.plan(choice)? })
    }
}

/// The settings that lower a peak which `memory` bytes do not hold, each with the largest value that fits, or with its
/// smallest where none does. Where none is enough by itself, behind them as many of them together as are.
///
/// # Errors
/// As [`MemoryPlan::new`].
pub fn lowered(
    run: &Config,
    shapes: &ModelShapes,
    grid: RankGrid,
    zero: ZeroStage,
    memory: usize,
) -> Result<Vec<Lowered>, TrainError> {
    let now = MemoryPlan::new(run, shapes, grid, zero, memory)?;
    let large = TooLarge { run, shapes, grid, zero, memory, levers: levers(run, &now) };
    // Only a peak that is too high counts, and only if it gets lower.
    let peaks = |plan: &MemoryPlan| [plan.update(), plan.rollout()];
    let helps = |plan: &MemoryPlan| {
        let pairs = std::iter::zip(peaks(plan), peaks(&now));
        pairs.into_iter().any(|(with, without)| with < without && !MemoryPlan::holds(without, memory))
    };
    let (mut found, mut all) = (Vec::new(), LoweringChoice::default());
    for (lever, used) in all.iter_mut().enumerate() {
        let choice = large.raised(&LoweringChoice::default(), lever)?;
        let lowered = large.lowered(&choice)?;
        if helps(&lowered.plan) {
            *used = large.levers[lever].range.map_or(Some(0), |[_, least, _]| Some(least));
            found.push(lowered);
        }
    }
    if found.len() > 1 && !found.iter().any(|lowered| MemoryPlan::holds(lowered.plan.peak(), memory)) {
        found.push(large.lowered(&if large.fits(&all)? { large.enough(&all)? } else { all })?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::DType;
    use model_qwen2vl::QwenVlConfig;

    const GRID: RankGrid = RankGrid { data: 8, tensor: 1 };

    #[test]
    fn rows_are_lowered_until_sampling_fits() {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        let mut run = Config::default();
        run.data.max_prompt_length = 5650;
        run.rollout.n = 8;
        let memory = 70 << 30;
        let plan = |run: &Config| MemoryPlan::new(run, &shapes, GRID, ZeroStage::Two, memory).unwrap();
        let fits = |run: &Config| MemoryPlan::holds(plan(run).peak(), memory);
        assert!(!fits(&run));
        let found = lowered(&run, &shapes, GRID, ZeroStage::Two, memory).unwrap();
        let rows = found.iter().find_map(|l| l.settings.strip_prefix("rollout.max_batch_rows=")).unwrap();
        run.rollout.max_batch_rows = rows.parse().unwrap();
        assert!(run.rollout.max_batch_rows.is_multiple_of(8) && fits(&run));
        run.rollout.max_batch_rows += 8;
        assert!(!fits(&run), "{rows} is the most");
        // What an update holds is no reason to change anything.
        assert!(found.iter().all(|l| !l.settings.starts_with("actor.micro_batch_tokens")), "{found:?}");
        run.rollout.max_batch_rows = 64;
        assert_eq!(lowered(&run, &shapes, GRID, ZeroStage::Two, memory).unwrap(), []);
    }

    /// 7b on one device of 80 GiB: no setting is enough, those together that are need no more than that.
    #[test]
    fn settings_together_are_no_more_than_are_needed() {
        let shapes = ModelShapes::new(&QwenVlConfig::preset("7b").unwrap(), DType::BF16);
        let run = Config::default();
        let found = lowered(&run, &shapes, RankGrid::ALONE, ZeroStage::Off, 80 << 30).unwrap();
        let (together, alone) = found.split_last().unwrap();
        assert!(alone.iter().all(|l| !MemoryPlan::holds(l.plan.peak(), 80 << 30)), "{alone:?}");
        assert!(MemoryPlan::holds(together.plan.peak(), 80 << 30), "{together:?}");
        let settings: Vec<String> = together.settings.split(' ').map(str::to_string).collect();
        let planned = |settings: &[String]| {
            let data = ["data.train_files=[toy:read]".to_string()];
            let run = rl::config::resolve(&[], &[settings, &data].concat()).unwrap();
            MemoryPlan::new(&run, &shapes, RankGrid::ALONE, ZeroStage::Off, 80 << 30).unwrap()
        };
        assert_eq!(planned(&settings), together.plan, "the settings are what a user writes");
        for i in 0..settings.len() {
            let mut without = settings.clone();
            let dropped = without.remove(i);
            assert!(!MemoryPlan::holds(planned(&without).peak(), 80 << 30), "{dropped} is not needed");
        }
    }
}
