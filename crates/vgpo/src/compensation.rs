//! Compensation (equations 5 and 6): a token late in the response that still looks at the picture is raised.

use crate::{
    Schedule, Variant, VgpoConfig, VgpoError,
    layout::{Layout, column, to_host},
};
use burn::tensor::{Tensor, backend::Backend};

/// Slack for products such as `0.2 * 15`, which binary floats put a hair below or above the whole number that is meant.
/// The released code has none, so neither has its form.
const SLACK: f64 = 1e-9;

/// The whole part of `share * tokens`: of the number that is meant in the paper's form, of the float product in the
/// released.
fn whole(share: f64, tokens: usize, config: &VgpoConfig) -> usize {
    let product = share * tokens as f64;
    match config.variant {
        Variant::Paper => (product + SLACK).floor() as usize,
        Variant::Released => product as usize,
    }
}

/// First tail token of a response of `length` tokens, counted from 0; `length` when the tail is empty.
///
/// Equation 6: tokens `t > (1 - gamma) T`, 1-based, hence the 0-based tail starts at `floor((1 - gamma) T)`.
/// The released code starts it at `int(gamma T)`; the two agree at `gamma = 0.5`.
pub fn tail_start(length: usize, config: &VgpoConfig) -> usize {
    let share = match config.variant {
        Variant::Paper => 1.0 - config.gamma,
        Variant::Released => config.gamma,
    };
    whole(share, length, config).min(length)
}

/// Tokens of a tail of `tail` tokens that pass the gate when none tie: `max(1, floor(kappa |tail|))`.
pub fn gate_count(tail: usize, config: &VgpoConfig) -> usize {
    whole(config.kappa, tail, config).clamp(1, tail.max(1))
}

/// The gate's threshold `Q` for one response: the `k`-th largest focus of the tail; infinite when the tail is empty.
///
/// - `rho`: the focus of the response's tokens, without padding.
pub fn gate_threshold(rho: &[f32], config: &VgpoConfig) -> f32 {
    let mut tail = rho[tail_start(rho.len(), config)..].to_vec();
    if tail.is_empty() {
        return f32::INFINITY;
    }
    let k = gate_count(tail.len(), config);
    *tail.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}

/// Equation 6: `G = 1` where `t > (1 - gamma) T` and `rho_t >= Q`. `[R, T] -> [R, T]` of 0 and 1, 0 in the padding.
///
/// Without the gate every token of a response is 1 (full-trajectory compensation).
///
/// `rho` crosses to the host once: the `k`-th largest of each tail is a linear-time selection there, whereas sorting on
/// a GPU backend would move the same data and sort it.
pub(crate) fn gate<B: Backend>(
    rho: &Tensor<B, 2>,
    layout: &Layout<B>,
    config: &VgpoConfig,
) -> Result<Tensor<B, 2>, VgpoError> {
    let [rows, width] = layout.dims();
    if !config.gate {
        return Ok(rho.ones_like().mask_fill(layout.padding.clone(), 0.0));
    }
    let host = to_host(rho.clone())?;
    let thresholds =
        layout.lengths.iter().enumerate().map(|(row, &length)| gate_threshold(&host[row * width..][..length], config));
    let q = column(thresholds, &layout.device).expand([rows, width]);
    let starts = layout.lengths.iter().map(|&length| tail_start(length, config) as f32);
    let starts = column(starts, &layout.device).expand([rows, width]);
    let early = layout.positions.clone().expand([rows, width]).lower_equal(starts);
    let blind = rho.clone().lower(q); // ties pass
    Ok(rho.ones_like().mask_fill(early.bool_or(blind).bool_or(layout.padding.clone()), 0.0)) // (6)
}

/// The schedule of equation 5 at every token, `[R, T]`: `beta x`, `beta x^2` or `beta [x >= 1/2]`.
///
/// The position is `x = t/T` in the paper and `x = (t-1)/(T-1)` in the released code (0 for a response of one token).
fn ramp<B: Backend>(layout: &Layout<B>, config: &VgpoConfig) -> Tensor<B, 2> {
    let dims = layout.dims();
    let t = layout.positions.clone().expand(dims);
    let (above, below) = match config.variant {
        Variant::Paper => (t, layout.counts.clone()),
        Variant::Released => (t.sub_scalar(1.0), layout.counts.clone().sub_scalar(1.0).clamp_min(1.0)),
    };
    let shape = match config.schedule {
        Schedule::Linear => above / below,
        Schedule::Exponential => (above / below).square(),
        Schedule::Step => {
            // x >= 1/2 in whole numbers, which no device rounds: the middle of an odd response is late.
            let early = above.mul_scalar(2.0).lower(below.expand(dims));
            layout.positions.ones_like().expand(dims).mask_fill(early, 0.0)
        }
    };
    shape.mul_scalar(config.beta)
}

/// Equation 5: `w_t = rho_t [1 + G beta t/T]`. All `[R, T]`; the padding of `rho` must hold 0 and stays 0.
pub(crate) fn compensate<B: Backend>(
    rho: Tensor<B, 2>,
    gate: Tensor<B, 2>,
    layout: &Layout<B>,
    config: &VgpoConfig,
) -> Tensor<B, 2> {
    rho * (gate * ramp(layout, config)).add_scalar(1.0) // (5)
}
