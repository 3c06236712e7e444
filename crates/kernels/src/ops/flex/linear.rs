//! `y = x W^T + b` with `W [out, in]`.
//!
//! A matrix product packs its operands first, which pays when each packed value is used often. While decoding, `x` has
//! a few rows only and packing would move every weight twice; there the weights are read once, as they lie in memory:
//! `x` is turned so that a register holds one element of each row, and weights meet it one by one. A register is a
//! result, with nothing to add up across it, and each result is summed in the order of `k` whatever the number of rows:
//! a row's result does not depend on the rows that come with it.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::host::{F, Host, Matrix, PARALLEL, SharedOutput, for_rows, matmul, product, tensor, zeros};

/// Rows of `x` up to which reading the weights as they lie beats a packed product (measured, docs/performance.md).
const FEW: usize = 96;
/// The same where the processor has no instructions for it, and dot products do the work.
const FEW_DOTS: usize = 48;

/// `tile[r][c] = w[r] . x[c]` over `k` values for `R` rows of `W` and `V` registers of rows of `x`, which lies turned:
/// `x[i][c]`.
///
/// # Safety
/// The pointers of `w` are good for `k` reads, `x` for `k V lanes`, `tile` for `R V lanes` writes; the processor has
/// the instructions of the variant.
type Turned<const R: usize> = unsafe fn(w: [*const f32; R], x: *const f32, k: usize, tile: *mut f32);

/// The products of single weights with registers of rows.
macro_rules! turned {
    ($name:ident, $features:literal, $lanes:literal, $zero:path, $one:path, $load:path, $fma:path, $store:path) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const V: usize, const R: usize>(w: [*const f32; R], x: *const f32, k: usize, tile: *mut f32) {
            let mut acc = [[$zero(); V]; R];
            for i in 0..k {
                let mut rows = [$zero(); V];
                for c in 0..V {
                    // SAFETY: the caller's promise about `x`.
                    rows[c] = unsafe { $load(x.add((i * V + c) * $lanes)) };
                }
                for r in 0..R {
                    // SAFETY: `i < k`.
                    let weight = $one(unsafe { *w[r].add(i) });
                    for c in 0..V {
                        acc[r][c] = $fma(weight, rows[c], acc[r][c]);
                    }
                }
            }
            for r in 0..R {
                for c in 0..V {
                    // SAFETY: the caller's promise about `tile`.
                    unsafe { $store(tile.add((r * V + c) * $lanes), acc[r][c]) };
                }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;
turned!(
    turned512,
    "avx512f,avx2,fma",
    16,
    arch::_mm512_setzero_ps,
    arch::_mm512_set1_ps,
    arch::_mm512_loadu_ps,
    arch::_mm512_fmadd_ps,
    arch::_mm512_storeu_ps
);
turned!(
    turned256,
    "avx2,fma",
    8,
    arch::_mm256_setzero_ps,
    arch::_mm256_set1_ps,
    arch::_mm256_loadu_ps,
    arch::_mm256_fmadd_ps,
    arch::_mm256_storeu_ps
);

turned!(
    turned128,
    "avx2,fma",
    4,
    arch::_mm_setzero_ps,
    arch::_mm_set1_ps,
    arch::_mm_loadu_ps,
    arch::_mm_fmadd_ps,
    arch::_mm_storeu_ps
);

/// The widest registers of the processor, in rows; 0 where there are none to turn rows into.
fn widest() -> usize {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("fma") {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return 16;
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return 8;
        }
    }
    0
}

/// Rows of `x` that are turned together.
struct TurnedRows {
    /// `[k, width]`, zeros where there is no row.
    values: Vec<f32>,
    first: usize,
    rows: usize,
    /// Rows in a register.
    lanes: usize,
    /// Registers, 1 to 3, times `lanes`.
    width: usize,
}

/// `m` rows of `x` in groups of up to three registers, no wider than they need to be.
fn turn(x: &[f32], m: usize, k: usize, widest: usize) -> Vec<TurnedRows> {
    let lanes = m.next_power_of_two().clamp(4, widest);
    let registers = m.div_ceil(lanes);
    let groups = registers.div_ceil(3);
    let start = |g: usize| (registers * g / groups * lanes).min(m);
    let group = |g: usize| {
        let (first, rows) = (start(g), start(g + 1) - start(g));
        let width = rows.next_multiple_of(lanes);
        let mut values = zeros(k * width);
        for (c, row) in x[first * k..][..rows * k].chunks_exact(k).enumerate() {
            for (to, v) in values[c..].iter_mut().step_by(width).zip(row) {
                *to = *v;
            }
        }
        TurnedRows { values, first, rows, lanes, width }
    };
    (0..groups).map(group).collect()
}

/// Operands of one product; `y [m, n]` is written by several tasks.
struct Product<'a> {
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    y: SharedOutput,
    n: usize,
    k: usize,
}

impl Product<'_> {
    /// Columns `from..to` of `y` by turned rows.
    fn turned_columns(&self, groups: &[TurnedRows], from: usize, to: usize) {
        #[cfg(target_arch = "x86_64")]
        for group in groups {
            match (group.lanes, group.width / group.lanes) {
                (16, 1) => self.turned_block::<12>(group, turned512::<1, 12>, from, to),
                (16, 2) => self.turned_block::<12>(group, turned512::<2, 12>, from, to),
                (16, _) => self.turned_block::<8>(group, turned512::<3, 8>, from, to),
                // Sixteen registers in all where there is nothing wider.
                (8, 1) => self.turned_block::<12>(group, turned256::<1, 12>, from, to),
                (8, 2) => self.turned_block::<6>(group, turned256::<2, 6>, from, to),
                (8, _) => self.turned_block::<4>(group, turned256::<3, 4>, from, to),
                (_, _) => self.turned_block::<12>(group, turned128::<1, 12>, from, to),
            }
        }
    }

    fn turned_block<const R: usize>(&self, group: &TurnedRows, kernel: Turned<R>, from: usize, to: usize) {
        let (k, n, width) = (self.k, self.n, group.width);
        assert_eq!(group.values.len(), k * width);
        let mut tile = [0f32; 12 * 48];
        assert!(R * width <= tile.len());
        for first in (from..to).step_by(R) {
            // The last rows of W are read again where fewer are left.
            let w = std::array::from_fn(|r| self.w[(first + r).min(to - 1) * k..][..k].as_ptr());
            // SAFETY: rows of `w` were sliced to `k` values, the other sizes were just compared, and `widest` asked the
            // processor.
            unsafe { kernel(w, group.values.as_ptr(), k, tile.as_mut_ptr()) };
            let columns = R.min(to - first);
            for c in 0..group.rows {
                // SAFETY: a column belongs to one task.
                let y = unsafe { self.y.slice((group.first + c) * n + first, columns) };
                for (r, y) in y.iter_mut().enumerate() {
                    *y = tile[r * width + c] + self.bias.map_or(0.0, |b| b[first + r]);
                }
            }
        }
    }

    /// Columns `from..to` of `y` by dot products, for other processors.
    fn dot_columns(&self, from: usize, to: usize) {
        for column in from..to {
            let w = &self.w[column * self.k..][..self.k];
            let bias = self.bias.map_or(0.0, |b| b[column]);
            for (row, x) in self.x.chunks_exact(self.k).enumerate() {
                // SAFETY: a column belongs to one task.
                unsafe { self.y.slice(row * self.n + column, 1)[0] = super::simd::dot(w, x) + bias };
            }
        }
    }
}

