//! How fast the device copies and multiplies: a build or a driver that is slow shows before hours are spent on it.

use burn::tensor::{DType, Tensor};
use kernels::Kernels;
use rl::TrainError;

use crate::finding::Comparisons;
use crate::product::{MatrixProduct, ProductLayout, ProductShape, best_seconds};
use crate::sides::Sides;

/// Rows of a product of training.
const ROWS: usize = 4096;
/// Rows of a product while decoding.
const FEW: usize = 64;
/// Floating-point operations for each byte that is copied, which a card with tensor cores exceeds several times over
/// and one whose products do not use them never reaches.
const PER_BYTE: f64 = 20.0;

pub(crate) fn speed<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (d, wide) = (sides.config.text.hidden_size, sides.config.text.intermediate_size);
    let is_gpu = sides.is_gpu();
    let is_cuda = is_gpu && B::name(&sides.device).contains("cuda");
    // Beyond every cache, no larger than the buffers that a graphics driver gives, and on a processor over in moments.
    let bytes = if is_cuda { 1 << 29 } else { 1 << 26 };
    let rows = if is_gpu { ROWS } else { 256 };
    let source = Tensor::<B, 1>::zeros([bytes / 4], (&sides.device, DType::F32));
    let seconds = best_seconds::<B>(&sides.device, || {
        // An addition reads and writes every element once; a copy alone would be a second name for the same memory.
        let _copy = source.clone().add_scalar(1.0);
    })?;
    let bandwidth = 2.0 * bytes as f64 / seconds;
    drop(source);
    let product = |shape: ProductShape| -> Result<f64, TrainError> {
        Ok(MatrixProduct::<B>::random(ProductLayout::Affine, shape, sides.dtype, &sides.device).seconds()?)
    };
    let large = ProductShape { m: rows, n: wide, k: d };
    let flops = large.flops() / product(large)?;
    let few = ProductShape { m: FEW, n: d, k: wide };
    let read = few.bytes(ProductLayout::Affine, sides.dtype) / product(few)?;
    let mut tally =
        Comparisons::new(format!("{rows} x {wide} over {d} and {FEW} x {d} over {wide} in {:?}", sides.dtype));
    let slow = is_cuda && flops < PER_BYTE * bandwidth;
    let advice = match slow {
        true => "; products are far slower than this memory allows: is the program built with --release?",
        false => "",
    };
    tally.measure(
        format!(
            "copies {:.0} GB/s, products {:.2} TFLOP/s, of {FEW} rows {:.0} GB/s{advice}",
            bandwidth / 1e9,
            flops / 1e12,
            read / 1e9
        ),
        slow,
    );
    Ok(tally)
}
