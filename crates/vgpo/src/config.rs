//! VGPO's settings, with the paper's defaults, and the errors of this crate.

use serde::{Deserialize, Serialize};

/// Which text of the algorithm is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// The equations as printed (2-12).
    #[default]
    Paper,
    /// What the authors' released code computes: the cosine is min-maxed over the padded batch, positions are
    /// `(t-1)/(T-1)`, the tail starts at `int(gamma T)`, nothing is compensated where `intra` is off, the trajectory
    /// score adds normalised weights, and the factors are clamped to `[0.1, 2]` (tokens) and `[0.9, 2]` (trajectories).
    /// Groups are real ones here, the focus is that of one rollout batch, and responses without an image keep a factor
    /// of 1.
    Released,
}

/// How the compensation of equation 5 grows along a response; `x` is the position, `t/T` in the paper
/// and `(t-1)/(T-1)` in the released form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// `beta x`, the paper's choice.
    #[default]
    Linear,
    /// `beta x^2`.
    Exponential,
    /// `beta` where `x >= 1/2`, else 0.
    Step,
}

/// What the visual focus of a prompt with several images is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrototypeMode {
    /// One prototype: the mean over the tokens of all images (equation 2).
    #[default]
    Mean,
    /// One prototype per image; a token's focus is its largest. Our extension, equal to `mean` for one image.
    PerImage,
}

/// How the token weights of a response become its trajectory score (equation 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterScore {
    /// The sum, as in the paper; it grows with the length of the response.
    #[default]
    Sum,
    /// The mean: the same score whatever the length. Our extension.
    Mean,
}

/// A control: VGPO with one ingredient replaced by something that knows nothing of the picture, to tell what visual
/// weights do from what any weights do. Ours, for experiments; `intra` and `inter` switch the two factors off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// VGPO itself.
    #[default]
    None,
    /// The focus of a response is dealt out to its tokens at random: the same values, at other places. Which, is a
    /// hash of [`VgpoConfig::control_seed`], the response's name and its length, and of nothing else.
    Permuted,
    /// Equation 9: the score of a response is its length in tokens.
    Length,
    /// Equations 5 and 6 run backwards in time: early tokens are raised as late ones are, first tokens most.
    Reversed,
    /// The focus is 1 at every token. All of the tail passes the gate (ties do), so that what is left of equation 5 is
    /// its ramp; scores still grow with length.
    Constant,
}

/// Settings of VGPO (arXiv 2604.09349). Defaults are the paper's.
///
/// ```
/// let config = vgpo::VgpoConfig::default();
/// assert_eq!((config.beta, config.gamma, config.kappa), (0.3, 0.5, 0.2));
/// config.validate().unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VgpoConfig {
    /// `paper` (the printed equations) or `released` (the authors' code).
    pub variant: Variant,
    /// Strength of the compensation, at least 0 (equation 5).
    pub beta: f64,
    /// Share of a response that counts as its tail, in (0, 1] (equation 6).
    pub gamma: f64,
    /// Share of the tail's tokens that pass the gate, in (0, 1] (equation 6).
    pub kappa: f64,
    /// Keeps the divisions of equations 7 and 10 defined; above 0. That of equation 3 has
    /// [`FOCUS_EPS`](crate::focus::FOCUS_EPS).
    pub eps: f64,
    /// Growth of the compensation along the response.
    pub schedule: Schedule,
    /// Weigh tokens within a response by `1 + psi` (equations 7-8).
    pub intra: bool,
    /// Weigh responses within a group by `1 + phi` (equations 9-11).
    pub inter: bool,
    /// Raise late visual tokens (equation 5); without it `w = rho`. In the released form it needs `intra`, too.
    pub compensation: bool,
    /// Compensate only the tail's most visual tokens (equation 6); without it every token is compensated (full
    /// trajectory).
    pub gate: bool,
    /// One prototype over all image tokens, or one per image.
    pub prototype: PrototypeMode,
    /// `sum` (paper) or `mean` of the token weights as the trajectory score.
    pub inter_score: InterScore,
    /// What an experiment replaces.
    pub control: Control,
    /// Another number, other permutations.
    pub control_seed: u64,
}

impl Default for VgpoConfig {
    fn default() -> Self {
        Self {
            variant: Variant::Paper,
            beta: 0.3,
            gamma: 0.5,
            kappa: 0.2,
            eps: 1e-8,
            schedule: Schedule::Linear,
            intra: true,
            inter: true,
            compensation: true,
            gate: true,
            prototype: PrototypeMode::Mean,
            inter_score: InterScore::Sum,
            control: Control::None,
            control_seed: 0,
        }
    }
}

impl VgpoConfig {
    /// Checks every number against the range in which the equations mean something.
    ///
    /// # Errors
    /// [`VgpoError::Config`] names the key, its value and what to write instead.
    pub fn validate(&self) -> Result<(), VgpoError> {
        let refuse = |key, value, reason| Err(VgpoError::Config { key, value, reason });
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return refuse(
                "beta",
                self.beta,
                "must be 0 or more: a negative compensation punishes late looks at the picture",
            );
        }
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return refuse(
                "gamma",
                self.gamma,
                "must lie in (0, 1]: it is the share of a response that is its tail; set compensation = false for none",
            );
        }
        if !(self.kappa > 0.0 && self.kappa <= 1.0) {
            return refuse(
                "kappa",
                self.kappa,
                "must lie in (0, 1]: it is the share of the tail that passes the gate; set compensation = false for none",
            );
        }
        if !(self.eps.is_finite() && self.eps > 0.0) {
            return refuse("eps", self.eps, "must be above 0: it keeps the min-max of equal weights defined");
        }
        Ok(())
    }
}

/// What can be wrong with the inputs of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VgpoError {
    /// A setting is outside its range.
    #[error("vgpo.{key} = {value}: {reason}")]
    Config {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: f64,
        /// Why it is refused and what to write instead.
        reason: &'static str,
    },
    /// One of the per-response lists does not have one entry per row.
    #[error("vgpo: {what} has {found} entries but the visual focus has {rows} rows; give one per response")]
    Rows {
        /// Which list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// Rows of the visual focus.
        rows: usize,
    },
    /// A response claims more tokens than its row holds.
    #[error("vgpo: response {row} has {length} tokens but the visual focus is {width} wide")]
    Length {
        /// Index of the response.
        row: usize,
        /// Its length in tokens.
        length: usize,
        /// Columns of the visual focus.
        width: usize,
    },
    /// An image's token range lies outside the prompt.
    #[error("vgpo: image {image} spans tokens {start}..{end} of a prompt of {tokens} tokens")]
    ImageRange {
        /// Index of the image.
        image: usize,
        /// First row.
        start: usize,
        /// One past the last row.
        end: usize,
        /// Rows of the hidden states.
        tokens: usize,
    },
    /// The device could not deliver a tensor.
    #[error("vgpo: reading the visual focus from the device failed: {0}")]
    Device(String),
}
