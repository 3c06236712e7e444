//! Learned positions of patches: a table of `S x S` vectors, interpolated to the image's grid.

use burn::tensor::{IndexingUpdateOp, Int, Tensor, TensorData, backend::Backend};
use kernels::Kernels;
use kernels::host::int_tensor;
use kernels::params::{Gradients, cast_to, to_f32};

use crate::rope::VisionLayout;

/// Name of the table.
pub(crate) const POSITIONS: &str = "visual.pos_embed.weight";

/// Which four entries of the table lie around each patch, and their weights, which sum to 1.
#[derive(Debug, Clone)]
pub(super) struct Taps<B: Backend> {
    /// `[N]`
    index: [Tensor<B, 1, Int>; 4],
    /// `[N, 1]` in f32.
    weight: [Tensor<B, 2>; 4],
}

/// Taps and weights along one axis of `len` patches: the first and the last patch lie on the table's borders
/// (`align_corners`).
fn axis(at: usize, len: usize, side: usize) -> ([usize; 2], f32) {
    let place = (at * (side - 1)) as f32 / (len.max(2) - 1) as f32;
    let low = (place as usize).min(side - 1);
    ([low, (low + 1).min(side - 1)], place - low as f32)
}

impl<B: Backend> Taps<B> {
    pub(super) fn new(side: usize, layout: &VisionLayout, device: &B::Device) -> Self {
        let patches = layout.rows_columns.len();
        let mut index: [Vec<usize>; 4] = std::array::from_fn(|_| Vec::with_capacity(patches));
        let mut weight: [Vec<f32>; 4] = std::array::from_fn(|_| Vec::with_capacity(patches));
        for (&(row, column), &[height, width]) in layout.rows_columns.iter().zip(&layout.sizes) {
            let (rows, down) = axis(row, height, side);
            let (columns, right) = axis(column, width, side);
            for (tap, (i, j)) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().enumerate() {
                index[tap].push(rows[i] * side + columns[j]);
                let (vertical, horizontal) = ([1.0 - down, down][i], [1.0 - right, right][j]);
                weight[tap].push(vertical * horizontal);
            }
        }
        Self {
            index: index.map(|taps| int_tensor(taps, device)),
            weight: weight.map(|w| Tensor::from_data(TensorData::new(w, [patches, 1]), device)),
        }
    }

    /// Positions `[N, w]` from a table `[S^2, w]`, in f32 whatever the table's type.
    pub(super) fn interpolate(&self, table: &Tensor<B, 2>) -> Tensor<B, 2> {
        let part = |(index, weight): (&Tensor<B, 1, Int>, &Tensor<B, 2>)| {
            to_f32(table.clone().select(0, index.clone())).mul(weight.clone())
        };
        let [a, b, c, d] = std::array::from_fn(|tap| part((&self.index[tap], &self.weight[tap])));
        a.add(b).add(c).add(d)
    }

    /// `x [N, w]` with its positions added, in the type of `x`.
    pub(super) fn add(&self, x: Tensor<B, 2>, table: &Tensor<B, 2>) -> Tensor<B, 2> {
        let dtype = x.dtype();
        x.add(cast_to(self.interpolate(table), dtype))
    }

    /// Adds the table's gradient for `dx [N, w]`.
    pub(super) fn backward(&self, dx: &Tensor<B, 2>, table: &Tensor<B, 2>, grads: &mut Gradients<B>)
    where
        B: Kernels,
    {
        let dx = to_f32(dx.clone());
        let mut sum = Tensor::zeros(table.dims(), &dx.device());
        for (index, weight) in self.index.iter().zip(&self.weight) {
            sum = sum.select_assign(0, index.clone(), dx.clone().mul(weight.clone()), IndexingUpdateOp::Add);
        }
        grads.add(POSITIONS, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::axis;

    #[test]
    fn corners_lie_on_the_border() {
        // Fewer and more patches than entries, one patch, a table of one entry.
        for (len, side) in [(2, 5), (14, 4), (6, 48), (48, 48), (128, 48), (1, 4), (4, 1)] {
            assert_eq!(axis(0, len, side), ([0, 1.min(side - 1)], 0.0), "{len} {side}");
            if len > 1 {
                assert_eq!(axis(len - 1, len, side), ([side - 1, side - 1], 0.0), "{len} {side}");
            }
        }
        // 14 patches over 4 entries: patch 5 stands at 15 / 13.
        let (taps, fraction) = axis(5, 14, 4);
        assert_eq!(taps, [1, 2]);
        assert!((fraction - 2.0 / 13.0).abs() < 1e-6);
    }
}
