//! Sums and maxima over the units of a cube, by halves through shared memory: right for planes of any size, and in the same
//! order on every run.

use cubecl::prelude::*;

/// Below any finite score or logit that occurs, and itself finite: WGSL has no infinity to write down.
pub(super) const LOWEST: f32 = -3.0e38;

/// The sum of `value` over all `units` (a power of two) of the cube, in every unit. `shared` has `units` elements.
#[cube]
pub(super) fn sum(value: f32, shared: &mut SharedMemory<f32>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let steps = comptime!(units.ilog2() as usize);
    #[unroll]
    for step in 0..steps {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            shared[unit] = shared[unit] + shared[unit + half];
        }
        sync_cube();
    }
    let total = shared[0];
    // The next sum writes to the same memory.
    sync_cube();
    total
}

/// The largest `value` of all `units` (a power of two) of the cube, in every unit. `shared` has `units` elements.
#[cube]
pub(super) fn max(value: f32, shared: &mut SharedMemory<f32>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let steps = comptime!(units.ilog2() as usize);
    #[unroll]
    for step in 0..steps {
        let half = comptime!(units >> (step + 1));
        if unit < half {
            let (a, b) = (shared[unit], shared[unit + half]);
            shared[unit] = select(a > b, a, b);
        }
        sync_cube();
    }
    let most = shared[0];
    sync_cube();
    most
}
