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

/// A line: what it is, and its figures in an update and in sampling.
fn line(name: &str, update: &str, sampling: &str) -> String {
    format!("#   {name:<56} {update:>9} {sampling:>9}\n")
}

/// What copies of the model share out on GPUs.
pub fn stage(run: &Config, grid: RankGrid) -> ZeroStage {
    match (grid.data, run.parallel.zero) {
        (1, _) => ZeroStage::Off,
        (_, 1) => ZeroStage::One,
        _ => ZeroStage::Two,
    }
}

/// What a rank of `grid` holds, and whether `memory` bytes hold it; of what they do not hold, which settings lower it.
/// Every line begins with `#`.
///
/// # Errors
/// As [`MemoryPlan::new`].
pub fn table(run: &Config, shapes: &ModelShapes, grid: RankGrid, memory: usize) -> Result<String, TrainError> {
    let plan = MemoryPlan::new(run, shapes, grid, stage(run, grid), memory)?;
    let mut out = heading(shapes, grid) + &line("", "update", "sampling");
    for (name, update, sampling) in rows(run, shapes.dtype, &plan) {
        if update + sampling > 0 {
            out += &line(&name, &gib(update), &gib(sampling));
        }
    }
    let said = |bytes: usize| if MemoryPlan::holds(bytes, memory) { "fits" } else { "TOO MUCH" };
    let of = format!("of {} GiB, of which pools leave {:.0}% unused", gib(memory), 100.0 * MemoryPlan::UNUSED);
    out += &line("sum", &gib(plan.update()), &gib(plan.rollout()));
    out += &line(&of, said(plan.update()), said(plan.rollout()));
    let half = gib(plan.rollout_of_half());
    out += &format!("#   Where prompts and responses are half as long, sampling takes {half} GiB.\n");
    let on_host = gib(checkpoint_on_host(run, shapes, grid, &plan));
    out += &format!("#   While a checkpoint is written, it takes {on_host} GiB of the host's memory.\n");
    if MemoryPlan::holds(plan.peak(), memory) {
        return Ok(out);
    }
    let settings = lowered(run, shapes, grid, stage(run, grid), memory)?;
    Ok(out + &advice(&settings, memory, more_ranks(run, shapes, grid, memory)?))
}

/// Bytes of the host's memory for what this rank writes of a checkpoint, its share of weights and optimizer state,
/// until that is on the disk. Alone and without `trainer.save_async` one tensor at a time is there.
fn checkpoint_on_host(run: &Config, shapes: &ModelShapes, grid: RankGrid, plan: &MemoryPlan) -> usize {
    match run.trainer.save_async || grid.ranks() > 1 {
        true => shapes.counts()[0] * shapes.dtype.size() / grid.ranks() + plan.optimizer,
        false => 0,
    }
}

fn heading(shapes: &ModelShapes, grid: RankGrid) -> String {
    let [all, tower] = shapes.counts();
    let whose = match (grid.ranks(), grid.tensor) {
        (1, _) => "one device".to_string(),
        (ranks, 1) => format!("each of {ranks} ranks, a copy of the model on each"),
        (ranks, tensor) => format!("each of {ranks} ranks, {} copies of the model on {tensor} each", grid.data),
    };
    let adapters = match shapes.adapter_count() {
        0 => String::new(),
        count => format!("# {:.3e} parameters more, in adapters, which alone learn.\n", count as f64),
    };
    format!(
        "# Memory of {whose}: GiB by count, not measured (docs/memory.md).\n# {:.3e} parameters, {:.2e} of them in the \
         vision tower, in {}.\n{adapters}",
        all as f64,
        tower as f64,
        if shapes.dtype == DType::BF16 { "bf16" } else { "f32" },
    )
}

/// Names of the parts, with their bytes in an update and in sampling.
fn rows(run: &Config, dtype: DType, plan: &MemoryPlan) -> Vec<(String, usize, usize)> {
    let optim = &run.actor.optim;
    let bf16 = |bf16: bool| if bf16 { "bf16" } else { "f32" };
    let moments = bf16(optim.moments_dtype == MomentsDtype::Bf16);
    let master = if optim.master_weights && dtype != DType::F32 { " and f32 weights" } else { "" };
    let own = if plan.zero == ZeroStage::Off { "" } else { ", this rank's" };
    let reference = if run.model.lora.enable { "adapters of the reference policy" } else { "reference policy" };
    let [sums, grads] = match plan.zero {
        ZeroStage::Two => ["f32", own],
        _ => [bf16(optim.grads_dtype == GradsDtype::Bf16), ""],
    };
    let again = if plan.recompute { "inputs of layers" } else { "all of each layer" };
    let (images, stay) = plan.images;
    vec![
        ("weights".into(), plan.weights, plan.weights),
        (reference.into(), plan.reference, plan.reference),
        (format!("gradients in {sums}{grads}"), plan.gradients, 0),
        ("gradients of a layer, on their way to their ranks".into(), plan.bucket, 0),
        ("those of the layer before it, under way".into(), plan.under_way, 0),
        (format!("optimizer: {moments} moments{master}{own}"), plan.optimizer, plan.optimizer),
        (format!("kept of a pass of {} tokens: {again}", run.actor.micro_batch_tokens), plan.pass.kept, 0),
        ("the head, or a layer, at work".into(), plan.pass.passing, 0),
        (format!("keys and values of {} rows, the longest", plan.rows), 0, plan.keys_and_values),
        ("prefill, or logits of a token".into(), 0, plan.sampling),
        ("image embeddings".into(), if stay { images } else { 0 }, images),
        ("the driver, and NCCL where there are ranks".into(), plan.runtime, plan.runtime),
    ]
}

/// The next number of ranks that holds the run, if one of the next doublings does.
fn more_ranks(run: &Config, shapes: &ModelShapes, grid: RankGrid, memory: usize) -> Result<Option<usize>, TrainError> {
    for doublings in 1..=6 {
        let grid = RankGrid { data: grid.data << doublings, ..grid };
        let plan = MemoryPlan::new(run, shapes, grid, stage(run, grid), memory)?;
        if MemoryPlan::holds(plan.peak(), memory) {
            return Ok(Some(grid.ranks()));
        }
    }
    Ok(None)
}

fn advice(settings: &[crate::Lowered], memory: usize, ranks: Option<usize>) -> String {
    let mut out = String::from("# Lower by\n");
    for setting in settings {
        let plan = &setting.plan;
        let fits = if MemoryPlan::holds(plan.peak(), memory) { "fits" } else { "not enough" };
        let sums = format!("update {}, sampling {}: {fits}", gib(plan.update()), gib(plan.rollout()));
        // Several are a line each.
        let words: Vec<&str> = setting.settings.split(' ').collect();
        for word in &words[..words.len() - 1] {
            out += &format!("#   {word}\n");
        }
        out += &format!("#   {:<44} {sums}\n", words[words.len() - 1]);
    }
    match ranks {
        Some(ranks) => out + &format!("#   or by {ranks} ranks\n"),
        None => out + "#   More ranks alone do not make it fit.\n",
    }
}
