//! Random inputs that are the same in every run: Burn's own generator belongs to the process, so that tests beside each
//! other would change each other's numbers. `TEST_SEED` tries others.

use std::cell::Cell;

use burn::tensor::{Tensor, TensorData, backend::Backend};

thread_local! {
    /// Each test has a thread of its own.
    static STATE: Cell<u64> = Cell::new(std::env::var("TEST_SEED").map_or(0, |seed| seed.parse().expect("TEST_SEED is a number")));
}

/// SplitMix64.
fn uniform() -> f64 {
    let state = STATE.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
    STATE.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal values (Box-Muller).
pub(crate) fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    let normal = |_| ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32;
    let values: Vec<f32> = (0..shape.iter().product()).map(normal).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}
