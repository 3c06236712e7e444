//! VGPO (arXiv 2604.09349): the factors of the `vgpo` crate, with the metrics that the paper reads.

use super::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream, dependency::is_finite, stream};
use crate::loss::padding;
use ::vgpo::{FocusMetrics, Rows, VgpoConfig, factors_of, metrics::Spread};
use burn::tensor::backend::Backend;

/// Equations 5 to 12.
#[derive(Debug, Clone, Default)]
pub struct Vgpo(pub VgpoConfig);

impl<B: Backend> AdvantageShaping<B> for Vgpo {
    fn name(&self) -> &'static str {
        "vgpo"
    }

    fn streams(&self) -> Vec<Stream> {
        vec![Stream::VisualFocus { prototype: self.0.prototype }]
    }

    fn shape(&self, batch: &ShapingBatch, device: &B::Device) -> Result<Shaped, ShapingError> {
        batch.check()?;
        let rho = stream::visual_focus(batch)?;
        let looks: Vec<bool> =
            std::iter::zip(&rho, batch.has_image).map(|(row, &image)| image && is_finite(&[row])).collect();
        let broken = std::iter::zip(&looks, batch.has_image).filter(|(looks, image)| **image && !**looks).count();

        let width = padding::width(batch.lengths);
        let rows = Rows { lengths: batch.lengths, groups: batch.groups, has_image: &looks };
        let factors = factors_of::<B>(padding::pad(&rho, width, device), &rows, &self.0)?;
        let read = |tensor| padding::unpad(tensor, batch.lengths).map_err(ShapingError::Device);
        let weights = read(factors.combined())?;
        let token = read(factors.token.clone())?;
        let gate = read(factors.gate.clone())?;
        let trajectory = padding::unpad(factors.trajectory.clone().unsqueeze_dim(1), &vec![1; batch.lengths.len()])
            .map_err(ShapingError::Device)?;

        let mut advantages = batch.plain();
        for (row, weights) in advantages.iter_mut().zip(&weights) {
            for (advantage, weight) in row.iter_mut().zip(weights) {
                *advantage *= weight; // (12)
            }
        }
        let seen = |rows: &[Vec<f32>]| -> Vec<f32> {
            std::iter::zip(rows, &looks).filter(|(_, looks)| **looks).flat_map(|(row, _)| row.iter().copied()).collect()
        };
        let focus: Vec<&Vec<f32>> =
            std::iter::zip(&rho, &looks).filter_map(|(row, looks)| looks.then_some(row)).collect();
        let focus = FocusMetrics::new(&focus);
        let (token, trajectory) = (Spread::new(seen(&token)), Spread::new(seen(&trajectory)));
        let mut metrics = vec![
            ("vgpo/focus_mean", focus.focus_mean),
            ("vgpo/late_early_halves", focus.late_early_halves),
            ("vgpo/late_early_thirds", focus.late_early_thirds),
            ("vgpo/top_tokens_late", focus.top_tokens_late),
            ("vgpo/top_tokens_early", 1.0 - focus.top_tokens_late),
            ("vgpo/gate_pass_rate", Spread::new(seen(&gate)).mean),
            ("vgpo/token_factor_mean", token.mean),
            ("vgpo/token_factor_min", token.min),
            ("vgpo/token_factor_max", token.max),
            ("vgpo/trajectory_factor_mean", trajectory.mean),
            ("vgpo/trajectory_factor_min", trajectory.min),
            ("vgpo/trajectory_factor_max", trajectory.max),
        ];
        // A batch in which nothing looks (text only, one-token responses) has no figures to log.
        metrics.retain(|(_, value)| value.is_finite());
        metrics.push(("vgpo/non_finite_responses", broken as f64));
        Ok(Shaped { advantages, policy_mask: None, metrics })
    }
}
