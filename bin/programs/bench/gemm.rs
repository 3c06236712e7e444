//! `bench gemm`: the products of a model, right or wrong, and how fast.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::common::{Failure, OnBackend, choice, print, within};
use burn::tensor::DType;
use clap::Args;
use doctor::product::{MatrixProduct, ProductLayout, ProductShape, poison};
use launch::ModelFolder;
use model_qwen2vl::{Kernels, QwenVlConfig};
use rl::TrainError;
use rl::config::{Backend, Dtype};
use serde_json::json;

use super::options;

/// What `bench gemm` is given.
#[derive(Args, Clone)]
pub(super) struct GemmArgs {
    /// Model folder in the Hugging Face layout, the run folder of `train` or a checkpoint of it.
    #[arg(long, value_name = "DIR", required_unless_present = "preset", conflicts_with = "preset")]
    model: Option<PathBuf>,
    /// A built-in size.
    #[arg(long, value_name = "SIZE", value_parser = options::presets())]
    preset: Option<String>,
    /// Rows: of a decoded token, and tokens of a pass, which weight gradients sum over.
    #[arg(long, value_delimiter = ',', default_value = "64,4096", value_parser = within::<usize>(8..=1 << 20))]
    rows: Vec<usize>,
    /// Multiply no more than this many times for each line: for a stand-in of a driver, under which time means nothing.
    #[arg(long)]
    once: bool,
    /// One JSON object a product instead of a table.
    #[arg(long)]
    json: bool,
    /// Device library, among what was compiled in.
    #[arg(long, value_name = "B", default_value = "auto", value_parser = choice::<Backend>())]
    pub backend: Backend,
    /// Number format of weights and activations.
    #[arg(long, value_name = "D", default_value = "auto", value_parser = choice::<Dtype>())]
    pub dtype: Dtype,
}

/// What a product adds to a contraction that the steps of 64 fit, so that they do not.
const HALF_STEP: usize = 32;

/// Largest share of its spread that a right entry is off by; a wrong one is off by about 1.
const BOUND: f64 = 2e-2;

impl GemmArgs {
    fn architecture(&self) -> Result<QwenVlConfig, Failure> {
        match (&self.model, &self.preset) {
            (Some(dir), _) => Ok(ModelFolder::open(dir)?.config()?.clone()),
            (None, name) => options::preset(name.as_deref().unwrap_or_default()),
        }
    }

    /// The decoder's products in the three layouts, each with a contraction that 64 divides and one that leaves 32.
    fn shapes(&self, config: &QwenVlConfig) -> Vec<(ProductLayout, ProductShape)> {
        let t = &config.text;
        let (d, wide) = (t.hidden_size, t.intermediate_size);
        let mut matrices = vec![[t.query_width(), d], [t.kv_width(), d], [wide, d], [d, wide]]; // [out, in]
        matrices.dedup();
        let mut shapes = Vec::new();
        for (&rows, [out, inp]) in self.rows.iter().flat_map(|rows| matrices.iter().map(move |m| (rows, *m))) {
            for more in [0, HALF_STEP] {
                shapes.push((ProductLayout::Affine, ProductShape { m: rows, n: out, k: inp + more }));
                shapes.push((ProductLayout::Plain, ProductShape { m: rows, n: inp, k: out + more }));
                shapes.push((ProductLayout::WeightGradient, ProductShape { m: out, n: inp, k: rows + more }));
            }
        }
        shapes
    }
}

/// The table on whichever backend was chosen.
pub(super) struct GemmJob(pub GemmArgs);

impl OnBackend for GemmJob {
    type Output = Result<ExitCode, Failure>;
    fn run<B: Kernels>(self, device: B::Device, dtype: DType) -> Self::Output {
        let args = self.0;
        let shapes = args.shapes(&args.architecture()?);
        if !args.json {
            print(
                "| product | m | n | k | k % 64 | | difference | ms | TFLOP/s | GB/s |\n|---|---|---|---|---|---|---|---|---|---|\n",
            )?;
        }
        poison::<B>(1 << 28, &device).map_err(TrainError::from)?;
        let mut wrong = 0;
        for (layout, shape) in shapes {
            let product = MatrixProduct::<B>::random(layout, shape, dtype, &device);
            let difference = product.difference("").map_err(TrainError::from)?;
            let seconds = if args.once { f64::NAN } else { product.seconds().map_err(TrainError::from)? };
            let right = difference <= BOUND;
            wrong += usize::from(!right);
            print(&line(&args, layout, shape, dtype, [difference, seconds], right))?;
        }
        Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn line(
    args: &GemmArgs,
    layout: ProductLayout,
    shape: ProductShape,
    dtype: DType,
    [difference, seconds]: [f64; 2],
    right: bool,
) -> String {
    let ProductShape { m, n, k } = shape;
    let (flops, bytes) = (shape.flops() / seconds, shape.bytes(layout, dtype) / seconds);
    if args.json {
        let row = json!({
            "product": layout.name(), "m": m, "n": n, "k": k, "dtype": format!("{dtype:?}"), "right": right,
            "difference": difference, "seconds": seconds, "flops_per_s": flops, "bytes_per_s": bytes,
        });
        return format!("{row}\n");
    }
    let word = if right { "right" } else { "WRONG" };
    format!(
        "| {} | {m} | {n} | {k} | {} | {word} | {difference:.1e} | {:.3} | {:.2} | {:.0} |\n",
        layout.name(),
        k % 64,
        1e3 * seconds,
        flops / 1e12,
        bytes / 1e9
    )
}
