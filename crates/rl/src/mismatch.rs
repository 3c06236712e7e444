//! The alarm on the gap between sampler and trainer.
//!
//! Both compute the log-probs of the same tokens under the same weights, one token at a time from a cache and all
//! tokens in one pass. What is left between them is rounding: below 1e-5 nats in f32, and some hundredths in bf16. A
//! gap beyond that is a fault of one of the two, which no reward curve shows in time. NeMo RL watches the mean of
//! `exp |gap|` in the same way (docs.nvidia.com/nemo/rl, "adding new models"); a limit of half a nat is a factor of
//! 1.6 on a probability, far above what any number format explains.

use crate::config::Config;
use crate::error::TrainError;

/// The metric: mean absolute difference over tokens, in nats.
pub(crate) const METRIC: &str = "mismatch/log_prob_abs_mean";

/// Ends a run whose gap is above `actor.mismatch_limit`, or no number.
///
/// # Errors
/// [`TrainError::Untrusted`] with the gap and what to do.
pub(crate) fn check(gap: f64, config: &Config) -> Result<(), TrainError> {
    let limit = config.actor.mismatch_limit;
    // A gap that is not a number is not below the limit.
    if limit == 0.0 || gap <= limit {
        return Ok(());
    }
    Err(TrainError::Untrusted(format!(
        "sampler and trainer disagree: their log-probs of the same tokens are {gap:.3} nats apart on average \
         ({METRIC}), above actor.mismatch_limit = {limit}; nothing was learned from this batch; run `doctor` on this \
         device, or compare with --backend flex"
    )))
}

/// What is said where the gap is above `actor.mismatch_warning`.
pub(crate) fn warning(gap: f64, config: &Config) -> Option<String> {
    let warning = config.actor.mismatch_warning;
    (warning > 0.0 && gap > warning).then(|| {
        format!(
            "the log-probs of sampler and trainer are {gap:.3} nats apart on average ({METRIC}), above \
             actor.mismatch_warning = {warning}: more than rounding explains where weights are well-behaved; run `doctor`, \
             or weigh by actor.rollout_correction"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_beyond_the_limit_ends_the_run() {
        let mut config = Config::default();
        for fine in [0.0, 0.01, 0.5] {
            assert!(check(fine, &config).is_ok(), "{fine}");
        }
        for gap in [0.51, f64::INFINITY, f64::NAN] {
            let error = check(gap, &config).unwrap_err();
            assert_eq!(error.exit_code(), 1);
            assert!(error.to_string().contains("actor.mismatch_limit = 0.5"), "{error}");
        }
        config.actor.mismatch_limit = 0.0;
        assert!(check(f64::NAN, &config).is_ok());
    }

    #[test]
    fn a_gap_beyond_rounding_is_said() {
        let mut config = Config::default();
        assert_eq!(warning(0.04, &config), None);
        assert!(warning(0.06, &config).is_some_and(|text| text.contains("0.060 nats")));
        config.actor.mismatch_warning = 0.0;
        assert_eq!(warning(9.0, &config), None);
    }
}
