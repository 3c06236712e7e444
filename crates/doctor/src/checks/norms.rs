//! RMSNorm and LayerNorm with their gradients.

use burn::tensor::DType;
use kernels::Kernels;
use kernels::ops::plain;
use rl::TrainError;

use crate::finding::Comparisons;
use crate::sides::{Sides, flat};

/// Rows of the inputs: no multiple of anything.
const ROWS: usize = 37;
const EPS: f64 = 1e-6;

/// Widths that the model norms, and those of the tower whose rows devices pad.
fn widths<B: Kernels>(sides: &Sides<B>) -> Vec<usize> {
    let (text, tower) = (&sides.config.text, &sides.config.vision);
    let mut widths =
        vec![text.hidden_size, tower.hidden_size, tower.intermediate_size, tower.patch_dim(), tower.head_dim()];
    widths.dedup();
    if sides.long { widths } else { widths[..2.min(widths.len())].to_vec() }
}

pub(crate) fn rms_norm<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let widths = widths(sides);
    let mut tally =
        Comparisons::new(format!("values and gradients of {ROWS} rows of {widths:?} beside plain operations"));
    for (d, dtype) in widths.into_iter().flat_map(|d| sides.dtypes().into_iter().map(move |dtype| (d, dtype))) {
        let (x, px) = sides.random([ROWS, d], dtype);
        let (dy, pdy) = sides.random([ROWS, d], dtype);
        let (w, pw) = sides.random([d], dtype);
        let (around, plain_around) = sides.random([ROWS, d], dtype);
        let what = format!("rms_norm of {d} in {dtype:?}");
        let device = || vec![flat(B::rms_norm(x.clone(), w.clone(), EPS))];
        let cpu = vec![flat(plain::rms_norm(px.clone(), pw.clone(), EPS))];
        sides.compare(&mut tally, sides.bound(dtype), &what, device, cpu)?;
        let (parts, plain_parts) = sides.random([3, ROWS, d], DType::F32);
        let device = || {
            let (sum, normed) = B::add_rms_norm(x.clone(), around.clone(), w.clone(), EPS);
            let (dx, rows) = B::rms_norm_backward(x.clone(), w.clone(), EPS, dy.clone(), Some(around.clone()));
            let of_parts = B::add_parts_rms_norm(x.clone(), parts.clone(), w.clone(), EPS);
            vec![flat(sum), flat(normed), flat(dx), flat(rows.sum_dim(0)), flat(of_parts.0), flat(of_parts.1)]
        };
        let (sum, normed) = plain::add_rms_norm(px.clone(), plain_around.clone(), pw.clone(), EPS);
        let of_parts = plain::add_rms_norm(px.clone(), plain::whole(plain_parts, px.dtype()), pw.clone(), EPS);
        let (dx, rows) = plain::rms_norm_backward(px, pw, EPS, pdy, Some(plain_around));
        let cpu = vec![flat(sum), flat(normed), flat(dx), flat(rows.sum_dim(0)), flat(of_parts.0), flat(of_parts.1)];
        sides.compare(&mut tally, sides.bound(dtype), &format!("{what}, gradients"), device, cpu)?;
    }
    Ok(tally)
}

pub(crate) fn layer_norm<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let widths = widths(sides);
    let mut tally =
        Comparisons::new(format!("values and gradients of {ROWS} rows of {widths:?} beside plain operations"));
    for (d, dtype) in widths.into_iter().flat_map(|d| sides.dtypes().into_iter().map(move |dtype| (d, dtype))) {
        let (x, px) = sides.random([ROWS, d], dtype);
        let (dy, pdy) = sides.random([ROWS, d], dtype);
        let ((w, pw), (b, pb)) = (sides.random([d], dtype), sides.random([d], dtype));
        let what = format!("layer_norm of {d} in {dtype:?}");
        let device = || vec![flat(<B as Kernels>::layer_norm(x.clone(), w.clone(), b.clone(), EPS))];
        let cpu = vec![flat(plain::layer_norm(px.clone(), pw.clone(), pb, EPS))];
        sides.compare(&mut tally, sides.bound(dtype), &what, device, cpu)?;
        let device = || {
            let (dx, dw, db) = B::layer_norm_backward(x.clone(), w.clone(), EPS, dy.clone());
            vec![flat(dx), dw, db]
        };
        let (dx, dw, db) = plain::layer_norm_backward(px, pw, EPS, pdy);
        sides.compare(&mut tally, sides.bound(dtype), &format!("{what}, gradients"), device, vec![flat(dx), dw, db])?;
    }
    Ok(tally)
}
