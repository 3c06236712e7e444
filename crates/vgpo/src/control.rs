//! What the controls replace ([`Control`]): the focus itself, or the direction of time under the compensation.

use crate::{
    Control, Responses, VgpoConfig, VgpoError,
    layout::{Layout, from_host, to_host},
};
use burn::tensor::{Tensor, backend::Backend};

/// The focus that the equations get, `[R, T] -> [R, T]`, 0 in the padding.
pub(crate) fn focus<B: Backend>(
    rho: Tensor<B, 2>,
    layout: &Layout<B>,
    rows: &Responses,
    config: &VgpoConfig,
) -> Result<Tensor<B, 2>, VgpoError> {
    match config.control {
        Control::None | Control::Length | Control::Reversed => Ok(rho),
        Control::Constant => Ok(rho.ones_like().mask_fill(layout.padding.clone(), 0.0)),
        Control::Permuted => {
            rows.check_names(layout.lengths.len())?;
            rearranged(rho, layout, |row, length| permutation(rows.names[row] ^ config.control_seed, length))
        }
    }
}

/// Each response with its last token first. `[R, T] -> [R, T]`
pub(crate) fn reversed<B: Backend>(x: Tensor<B, 2>, layout: &Layout<B>) -> Result<Tensor<B, 2>, VgpoError> {
    rearranged(x, layout, |_, length| (0..length).rev().collect())
}

/// Token `t` of row `i` becomes what token `order(i, T_i)[t]` was; 0 in the padding.
fn rearranged<B: Backend>(
    x: Tensor<B, 2>,
    layout: &Layout<B>,
    order: impl Fn(usize, usize) -> Vec<usize>,
) -> Result<Tensor<B, 2>, VgpoError> {
    let [rows, width] = layout.dims();
    let old = to_host(x)?;
    let mut new = vec![0_f32; rows * width];
    for (row, &length) in layout.lengths.iter().enumerate() {
        for (t, from) in order(row, length).into_iter().enumerate() {
            new[row * width + t] = old[row * width + from];
        }
    }
    Ok(from_host(new, [rows, width], &layout.device))
}

/// The places of `length` tokens in an order that is a hash of `seed` (Fisher and Yates over splitmix64).
fn permutation(seed: u64, length: usize) -> Vec<usize> {
    let mut state = seed ^ (length as u64).rotate_left(32);
    let mut next = move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..length).collect();
    for last in (1..length).rev() {
        let chosen = (u128::from(next()) * (last as u128 + 1)) >> 64;
        order.swap(last, chosen as usize);
    }
    order
}
