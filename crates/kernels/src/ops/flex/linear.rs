//! `y = x W^T + b` with `W [out, in]`.
//!
//! A matrix product packs its operands first, which pays when each packed value is used often. While decoding, `x` has
//! a few rows only and packing would move every weight twice; there the weights are read once, as they lie in memory.
//! Where the rows of `x` fill wide registers, `x` is turned so that a register holds one element of each row, and
//! weights meet it one by one: a register is a result, with nothing to add up across it. Fewer rows meet the rows of `W`
//! in dot products.

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::host::{F, Host, Matrix, PARALLEL, SharedOutput, matmul, tensor};

/// Rows of `x` up to which reading the weights as they lie beats a packed product (measured, docs/performance.md).
const FEW: usize = 96;
/// Most rows of `x` that the dot products take, where there are no registers to turn them into.
const FEW_DOTS: usize = 48;
/// Rows of `W` that are read together.
const OUT: usize = 4;
/// Rows of `x` that are read together at most.
const IN: usize = 6;

/// `[out][row] = w[out] . x[row]` over `k` values, for `C` rows of `x`.
///
/// # Safety
/// Every pointer is good for `k` reads; the processor has the instructions of the variant.
type Block<const C: usize> = unsafe fn(w: [*const f32; OUT], x: [*const f32; C], k: usize) -> [[f32; C]; OUT];

/// The dot products in wide registers: what does not fill one is added at the end.
macro_rules! block {
    ($name:ident, $features:literal, $lanes:literal, $zero:path, $load:path, $fma:path, $store:path) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const C: usize>(w: [*const f32; OUT], x: [*const f32; C], k: usize) -> [[f32; C]; OUT] {
            let whole = k / $lanes * $lanes;
            let mut acc = [[$zero(); C]; OUT];
            let mut i = 0;
            while i < whole {
                let mut wide = [$zero(); OUT];
                for r in 0..OUT {
                    // SAFETY: `i + lanes <= k`, the caller's promise.
                    wide[r] = unsafe { $load(w[r].add(i)) };
                }
                for c in 0..C {
                    // SAFETY: as above.
                    let v = unsafe { $load(x[c].add(i)) };
                    for r in 0..OUT {
                        acc[r][c] = $fma(wide[r], v, acc[r][c]);
                    }
                }
                i += $lanes;
            }
            let mut out = [[0f32; C]; OUT];
            for r in 0..OUT {
                for c in 0..C {
                    let mut lanes = [0f32; $lanes];
                    // SAFETY: `lanes` is as wide as the register.
                    unsafe { $store(lanes.as_mut_ptr(), acc[r][c]) };
                    // In halves: the compiler keeps this in registers, and the order is fixed.
                    let mut n = $lanes / 2;
                    while n > 0 {
                        for j in 0..n {
                            lanes[j] += lanes[j + n];
                        }
                        n /= 2;
                    }
                    out[r][c] = lanes[0];
                    for i in whole..k {
                        // SAFETY: `i < k`.
                        out[r][c] += unsafe { *w[r].add(i) * *x[c].add(i) };
                    }
                }
            }
            out
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;
block!(
    avx512,
    "avx512f,avx2,fma",
    16,
    arch::_mm512_setzero_ps,
    arch::_mm512_loadu_ps,
    arch::_mm512_fmadd_ps,
    arch::_mm512_storeu_ps
);
block!(
    avx2,
    "avx2,fma",
    8,
    arch::_mm256_setzero_ps,
    arch::_mm256_loadu_ps,
    arch::_mm256_fmadd_ps,
    arch::_mm256_storeu_ps
);

/// For other processors.
unsafe fn base<const C: usize>(w: [*const f32; OUT], x: [*const f32; C], k: usize) -> [[f32; C]; OUT] {
    // SAFETY: the caller's.
    let row = |p: *const f32| unsafe { std::slice::from_raw_parts(p, k) };
    w.map(|w| x.map(|x| super::simd::dot(row(w), row(x))))
}

fn choose<const C: usize>() -> Block<C> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx512f") {
            return avx512::<C>;
        }
        if std::arch::is_x86_feature_detected!("fma") && std::arch::is_x86_feature_detected!("avx2") {
            return avx2::<C>;
        }
    }
    base::<C>
}

/// `tile[r][c] = w[r] . x[c]` over `k` values for `R` rows of `W` and `V` registers of rows of `x`, which lies turned:
/// `x[i][c]`.
///
/// # Safety
/// The pointers of `w` are good for `k` reads, `x` for `k V lanes`, `tile` for `R V lanes` writes; the processor has the
/// instructions of the variant.
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

/// How wide the registers are that rows can be turned into; 0 on other processors.
fn lanes() -> usize {
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

/// Rows of `x` that are turned together: `V` registers of `lanes`.
struct TurnedRows {
    /// `[k, V lanes]`, zeros where there is no row.
    values: Vec<f32>,
    first: usize,
    rows: usize,
}

/// `m` rows of `x` in groups of up to three registers; none where that would leave a third of the registers empty.
fn turn(x: &[f32], m: usize, k: usize, lanes: usize) -> Option<Vec<TurnedRows>> {
    if lanes == 0 || m * 3 < m.next_multiple_of(lanes) * 2 {
        return None;
    }
    let groups = m.div_ceil(3 * lanes);
    let registers = m.div_ceil(lanes);
    let bounds: Vec<usize> = (0..=groups).map(|g| (registers * g / groups * lanes).min(m)).collect();
    let group = |pair: &[usize]| {
        let (first, rows) = (pair[0], pair[1] - pair[0]);
        let width = rows.next_multiple_of(lanes);
        let mut values = vec![0f32; k * width];
        for (c, row) in x[first * k..][..rows * k].chunks_exact(k).enumerate() {
            for (to, v) in values[c..].iter_mut().step_by(width).zip(row) {
                *to = *v;
            }
        }
        TurnedRows { values, first, rows }
    };
    Some(bounds.windows(2).map(group).collect())
}

/// Operands of one product; `y [m, n]` is written by several tasks.
struct Product<'a> {
    x: &'a [f32],
    w: &'a [f32],
    bias: Option<&'a [f32]>,
    y: SharedOutput,
    m: usize,
    n: usize,
    k: usize,
}

