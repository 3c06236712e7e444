//! Specialisations for the Flex CPU backend.

use burn_flex::Flex;

use super::Kernels;

impl Kernels for Flex<f32, i32> {}
