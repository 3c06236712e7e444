//! VGPO (arXiv 2604.09349): the factors of the `vgpo` crate, with the metrics that the paper reads.

use super::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream, dependency::is_finite, stream};
use crate::config::checks::Checks;
use crate::config::field::choices;
use crate::config::section::{AnySettings, Settings, section};
use crate::config::{Algorithm, Config};
use crate::loss::padding;
use crate::random_keys;
use crate::registry::{self, Declared};
use ::vgpo::{
    Control, FocusMetrics, HostFactors, InterScore, PrototypeMode, Responses, Schedule, Variant, VgpoConfig,
    factors_of,
    metrics::{Spread, length_correlation},
};
use burn::tensor::backend::Backend;

choices!(Variant { Paper = "paper", Released = "released", });
choices!(Schedule { Linear = "linear", Exponential = "exponential", Step = "step", });
choices!(PrototypeMode { Mean = "mean", PerImage = "per_image", });
choices!(InterScore { Sum = "sum", Mean = "mean", });
choices!(Control {
    None = "none",
    Permuted = "permuted",
    Length = "length",
    Reversed = "reversed",
    Constant = "constant",
});

section! {
    /// VGPO (arXiv 2604.09349), read when `algorithm.shaping = "vgpo"`. Its visual focus is a by-product of the
    /// rollout.
    pub struct VgpoSettings {
        /// "paper" computes the printed equations, "released" what the authors' code computes.
        variant: Variant = Variant::Paper,
        /// Equation (5): strength of the compensation of late tokens.
        beta: f64 = 0.3 => ..=1e6,
        /// Equation (6): share of the response, from its end, that may be compensated.
        gamma: f64 = 0.5 => ..=1.0,
        /// Equation (6): share of those tokens that pass the gate, the most visual first.
        kappa: f64 = 0.2 => ..=1.0,
        /// Growth of the compensation along the response.
        schedule: Schedule = Schedule::Linear,
        /// Equations (7)-(8): weigh the tokens within a response.
        intra: bool = true,
        /// Equations (9)-(11): weigh the responses within a group.
        inter: bool = true,
        /// Equation (5): compensate late tokens at all.
        compensation: bool = true,
        /// Equation (6): compensate only the tokens that pass the gate; otherwise all of them.
        gate: bool = true,
        /// Equation (2): the prototype of a prompt with several images.
        prototype: PrototypeMode = PrototypeMode::Mean,
        /// Equation (9): the visual score of a response.
        inter_score: InterScore = InterScore::Sum,
        /// What an experiment replaces: "permuted" deals the focus of a response out to its tokens at random, "length"
        /// scores a response by its length in place of equation (9), "reversed" compensates early tokens as (5) does
        /// late ones, "constant" gives all tokens the same focus. `intra` and `inter` switch the factors off.
        control: Control = Control::None,
        /// Another number, other permutations with "permuted".
        control_seed: u64 = 0 => 0..=i64::MAX as u64,
    }
}

impl Settings for VgpoSettings {
    fn validate(&self, checks: &mut Checks) {
        checks.not_negative(self.beta, "beta");
        checks.positive_share(self.gamma, "gamma");
        checks.positive_share(self.kappa, "kappa");
    }
}

impl VgpoSettings {
    /// As the `vgpo` crate, which knows no configuration files, takes them.
    pub fn equations(&self) -> VgpoConfig {
        VgpoConfig {
            variant: self.variant,
            beta: self.beta,
            gamma: self.gamma,
            kappa: self.kappa,
            schedule: self.schedule,
            intra: self.intra,
            inter: self.inter,
            compensation: self.compensation,
            gate: self.gate,
            prototype: self.prototype,
            inter_score: self.inter_score,
            control: self.control,
            control_seed: self.control_seed,
            ..VgpoConfig::default()
        }
    }
}

/// Equations 5 to 12.
#[derive(Debug, Clone, Default)]
pub struct Vgpo(pub VgpoConfig);

