//! The plan in words, as lines that are comments in TOML.

use burn::tensor::DType;
use rl::TrainError;
use rl::config::{Config, GradsDtype, MomentsDtype};

use crate::{MemoryPlan, ModelShapes, RankGrid, ZeroStage, lowered};

/// Bytes in GiB.
fn gib(bytes: usize) -> String {
    match bytes {
        0 => "-".into(),
        _ => format!("{:.2}", bytes as f64 / (1u64 << 30) as f64),
    }
}

/// What stands over the figures of a stage.
fn named(zero: ZeroStage) -> &'static str {
    match zero {
        ZeroStage::Off => "update",
        ZeroStage::One => "ZeRO-1",
        ZeroStage::Two => "ZeRO-2",
    }
}

/// A line: what it is, its figure in an update under each stage, and in sampling.
fn line(name: &str, updates: &[String], rollout: &str) -> String {
    let mut out = format!("#   {name:<56}");
    for cell in updates.iter().map(String::as_str).chain([rollout]) {
        out += &format!(" {cell:>9}");
    }
    out + "\n"
}

/// What a rank of `grid` holds, for each stage of ZeRO that makes a difference, and whether `memory` bytes hold it; of
/// what they do not hold, which settings lower it. Every line begins with `#`.
///
/// # Errors
/// As [`MemoryPlan::new`].
pub fn table(run: &Config, shapes: &ModelShapes, grid: RankGrid, memory: usize) -> Result<String, TrainError> {
    let stages: &[ZeroStage] = match grid.data {
        1 => &[ZeroStage::Off],
        _ => &[ZeroStage::Off, ZeroStage::One, ZeroStage::Two],
    };
    let plans: Vec<MemoryPlan> =
        stages.iter().map(|zero| MemoryPlan::new(run, shapes, grid, *zero, memory)).collect::<Result<_, _>>()?;
    let mut out = heading(shapes, grid);
    let titles: Vec<String> = stages.iter().map(|zero| named(*zero).to_string()).collect();
    out += &line("", &titles, "sampling");
    // Sampling holds what the stage leaves of the optimizer: the last one's column.
    let Some(last) = plans.last().copied() else { return Ok(out) };
    for (name, learning, sampling) in rows(run, shapes.dtype, &last) {
        let cells: Vec<String> = plans.iter().map(|plan| learning(plan)).map(gib).collect();
        if cells.iter().any(|cell| cell != "-") || sampling(&last) > 0 {
            out += &line(&name, &cells, &gib(sampling(&last)));
        }
    }
    let sums: Vec<usize> = plans.iter().map(MemoryPlan::update).collect();
    let said = |bytes: usize| if MemoryPlan::holds(bytes, memory) { "fits" } else { "TOO MUCH" }.to_string();
    out += &line("sum", &sums.iter().map(|bytes| gib(*bytes)).collect::<Vec<_>>(), &gib(last.rollout()));
    let of = format!("of {} GiB, of which pools leave {:.0}% unused", gib(memory), 100.0 * MemoryPlan::UNUSED);
    out += &line(&of, &sums.iter().map(|bytes| said(*bytes)).collect::<Vec<_>>(), &said(last.rollout()));
    let half =
        format!("Where prompts and responses are half as long, sampling takes {} GiB.", gib(last.rollout_of_half()));
    out += &format!("#   {half}\n");
    if MemoryPlan::holds(last.peak(), memory) {
        return Ok(out);
    }
    let zero = stages.last().copied().unwrap_or(ZeroStage::Off);
    let settings = lowered(run, shapes, grid, zero, memory)?;
    out += &advice(&settings, memory, &more_ranks(run, shapes, grid, memory)?);
    Ok(out)
}

fn heading(shapes: &ModelShapes, grid: RankGrid) -> String {
    let [all, tower] = shapes.counts();
    let whose = match (grid.ranks(), grid.tensor) {
        (1, _) => "one device".to_string(),
        (ranks, 1) => format!("each of {ranks} ranks, which have a copy of the model each"),
        (ranks, tensor) => format!("each of {ranks} ranks, {} copies of the model on {tensor} ranks each", grid.data),
    };
    format!(
        "# Memory of {whose}: GiB by count, not measured (docs/memory.md).\n# {:.3e} parameters, {:.2e} of them in the \
         vision tower, in {}.\n",
        all as f64,
        tower as f64,
        if shapes.dtype == DType::BF16 { "bf16" } else { "f32" },
    )
}

/// A row: its name, and its bytes in an update and in sampling.
type Row = (String, fn(&MemoryPlan) -> usize, fn(&MemoryPlan) -> usize);

fn rows(run: &Config, dtype: DType, plan: &MemoryPlan) -> Vec<Row> {
    let optim = &run.actor.optim;
    let bf16 = |bf16: bool| if bf16 { "bf16" } else { "f32" };
    let moments = bf16(optim.moments_dtype == MomentsDtype::Bf16);
    let master = if optim.master_weights && dtype != DType::F32 { " and f32 weights" } else { "" };
    let again = if plan.recompute { "inputs of layers" } else { "all of each layer" };
    let nothing: fn(&MemoryPlan) -> usize = |_| 0;
    vec![
        ("weights".into(), |p| p.weights, |p| p.weights),
        ("reference policy".into(), |p| p.reference, |p| p.reference),
        (format!("gradients in {}", bf16(optim.grads_dtype == GradsDtype::Bf16)), |p| p.gradients, nothing),
        ("gradients on their way".into(), |p| p.bucket, nothing),
        (format!("optimizer: {moments} moments{master}"), |p| p.optimizer, |p| p.optimizer),
        (format!("kept of a pass of {} tokens: {again}", run.actor.micro_batch_tokens), |p| p.pass.kept, nothing),
        ("the head, or a layer, at work".into(), |p| p.pass.passing, nothing),
        (format!("keys and values of {} rows, the longest", plan.rows), nothing, |p| p.keys_and_values),
        ("prefill, or logits of a token".into(), nothing, |p| p.sampling),
        ("image embeddings".into(), |p| if p.images.1 { p.images.0 } else { 0 }, |p| p.images.0),
        ("the driver, and NCCL where there are ranks".into(), |p| p.runtime, |p| p.runtime),
    ]
}

/// The next number of ranks that holds the run, if one of the next doublings does.
fn more_ranks(run: &Config, shapes: &ModelShapes, grid: RankGrid, memory: usize) -> Result<Option<usize>, TrainError> {
    for doublings in 1..=6 {
        let grid = RankGrid { data: grid.data << doublings, ..grid };
        let plan = MemoryPlan::new(run, shapes, grid, ZeroStage::Two, memory)?;
        if MemoryPlan::holds(plan.peak(), memory) {
            return Ok(Some(grid.ranks()));
        }
    }
    Ok(None)
}

fn advice(settings: &[crate::Lowered], memory: usize, ranks: &Option<usize>) -> String {
    let mut out = String::from("# Lower by\n");
    for setting in settings {
        let plan = &setting.plan;
        let fits = if MemoryPlan::holds(plan.peak(), memory) { "fits" } else { "not enough" };
        let sums = format!("update {}, sampling {}: {fits}", gib(plan.update()), gib(plan.rollout()));
        out += &format!("#   {:<44} {sums}\n", setting.setting);
    }
    match ranks {
        Some(ranks) => out + &format!("#   or by {ranks} ranks\n"),
        None => out + "#   More ranks alone do not make it fit: the weights are too large for one of them.\n",
    }
}
