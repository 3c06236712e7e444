//! No shaping: every token gets its response's advantage (GRPO, DAPO).

use super::{AdvantageShaping, Shaped, ShapingBatch, ShapingError};
use crate::config::Algorithm;
use crate::registry::Declared;
use burn::tensor::backend::Backend;

/// Repeats the advantage of each response on its tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoShaping;

impl Declared for NoShaping {
    const NAME: &'static str = "none";

    fn new(_: &Algorithm) -> Self {
        Self
    }
}

impl<B: Backend> AdvantageShaping<B> for NoShaping {
    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        batch.check()?;
        Ok(Shaped { advantages: batch.plain(), ..Shaped::default() })
    }
}
