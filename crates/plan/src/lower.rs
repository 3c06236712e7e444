//! Which keys of the configuration lower what does not fit, and by how much.

use rl::TrainError;
use rl::config::{Config, GradsDtype, MomentsDtype, Recompute};

use crate::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};

/// A setting, and what the plan is with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// As it is written behind `train`.
    pub setting: String,
    /// The plan with this setting alone changed.
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

/// The settings that lower a peak which `memory` bytes do not hold, each with the largest value that fits, or with its
/// smallest where none does; behind them all of these together.
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
    let planned = |run: &Config| MemoryPlan::new(run, shapes, grid, zero, memory);
    let now = planned(run)?;
    let over = |plan: &MemoryPlan| [plan.update(), plan.rollout()].map(|bytes| !MemoryPlan::holds(bytes, memory));
    let wanted = over(&now);
    let mut found = Vec::new();
    let mut all = run.clone();
    for lever in levers(run, &now) {
        let with = |value: usize| {
            let mut run = run.clone();
            (lever.set)(&mut run, value);
            Ok::<_, TrainError>((planned(&run)?, run))
        };
        // Only a peak that is too high counts, and only if it gets lower.
        let peaks = |plan: &MemoryPlan| [plan.update(), plan.rollout()];
        let helps = |plan: &MemoryPlan| (0..2).any(|i| wanted[i] && peaks(plan)[i] < peaks(&now)[i]);
        let Some([most, least, step]) = lever.range else {
            let (plan, changed) = with(0)?;
            if helps(&plan) && changed != *run {
                (lever.set)(&mut all, 0);
                found.push(Lowered { setting: format!("{}={}", lever.key, lever.only), plan });
            }
            continue;
        };
        let fits = |value: usize| Ok::<_, TrainError>(over(&with(value)?.0) == [false; 2]);
        let (mut low, mut high) = (0, (most - least) / step + 1);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if fits(least + middle * step)? { low = middle } else { high = middle }
        }
        let value = least + low * step;
        let plan = with(value)?.0;
        if helps(&plan) {
            (lever.set)(&mut all, value);
            found.push(Lowered { setting: format!("{}={value}", lever.key), plan });
        }
    }
    if found.len() > 1 {
        found.push(Lowered { setting: "all of these".into(), plan: planned(&all)? });
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
        let rows = found.iter().find_map(|l| l.setting.strip_prefix("rollout.max_batch_rows=")).unwrap();
        run.rollout.max_batch_rows = rows.parse().unwrap();
        assert!(run.rollout.max_batch_rows.is_multiple_of(8) && fits(&run));
        run.rollout.max_batch_rows += 8;
        assert!(!fits(&run), "{rows} is the most");
        // What an update holds is no reason to change anything.
        assert!(found.iter().all(|l| !l.setting.starts_with("actor.micro_batch_tokens")), "{found:?}");
        run.rollout.max_batch_rows = 64;
        assert_eq!(lowered(&run, &shapes, GRID, ZeroStage::Two, memory).unwrap(), []);
    }
}