impl Product<'_> {
    /// Columns `from..to` of `y` by turned rows.
    fn turned_columns(&self, groups: &[TurnedRows], lanes: usize, from: usize, to: usize) {
        #[cfg(target_arch = "x86_64")]
        for group in groups {
            match (lanes, group.rows.div_ceil(lanes)) {
                (16, 1) => self.turned_block::<12>(group, 16, turned512::<1, 12>, from, to),
                (16, 2) => self.turned_block::<12>(group, 32, turned512::<2, 12>, from, to),
                (16, _) => self.turned_block::<8>(group, 48, turned512::<3, 8>, from, to),
                // Half as many registers.
                (_, 1) => self.turned_block::<8>(group, 8, turned256::<1, 8>, from, to),
                (_, 2) => self.turned_block::<5>(group, 16, turned256::<2, 5>, from, to),
                (_, _) => self.turned_block::<4>(group, 24, turned256::<3, 4>, from, to),
            }
        }
    }

    fn turned_block<const R: usize>(
        &self,
        group: &TurnedRows,
        width: usize,
        kernel: Turned<R>,
        from: usize,
        to: usize,
    ) {
        let (k, n) = (self.k, self.n);
        assert_eq!(group.values.len(), k * width);
        let mut tile = [0f32; 12 * 48];
        assert!(R * width <= tile.len());
        for first in (from..to).step_by(R) {
            // The last rows of W are read again where fewer are left.
            let w = std::array::from_fn(|r| self.w[(first + r).min(to - 1) * k..][..k].as_ptr());
            // SAFETY: rows of `w` were sliced to `k` values, the other sizes were just compared, and `lanes` asked the
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

    /// Columns `from..to` of `y` by dot products.
    fn columns(&self, from: usize, to: usize) {
        // As even as possible: 16 rows are 6 + 5 + 5, not 6 + 6 + 4.
        let blocks = self.m.div_ceil(IN);
        let mut row = 0;
        for b in 0..blocks {
            let next = self.m * (b + 1) / blocks;
            match next - row {
                1 => self.block::<1>(row, from, to),
                2 => self.block::<2>(row, from, to),
                3 => self.block::<3>(row, from, to),
                4 => self.block::<4>(row, from, to),
                5 => self.block::<5>(row, from, to),
                _ => self.block::<6>(row, from, to),
            }
            row = next;
        }
    }

    fn block<const C: usize>(&self, row: usize, from: usize, to: usize) {
        let kernel = choose::<C>();
        let (k, n) = (self.k, self.n);
        let x = std::array::from_fn(|c| self.x[(row + c) * k..][..k].as_ptr());
        for first in (from..to).step_by(OUT) {
            // The last rows of W are read again where fewer are left.
            let w = std::array::from_fn(|r| self.w[(first + r).min(to - 1) * k..][..k].as_ptr());
            // SAFETY: all rows were sliced to `k` values, and `choose` asked the processor.
            let out = unsafe { kernel(w, x, k) };
            for (r, out) in out.iter().enumerate().take(to - first) {
                let bias = self.bias.map_or(0.0, |b| b[first + r]);
                for (c, value) in out.iter().enumerate() {
                    // SAFETY: a column belongs to one task.
                    unsafe { self.y.slice((row + c) * n + first + r, 1)[0] = value + bias };
                }
            }
        }
    }
}

/// `x [m, k]`, `w [n, k]`, `bias [n]` to `[m, n]`.
pub(super) fn affine(x: Tensor<F, 2>, w: &Tensor<F, 2>, bias: Option<&Tensor<F, 1>>) -> Tensor<F, 2> {
    let ([m, k], n) = (x.dims(), w.dims()[0]);
    let (x, w, bias) = (Host::new(&x), Host::new(w), bias.map(Host::new));
    let (x, w, bias) = (x.values(), w.values(), bias.as_ref().map(Host::values));
    let mut y = vec![0f32; m * n];
    if k == 0 || m == 0 || n == 0 {
        if let Some(bias) = bias {
            y.chunks_exact_mut(n.max(1)).for_each(|row| row.copy_from_slice(bias));
        }
        return tensor(y, [m, n]);
    }
    if m <= FEW {
        let lanes = lanes();
        let turned = turn(x, m, k, lanes);
        if turned.is_some() || m <= FEW_DOTS {
            let product = Product { x, w, bias, y: SharedOutput::new(&mut y), m, n, k };
            let run = |from: usize, to: usize| match &turned {
                Some(groups) => product.turned_columns(groups, lanes, from, to),
                None => product.columns(from, to),
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
    }
    if let Some(bias) = bias {
        y.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
    }
    let weights = Matrix::rows(w, k).transposed();
    matmul(&mut y, n, bias.is_some(), Matrix::rows(x, k), weights, m, n, k, true);
    tensor(y, [m, n])
}
