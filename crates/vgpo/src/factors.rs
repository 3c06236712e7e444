//! The factors of equation 12, `A_{i,t} = A_i (1 + psi_{i,t}) (1 + phi_i)`, and the switches between them.

use crate::{
    Control, Responses, Variant, VgpoConfig, VgpoError, compensation, control,
    focus::cosine_of,
    inter, intra,
    layout::{Groups, Layout, extremes, to_host},
};
use burn::tensor::{DType, Tensor, backend::Backend};

/// What multiplies the advantages, with every intermediate that a figure or a test wants to see.
///
/// All f32. Cells without a token, and responses whose prompt has no image, hold factors of 1 and zeros elsewhere.
#[derive(Debug, Clone)]
pub struct Factors<B: Backend> {
    /// `[R, T]` `1 + psi`, 1 when `intra` is off.
    pub token: Tensor<B, 2>,
    /// `[R]` `1 + phi`, 1 when `inter` is off.
    pub trajectory: Tensor<B, 1>,
    /// `[R, T]` the visual focus that was used: equation 4, or the cosine min-maxed over the batch (`released`).
    pub rho: Tensor<B, 2>,
    /// `[R, T]` the gate `G` of equation 6, 0 or 1; 0 where nothing is compensated.
    pub gate: Tensor<B, 2>,
    /// `[R, T]` the compensated weights of equation 5.
    pub w: Tensor<B, 2>,
    /// `[R, T]` equation 8, computed even when `intra` is off.
    pub psi: Tensor<B, 2>,
    /// `[R]` equation 9.
    pub score: Tensor<B, 1>,
    /// `[R]` equation 11, computed even when `inter` is off.
    pub phi: Tensor<B, 1>,
}

impl<B: Backend> Factors<B> {
    /// The product `(1 + psi)(1 + phi)`, `[R, T]`.
    pub fn combined(&self) -> Tensor<B, 2> {
        self.token.clone() * self.trajectory.clone().unsqueeze_dim(1)
    }

    /// Equation 12: one advantage per response `[R]` to one per token `[R, T]`.
    pub fn shape(&self, advantages: Tensor<B, 1>) -> Tensor<B, 2> {
        self.combined() * advantages.cast(DType::F32).unsqueeze_dim(1) // (12)
    }
}

/// What is read of [`Factors`] after a batch, without padding: one list per response, or one number.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFactors {
    /// The products `(1 + psi)(1 + phi)` of equation 12, `[R][T_i]`.
    pub combined: Vec<Vec<f32>>,
    /// `1 + psi`, `[R][T_i]`.
    pub token: Vec<Vec<f32>>,
    /// The gate, `[R][T_i]`.
    pub gate: Vec<Vec<f32>>,
    /// `1 + phi`, `[R]`.
    pub trajectory: Vec<f32>,
    /// `phi`, `[R]`.
    pub phi: Vec<f32>,
}

impl<B: Backend> Factors<B> {
    /// Reads what shaping and its metrics want in one transfer from the device. `lengths` are those that the factors
    /// were made of.
    ///
    /// # Errors
    /// [`VgpoError::Rows`] or [`VgpoError::Length`] when `lengths` do not fit, [`VgpoError::Device`] when the device
    /// fails.
    pub fn to_host(&self, lengths: &[usize]) -> Result<HostFactors, VgpoError> {
        let [rows, width] = self.token.dims();
        Responses { lengths, groups: lengths, has_image: &vec![true; lengths.len()], names: &[] }.check(rows, width)?;
        if rows * width == 0 {
            let none = vec![vec![]; rows];
            return Ok(HostFactors {
                combined: none.clone(),
                token: none.clone(),
                gate: none,
                trajectory: vec![1.0; rows],
                phi: vec![0.0; rows],
            });
        }
        let column = |values: &Tensor<B, 1>| values.clone().unsqueeze_dim(1);
        let cells = vec![self.combined(), self.token.clone(), self.gate.clone()];
        let all = cells.into_iter().chain([column(&self.trajectory), column(&self.phi)]).collect();
        let values = to_host(Tensor::<B, 2>::cat(all, 1))?; // [R, 3 T + 2]
        let row = |i: usize| &values[i * (3 * width + 2)..][..3 * width + 2];
        let tokens = |part: usize| -> Vec<Vec<f32>> {
            lengths.iter().enumerate().map(|(i, &length)| row(i)[part * width..][..length].to_vec()).collect()
        };
        let numbers = |part: usize| -> Vec<f32> { (0..rows).map(|i| row(i)[3 * width + part]).collect() };
        Ok(HostFactors {
            combined: tokens(0),
            token: tokens(1),
            gate: tokens(2),
            trajectory: numbers(0),
            phi: numbers(1),
        })
    }
}

