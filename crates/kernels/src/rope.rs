//! Rotary tables: cosines and sines of positions, made on the host once per batch.

use burn::tensor::{Tensor, TensorData, backend::Backend};

/// Cosines and sines `[N, 1, hd]` in f32, both halves filled, ready for rotate-half.
#[derive(Debug, Clone)]
pub struct Rotary<B: Backend> {
    /// Cosines.
    pub cos: Tensor<B, 3>,
    /// Sines.
    pub sin: Tensor<B, 3>,
}

impl<B: Backend> Rotary<B> {
    /// The table of `angles [N, half]` in row-major order, one for each pair of a head of size `2 half`.
    pub fn from_angles(angles: &[f32], half: usize, device: &B::Device) -> Self {
        let n = angles.len() / half;
        let table = |f: fn(f64) -> f64| {
            let mut out = Vec::with_capacity(n * half * 2);
            for row in angles.chunks_exact(half) {
                let start = out.len();
                out.extend(row.iter().map(|&a| f(a as f64) as f32));
                out.extend_from_within(start..);
            }
            Tensor::from_data(TensorData::new(out, [n, 1, half * 2]), device)
        };
        Self { cos: table(f64::cos), sin: table(f64::sin) }
    }

    /// Rows `range` of the table.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self { cos: self.cos.clone().slice([range.clone()]), sin: self.sin.clone().slice([range]) }
    }
}

/// `theta^(-j / half)` for `j` in `0..half`, in f32 as transformers computes it.
pub fn inverse_frequencies(half: usize, theta: f64) -> Vec<f32> {
    (0..half).map(|j| 1.0 / (theta as f32).powf((2 * j) as f32 / (2 * half) as f32)).collect()
}

/// Which axis turns which pair of a head: rotary pairs by the temporal, height and width position; they sum to `hd / 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MRope {
    /// One run of pairs for each axis, in that order.
    Sections([usize; 3]),
    /// The axes take turns: pair `j` turns by the height if `j % 3 = 1` and `j < 3 s_1`, by the width if `j % 3 = 2` and
    /// `j < 3 s_2`, else by time.
    Interleaved([usize; 3]),
}

impl MRope {
    /// Pairs of each axis.
    pub fn sections(self) -> [usize; 3] {
        match self {
            Self::Sections(s) | Self::Interleaved(s) => s,
        }
    }

    /// The axis (0 time, 1 height, 2 width) that turns pair `j`.
    pub fn axis(self, j: usize) -> usize {
        match self {
            Self::Sections([s0, _, _]) if j < s0 => 0,
            Self::Sections([s0, s1, _]) if j < s0 + s1 => 1,
            Self::Sections(_) => 2,
            Self::Interleaved(s) if j < 3 * s[j % 3] => j % 3,
            Self::Interleaved(_) => 0,
        }
    }
}

/// How the heads of a decoder turn with the three positions of a token (M-RoPE).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Size of one head, `hd`.
    pub head_dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Which axis turns which pair.
    pub mrope: MRope,
}

impl Rope {
    /// The table of tokens at positions `[3][N]` (temporal, height, width).
    pub fn table<B: Backend>(&self, positions: &[Vec<i64>; 3], device: &B::Device) -> Rotary<B> {
        let half = self.head_dim / 2;
        let inv_freq = inverse_frequencies(half, self.theta);
        let axes: Vec<usize> = (0..half).map(|j| self.mrope.axis(j)).collect();
        let n = positions[0].len();
        let mut angles = Vec::with_capacity(n * half);
        let [t, h, w] = positions;
        for ((t, h), w) in t.iter().zip(h).zip(w) {
            let place = [*t as f32, *h as f32, *w as f32];
            angles.extend(axes.iter().zip(&inv_freq).map(|(&axis, f)| place[axis] * f));
        }
        Rotary::from_angles(&angles, half, device)
    }
}
