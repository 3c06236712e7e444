//! VGPO's signal (equations 2 to 4): narrow products, which GPU libraries have got wrong.

use kernels::Kernels;
use rl::TrainError;
use vgpo::{PrototypeMode, RowPrototypes};

use crate::finding::Comparisons;
use crate::sides::Sides;

/// Tokens whose focus is looked at.
const TOKENS: usize = 77;

pub(crate) fn visual_focus<B: Kernels>(sides: &Sides<B>) -> Result<Comparisons, TrainError> {
    let d = sides.config.text.hidden_size;
    let mut tally = Comparisons::new(format!(
        "{TOKENS} tokens of {d} before 1 and 2 images, packed and row by row, beside the CPU"
    ));
    let wrong = |e: vgpo::VgpoError| TrainError::Input(e.to_string());
    for dtype in sides.dtypes() {
        let ((prompt, plain_prompt), (hidden, plain_hidden)) =
            (sides.random([40, d], dtype), sides.random([TOKENS, d], dtype));
        for (images, mode) in [
            (std::slice::from_ref(&(3..20)), PrototypeMode::Mean),
            (&[3..20, 25..38], PrototypeMode::Mean),
            (&[3..20, 25..38], PrototypeMode::PerImage),
        ] {
            let (Some(near), Some(plain)) = (
                vgpo::prototype(prompt.clone(), images, mode).map_err(wrong)?,
                vgpo::prototype(plain_prompt.clone(), images, mode).map_err(wrong)?,
            ) else {
                return Err(TrainError::Input("a prompt with images has no prototype".into()));
            };
            let device = || vec![B::visual_focus(hidden.clone(), &near, vgpo::FOCUS_EPS)];
            let cpu = vec![vgpo::visual_focus(plain_hidden.clone(), &plain, vgpo::FOCUS_EPS)];
            let what = format!("{} images, {mode:?}, in {dtype:?}", images.len());
            // Both compute in f32, from the same numbers.
            sides.compare(&mut tally, sides.product_bound(burn::tensor::DType::F32), &what, device, cpu)?;
            let device = || {
                let rows = RowPrototypes::new(&[Some(&near); TOKENS]);
                rows.map(|rows| B::visual_focus_of_rows(hidden.clone(), &rows, vgpo::FOCUS_EPS)).into_iter().collect()
            };
            let cpu = vec![vgpo::visual_focus(plain_hidden.clone(), &plain, vgpo::FOCUS_EPS)];
            let what = format!("{what}, row by row");
            sides.compare(&mut tally, sides.product_bound(burn::tensor::DType::F32), &what, device, cpu)?;
        }
    }
    Ok(tally)
}
