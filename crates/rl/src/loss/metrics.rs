//! Metrics that add up over micro-batches: totals (already divided by the step's denominators) and sums over tokens,
//! which [`MetricSums`] divides by the number of tokens at the end.

use super::ppo::Clips;
use std::borrow::Cow;

use burn::tensor::{Bool, DType, Tensor, backend::Backend};
use comm::{CommError, Ranks};
use std::collections::BTreeMap;

/// The number of tokens that the sums were taken over.
pub(crate) const TOKENS: &str = "tokens";

/// The number of those that belong to a prompt with a picture.
pub(super) const PICTURED: &str = "pictured";
/// Metrics of such tokens only.
const OF_PICTURED: [&str; 2] = ["actor/kl_prcp", "actor/masked_entropy"];

/// Metrics that are shares of the step's loss rather than sums over tokens.
const TOTALS: [&str; 6] =
    [TOKENS, "actor/loss", "actor/pg_loss", "actor/kl_loss", "actor/entropy_loss", "actor/papo_loss"];

/// Collects the metrics of one micro-batch, outside the graph.
pub(super) struct Recorder<B: Backend> {
    mask: Tensor<B, 2>,
    metrics: Vec<(&'static str, Tensor<B, 1>)>,
}

impl<B: Backend> Recorder<B> {
    pub(super) fn new(mask: &Tensor<B, 2>) -> Self {
        let mask = mask.clone().detach();
        Self { metrics: vec![(TOKENS, mask.clone().sum())], mask }
    }

    /// The sum of `x` over tokens.
    pub(crate) fn token_sum(&mut self, name: &'static str, x: Tensor<B, 2>) {
        self.metrics.push((name, (x.detach() * self.mask.clone()).sum()));
    }

    /// A number that is already a share of the step's.
    pub(super) fn total(&mut self, name: &'static str, x: Tensor<B, 1>) {
        self.metrics.push((name, x.detach()));
    }

    /// Ratio and k1 divergence between the new and the old policy.
    pub(super) fn ratio(&mut self, log_ratio: &Tensor<B, 2>) {
        let log_ratio = log_ratio.clone().detach();
        self.token_sum("actor/ppo_kl", log_ratio.clone().neg());
        self.token_sum("actor/ratio_mean", log_ratio.exp());
    }

    /// Clipped tokens.
    pub(crate) fn clips(&mut self, clips: Option<Clips<B>>) {
        let Some(Clips { low, high, dual }) = clips else {
            return;
        };
        self.token_count("actor/clip_fraction_low", low);
        self.token_count("actor/clip_fraction_high", high);
        if let Some(dual) = dual {
            self.token_count("actor/clip_fraction_dual", dual);
        }
    }

    fn token_count(&mut self, name: &'static str, at: Tensor<B, 2, Bool>) {
        let count = self.mask.clone().mask_fill(at.bool_not(), 0.0).sum();
        self.metrics.push((name, count));
    }

    pub(super) fn finish(self) -> Vec<(&'static str, Tensor<B, 1>)> {
        self.metrics
    }
}

/// Host-side sums of the metrics of an optimizer step.
///
/// ```
/// use rl::loss::MetricSums;
/// let mut sums = MetricSums::default();
/// sums.add_values(&[("tokens", 10.0), ("actor/ppo_kl", 1.0), ("actor/pg_loss", 0.25)]);
/// sums.add_values(&[("tokens", 30.0), ("actor/ppo_kl", 3.0), ("actor/pg_loss", 0.5)]);
/// assert_eq!(sums.means()["actor/ppo_kl"], 0.1); // 4 over 40 tokens
/// assert_eq!(sums.means()["actor/pg_loss"], 0.75);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricSums {
    sums: BTreeMap<Cow<'static, str>, f64>,
}

impl MetricSums {
    /// Adds the metrics of one micro-batch; one read from the device for all of them.
    ///
    /// # Errors
    /// The device's own, when it cannot be read.
    pub fn add<B: Backend>(&mut self, metrics: &[(&'static str, Tensor<B, 1>)]) -> Result<(), String> {
        if metrics.is_empty() {
            return Ok(());
        }
        let values = metrics.iter().map(|(_, value)| value.clone().cast(DType::F32)).collect();
        let values: Vec<f32> = Tensor::cat(values, 0)
            .try_into_data()
            .map_err(|error| format!("{error:?}"))?
            .into_vec()
            .map_err(|error| format!("{error:?}"))?;
        for ((name, _), value) in metrics.iter().zip(values) {
            *self.sums.entry(Cow::Borrowed(*name)).or_default() += f64::from(value);
        }
        Ok(())
    }

    /// Adds numbers that are on the host already.
    pub fn add_values(&mut self, values: &[(&'static str, f64)]) {
        for (name, value) in values {
            *self.sums.entry(Cow::Borrowed(*name)).or_default() += value;
        }
    }

    /// The sums of all ranks together: a rank that had no micro-batch has none.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn over(self, ranks: &Ranks) -> Result<Self, CommError> {
        if ranks.is_solo() {
            return Ok(self);
        }
        let mut all = Self::default();
        ranks.gather("metric sums", &self.sums)?.into_iter().for_each(|sums| all.add_sums(Self { sums }));
        Ok(all)
    }

    /// Adds those of other micro-batches.
    pub fn add_sums(&mut self, other: Self) {
        for (name, value) in other.sums {
            *self.sums.entry(name).or_default() += value;
        }
    }

    /// Means over tokens, and totals as they are. Nothing before the first token, and nothing of pictures without one.
    pub fn means(&self) -> BTreeMap<Cow<'static, str>, f64> {
        let tokens = self.sums.get(TOKENS).copied().unwrap_or(0.0);
        if tokens == 0.0 {
            return BTreeMap::new();
        }
        let pictured = self.sums.get(PICTURED).copied().unwrap_or(0.0);
        let mean = |(name, sum): (&Cow<'static, str>, &f64)| match &**name {
            TOKENS | PICTURED => None,
            of if TOTALS.contains(&of) => Some((name.clone(), *sum)),
            of if OF_PICTURED.contains(&of) => (pictured > 0.0).then(|| (name.clone(), sum / pictured)),
            _ => Some((name.clone(), sum / tokens)),
        };
        self.sums.iter().filter_map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use run::metrics::registry::{Reduction, metrics};

    use super::*;

    /// How a metric of the loss becomes one number is declared as it is computed here.
    #[test]
    fn reductions_are_declared_as_they_are_computed() {
        let declared =
            |reduction| metrics().filter(move |metric| metric.reduction == reduction).map(|metric| metric.name);
        let totals: std::collections::BTreeSet<&str> = TOTALS.into_iter().filter(|name| *name != TOKENS).collect();
        assert_eq!(declared(Reduction::StepMean).collect::<std::collections::BTreeSet<_>>(), totals);
        let of_tokens: Vec<&'static str> = declared(Reduction::StepTokenMean).collect();
        assert!(OF_PICTURED.iter().all(|name| of_tokens.contains(name)) && of_tokens.len() > OF_PICTURED.len());
        let mut sums = MetricSums::default();
        sums.add_values(&[(TOKENS, 4.0), (PICTURED, 2.0)]);
        sums.add_values(&of_tokens.iter().map(|name| (*name, 8.0)).collect::<Vec<_>>());
        let means = sums.means();
        for name in of_tokens {
            assert_eq!(means[name], if OF_PICTURED.contains(&name) { 4.0 } else { 2.0 }, "{name}");
        }
    }
}