/// `x [m, k]`, `w [n, k]`, `bias [n]` to `[m, n]`.
pub(super) fn affine(x: Tensor<F, 2>, w: &Tensor<F, 2>, bias: Option<&Tensor<F, 1>>) -> Tensor<F, 2> {
    let ([m, k], n) = (x.dims(), w.dims()[0]);
    let (x, w, bias) = (Host::new(&x), Host::new(w), bias.map(Host::new));
    let (x, w, bias) = (x.values(), w.values(), bias.as_ref().map(Host::values));
    if k == 0 || m == 0 || n == 0 {
        let mut y = zeros(m * n);
        if let Some(bias) = bias {
            y.chunks_exact_mut(n.max(1)).for_each(|row| row.copy_from_slice(bias));
        }
        return tensor(y, [m, n]);
    }
    let widest = widest();
    if m <= if widest > 0 { FEW } else { FEW_DOTS } {
        let mut y = zeros(m * n);
        let turned = if widest > 0 { turn(x, m, k, widest) } else { Vec::new() };
        let few = Product { x, w, bias, y: SharedOutput::new(&mut y), n, k };
        let run = |from: usize, to: usize| match turned.is_empty() {
            true => few.dot_columns(from, to),
            false => few.turned_columns(&turned, from, to),
        };
        // A task is worth its start, and a multiple of the widest block.
        let columns = (PARALLEL * 32 / (k * m)).next_multiple_of(24);
        if n <= columns {
            run(0, n);
        } else {
            (0..n.div_ceil(columns)).into_par_iter().for_each(|i| run(i * columns, (i * columns + columns).min(n)));
        }
        return tensor(y, [m, n]);
    }
    let (x, weights) = (Matrix::rows(x, k), Matrix::rows(w, k).transposed());
    let Some(bias) = bias else { return tensor(product(x, weights, m, n, k), [m, n]) };
    let mut y = zeros(m * n);
    for_rows(&mut y, n, |_, rows| rows.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias)));
    matmul(&mut y, n, true, x, weights, m, n, k, true);
    tensor(y, [m, n])
}

/// `a b` of matrices in any layout, `[m, k]` and `[k, n]`; none where one has an axis that is turned round.
pub(super) fn multiply(a: FlexTensor, b: FlexTensor) -> Option<Tensor<F, 2>> {
    let [m, k] = a.layout().shape().dims();
    let [inner, n] = b.layout().shape().dims();
    assert_eq!(k, inner, "a product of {m} x {k} and {inner} x {n}");
    Some(tensor(product(Matrix::of(&a)?, Matrix::of(&b)?, m, n, k), [m, n]))
}
