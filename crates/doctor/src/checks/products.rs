//! Products for every kind of contraction, with the memory around their operands full of NaN.

use kernels::Kernels;
use rl::TrainError;

use crate::finding::Comparisons;
use crate::product::{MatrixProduct, ProductLayout, ProductShape, poison};
use crate::sides::Sides;

/// Contractions around the steps in which GPUs take them (32, 64): even and odd numbers of steps, and no whole ones.
const CONTRACTIONS: [usize; 12] = [32, 64, 96, 160, 992, 1056, 1, 3, 17, 33, 97, 1057];

/// The same where there are seconds.
const FEW: [usize; 4] = [32, 96, 160, 97];

/// In the three layouts, beside sums in f64.
pub(crate) fn products<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let (text, tower) = (&sides.config.text, &sides.config.vision);
    let mut contractions: Vec<usize> = if sides.long { CONTRACTIONS.to_vec() } else { FEW.to_vec() };
    // Of the model itself: those that no multiple of a step fits are the tower's.
    contractions.extend([tower.intermediate_size, tower.patch_dim(), tower.head_dim(), text.hidden_size]);
    if sides.long {
        contractions.extend([text.intermediate_size, text.query_width(), text.kv_width(), tower.hidden_size]);
    }
    contractions.sort_unstable();
    contractions.dedup();
    let shapes: &[(usize, usize)] = if sides.long { &[(64, 256), (200, 96)] } else { &[(64, 256)] };
    let memory = match (sides.is_gpu(), sides.long) {
        (false, _) => 1 << 24,
        (true, false) => 1 << 28,
        (true, true) => 1 << 30,
    };
    let dtypes = sides.dtypes();
    let names: Vec<String> = dtypes.iter().map(|dtype| format!("{dtype:?}").to_lowercase()).collect();
    let mut tally = Comparisons::new(format!(
        "x W^T, x w and dy^T x over {} contractions from {} to {} in {} beside sums in f64, around them memory full of NaN",
        contractions.len(),
        contractions[0],
        contractions[contractions.len() - 1],
        names.join(" and "),
    ));
    B::seed(&sides.device, 1);
    for dtype in dtypes {
        poison::<B>(memory, &sides.device)?;
        for (layout, &(m, n)) in
            ProductLayout::ALL.into_iter().flat_map(|layout| shapes.iter().map(move |s| (layout, s)))
        {
            for &k in &contractions {
                let product = MatrixProduct::<B>::random(layout, ProductShape { m, n, k }, dtype, &sides.device);
                let difference = product.difference(sides.check())?;
                tally.add(difference, sides.product_bound(dtype), || {
                    format!("{} of {m} x {n} over {k} in {dtype:?}", layout.name())
                });
            }
        }
    }
    Ok(tally)
}