/// [`factors_of`] for a batch in which every prompt has an image.
///
/// # Errors
/// As [`factors_of`].
pub fn factors<B: Backend>(
    rho: Tensor<B, 2>,
    lengths: &[usize],
    groups: &[usize],
    config: &VgpoConfig,
) -> Result<Factors<B>, VgpoError> {
    let has_image = vec![true; lengths.len()];
    let rows = Responses { lengths, groups, has_image: &has_image, names: &[] };
    factors_of(rho, &rows, config)
}

/// Equations 5 to 12 for a batch of responses.
///
/// - `rho`: `[R, T]` visual focus of equation 4; what the padding holds does not matter.
/// - `rows`: length, group and image of each response, and its name for [`Control::Permuted`].
///
/// # Errors
/// [`VgpoError::Config`] for settings out of range, [`VgpoError::Rows`] or [`VgpoError::Length`] when `rows` does not
/// fit `rho`, [`VgpoError::Device`] when the device fails.
pub fn factors_of<B: Backend>(
    rho: Tensor<B, 2>,
    rows: &Responses,
    config: &VgpoConfig,
) -> Result<Factors<B>, VgpoError> {
    config.validate()?;
    let [number, width] = rho.dims();
    rows.check(number, width)?;
    if number == 0 || width == 0 {
        return Ok(nothing(rho));
    }
    let device = rho.device();
    let layout = Layout::new(rows.visual_lengths(), width, &device);
    let groups = Groups::new(rows.groups, &layout.lengths, &device);

    // Whatever the padding holds, a NaN included, ends here.
    let rho = rho.detach().cast(DType::F32).mask_fill(layout.padding.clone(), 0.0);
    let rho = match config.variant {
        Variant::Paper => rho,
        Variant::Released => over_batch(rho, &layout, config),
    };
    let rho = control::focus(rho, &layout, rows, config)?;
    // The released code compensates as a part of the weights within a trajectory: without them nothing is raised.
    let compensated = match config.variant {
        Variant::Paper => config.compensation,
        Variant::Released => config.compensation && config.intra,
    };
    let backwards = config.control == Control::Reversed;
    let in_time = |x| if backwards { control::reversed(x, &layout) } else { Ok(x) };
    let seen = in_time(rho.clone())?;
    let gate = match compensated {
        true => compensation::gate(&seen, &layout, config)?,
        false => seen.zeros_like(),
    };
    let w = in_time(compensation::compensate(seen, gate.clone(), &layout, config))?;
    let gate = in_time(gate)?;
    let normalised = intra::normalised(w.clone(), &layout, config);
    let psi = intra::psi(normalised.clone(), &layout);
    let weights = match config.variant {
        Variant::Paper => w.clone(),
        Variant::Released => normalised,
    };
    let score = match config.control {
        Control::Length => inter::lengths(&layout),
        _ => inter::score(weights, &layout, config),
    };
    let phi = inter::phi(score.clone(), &groups, config);

    let token = match config.intra {
        true => psi.clone().add_scalar(1.0),
        false => psi.ones_like(),
    };
    let trajectory = match config.inter {
        true => phi.clone().add_scalar(1.0),
        false => phi.ones_like(),
    };
    let (token, trajectory) = match config.variant {
        Variant::Paper => (token, trajectory),
        Variant::Released => (token.clamp(0.1, 2.0), trajectory.clamp(0.9, 2.0)),
    };
    Ok(Factors { token, trajectory, rho, gate, w, psi, score, phi })
}

/// The factors of a batch without responses, or without tokens: backends do not broadcast over empty dimensions.
fn nothing<B: Backend>(rho: Tensor<B, 2>) -> Factors<B> {
    let [rows, _] = rho.dims();
    let cells = rho.detach().cast(DType::F32);
    let zeros = Tensor::zeros([rows], (&cells.device(), DType::F32));
    Factors {
        token: cells.clone(),
        trajectory: zeros.ones_like(),
        rho: cells.clone(),
        gate: cells.clone(),
        w: cells.clone(),
        psi: cells,
        score: zeros.clone(),
        phi: zeros,
    }
}

/// The released code's focus: the cosine `S` min-maxed over its padded batch, `[R, T] -> [R, T]`, 0 in the padding.
///
/// `(S - lo) / (hi - lo + eps)`. In that code the padding and the rows of prompts without an image are cells of cosine
/// 0 like any other: as soon as there is one, because responses differ in length or a prompt has no image,
/// `lo = min(0, min S)` and `hi = max(0, max S)`.
fn over_batch<B: Backend>(rho: Tensor<B, 2>, layout: &Layout<B>, config: &VgpoConfig) -> Tensor<B, 2> {
    let [rows, width] = layout.dims();
    let flat = cosine_of(rho).reshape([1, rows * width]);
    let padding = layout.padding.clone().reshape([1, rows * width]);
    let (low, high) = extremes(flat.clone(), padding.clone());
    let (low, high) = match layout.is_ragged() {
        true => (low.clamp_max(0.0), high.clamp_min(0.0)),
        false => (low, high),
    };
    let range = (high - low.clone()).add_scalar(config.eps);
    ((flat - low) / range).mask_fill(padding, 0.0).reshape([rows, width])
}
