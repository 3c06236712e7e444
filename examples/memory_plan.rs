//! What a run asks of each device, for several numbers of devices: the question before a cluster is asked for.
//!
//! ```sh
//! cargo run --example memory_plan
//! ```
//!
//! `train --dry-run --ranks N` prints the same with every line; here the plan is a value to count with.

use burn::tensor::DType;
use model_qwen2vl::QwenVlConfig;
use plan::{MemoryPlan, ModelShapes, RankGrid, ZeroStage};
use rl::config::resolve;

/// GiB of the device that it is for.
const DEVICE: usize = 80;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The settings of a published run; a file of yours goes into the first list.
    let config = resolve(&[], &["algorithm.name=vgpo".to_string()])?;
    println!("{:<5} {:>7} {:>10} {:>10}  of {DEVICE} GiB", "model", "devices", "update", "sampling");
    for preset in ["3b", "7b", "32b"] {
        let architecture = QwenVlConfig::preset(preset).ok_or("no such size")?;
        let shapes = ModelShapes::new(&architecture, DType::BF16);
        for data in [1, 8, 32] {
            let ranks = RankGrid { data, tensor: 1 };
            let zero = if data == 1 { ZeroStage::Off } else { ZeroStage::Two };
            let plan = MemoryPlan::new(&config, &shapes, ranks, zero, DEVICE << 30)?;
            let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
            let fits = if MemoryPlan::holds(plan.peak(), DEVICE << 30) { "fits" } else { "too much" };
            println!("{preset:<5} {data:>7} {:>10.1} {:>10.1}  {fits}", gib(plan.update()), gib(plan.rollout()));
        }
    }
    Ok(())
}