impl Declared for Vgpo {
    const NAME: &'static str = "vgpo";

    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<VgpoSettings>()
    }

    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<VgpoSettings>().equations())
    }

    fn check(config: &Config, checks: &mut Checks) {
        let vgpo = config.algorithm.section::<VgpoSettings>();
        checks.need(
            config.rollout.n != 1 || !vgpo.inter,
            &["algorithm.vgpo.inter", "rollout.n"],
            "compares the responses of a group, so it needs rollout.n of 2 or more; set inter = false for n = 1",
        );
        checks.need(
            vgpo.intra || vgpo.inter,
            &["algorithm.vgpo.intra", "algorithm.vgpo.inter", "algorithm.shaping"],
            "with both off VGPO changes nothing; write shaping = \"none\"",
        );
        checks.need(
            vgpo.control != Control::Length || vgpo.inter,
            &["algorithm.vgpo.control", "algorithm.vgpo.inter"],
            "\"length\" replaces the score between responses, which inter = false switches off",
        );
        checks.need(
            vgpo.control != Control::Reversed || vgpo.compensation,
            &["algorithm.vgpo.control", "algorithm.vgpo.compensation"],
            "\"reversed\" turns the compensation round, which compensation = false switches off",
        );
    }
}

impl<B: Backend> AdvantageShaping<B> for Vgpo {
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
        let seed = random_keys::shaping_seed(batch.training.step);
        let names: Vec<u64> = batch.names.iter().map(|name| name ^ seed).collect();
        let rows = Responses { lengths: batch.lengths, groups: batch.groups, has_image: &looks, names: &names };
        let factors = factors_of::<B>(padding::pad(&rho, width, device), &rows, &self.0)?;
        let factors = factors.to_host(batch.lengths)?;
        let mut advantages = batch.plain();
        for (row, weights) in advantages.iter_mut().zip(&factors.combined) {
            for (advantage, weight) in row.iter_mut().zip(weights) {
                *advantage *= weight;
            }
        }
        let mut metrics = measure(&factors, &rho, &rows);
        // A batch in which nothing looks (text only, one-token responses) has no figures to log.
        metrics.retain(|(_, value)| value.is_finite());
        metrics.push(("vgpo/non_finite_responses", broken as f64));
        Ok(Shaped { advantages, policy_mask: None, metrics })
    }
}

/// What the paper's figures read, over the responses that look: NaN where there is none.
fn measure(factors: &HostFactors, rho: &[Vec<f32>], rows: &Responses) -> Vec<(&'static str, f64)> {
    let looking: Vec<usize> = (0..rows.lengths.len()).filter(|&row| rows.has_image[row]).collect();
    let per_token = |all: &[Vec<f32>]| Spread::new(looking.iter().flat_map(|&row| all[row].iter().copied()));
    let per_response = |all: &[f32]| -> Vec<f32> { looking.iter().map(|&row| all[row]).collect() };
    let pick = |values: &[usize]| -> Vec<usize> { looking.iter().map(|&row| values[row]).collect() };
    let focus = FocusMetrics::new(&looking.iter().map(|&row| &rho[row]).collect::<Vec<_>>());
    let token = per_token(&factors.token);
    let trajectory = Spread::new(per_response(&factors.trajectory));
    let by_length = length_correlation(&per_response(&factors.phi), &pick(rows.lengths), &pick(rows.groups));
    vec![
        ("vgpo/focus_mean", focus.focus_mean),
        ("vgpo/late_early_halves", focus.late_early_halves),
        ("vgpo/late_early_thirds", focus.late_early_thirds),
        ("vgpo/late_early_cosine_halves", focus.late_early_cosine_halves),
        ("vgpo/late_early_cosine_thirds", focus.late_early_cosine_thirds),
        ("vgpo/top_tokens_late", focus.top_tokens_late),
        ("vgpo/top_tokens_early", 1.0 - focus.top_tokens_late),
        ("vgpo/gate_pass_rate", per_token(&factors.gate).mean),
        ("vgpo/token_factor_mean", token.mean),
        ("vgpo/token_factor_min", token.min),
        ("vgpo/token_factor_max", token.max),
        ("vgpo/trajectory_factor_mean", trajectory.mean),
        ("vgpo/trajectory_factor_min", trajectory.min),
        ("vgpo/trajectory_factor_max", trajectory.max),
        ("vgpo/phi_length_correlation", by_length.unwrap_or(f64::NAN)),
    ]
}
