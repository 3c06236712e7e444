//! Tensors of the Flex backend as slices, and back.

use std::mem::MaybeUninit;

use burn::tensor::{Tensor, TensorData, TensorPrimitive};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

pub(super) type F = Flex<f32, i32>;

/// Below this many elements a loop runs on one thread.
pub(super) const PARALLEL: usize = 1 << 14;

/// A tensor whose values lie in order.
pub(super) struct Host(FlexTensor);

impl Host {
    /// Copies only if the layout asks for it.
    pub(super) fn new<const D: usize>(t: &Tensor<F, D>) -> Self {
        let t = t.clone().into_primitive().tensor();
        Self(if t.is_contiguous() { t } else { t.to_contiguous() })
    }

    /// The values, row-major.
    pub(super) fn values(&self) -> &[f32] {
        self.0.as_slice().unwrap_or(&[])
    }
}

/// Values that may be written where they are if nothing else holds them.
pub(super) struct Owned(FlexTensor);

impl Owned {
    pub(super) fn new<const D: usize>(t: Tensor<F, D>) -> Self {
        let t = t.into_primitive().tensor();
        let whole = t.to_contiguous();
        Self(whole)
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        self.0.storage_mut()
    }

    pub(super) fn tensor<const D: usize>(self) -> Tensor<F, D> {
        Tensor::from_primitive(TensorPrimitive::Float(self.0))
    }
}

/// Values as a tensor, without a copy.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<F, D> {
    Tensor::from_primitive(TensorPrimitive::Float(FlexTensor::from_data(TensorData::new(values, shape))))
}

/// `vec![0f32; len]`, where a large one is set, and its pages are asked for, by all threads: on one of them that was a
/// twentieth of an update.
pub(super) fn zeros(len: usize) -> Vec<f32> {
    if len < PARALLEL * 2 {
        return vec![0f32; len];
    }
    let mut values = Vec::with_capacity(len);
    values.spare_capacity_mut()[..len].par_chunks_mut(PARALLEL).for_each(|chunk| chunk.fill(MaybeUninit::new(0f32)));
    // SAFETY: the first `len` values were just written.
    unsafe { values.set_len(len) };
    values
}

/// Rows that one task takes so that a task is worth its start.
pub(super) fn rows_per_task(width: usize) -> usize {
    (PARALLEL / 2 / width.max(1)).max(1)
}

/// Calls `f(first row, rows)` for consecutive runs of rows of `out`, in parallel where it is worth it.
pub(super) fn for_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.is_empty() || width == 0 {
        return;
    }
    if out.len() < PARALLEL {
        return f(0, out);
    }
    let rows = rows_per_task(width);
    out.par_chunks_mut(rows * width).enumerate().for_each(|(i, chunk)| f(i * rows, chunk));
}

/// As [`for_rows`] with two outputs of the same shape.
pub(super) fn for_rows2(a: &mut [f32], b: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync) {
    if a.is_empty() || width == 0 {
        return;
    }
    if a.len() < PARALLEL {
        return f(0, a, b);
    }
    let rows = rows_per_task(width);
    a.par_chunks_mut(rows * width)
        .zip(b.par_chunks_mut(rows * width))
        .enumerate()
        .for_each(|(i, (a, b))| f(i * rows, a, b));
}

/// A pointer that tasks share; each writes places of its own.
#[derive(Clone, Copy)]
pub(super) struct SharedOutput(*mut f32);

// SAFETY: the tasks that hold it write disjoint places, as the callers say where they do.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    pub(super) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// # Safety
    /// `at..at + len` lies inside the values, and no other task touches it at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn slice(&self, at: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

/// A matrix inside a slice: row and column strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// The values of a tensor of two dimensions where they lie; none where an axis is turned round.
    pub(super) fn of(t: &'a FlexTensor) -> Option<Self> {
        let layout = t.layout();
        let [row, column] = *layout.strides() else { return None };
        let values = t.storage().get(layout.start_offset()..)?;
        Some(Self { values, row: usize::try_from(row).ok()?, column: usize::try_from(column).ok()? })
    }

    /// Rows of `row` elements.
    pub(super) fn rows(values: &'a [f32], row: usize) -> Self {
        Self { values, row, column: 1 }
    }

    /// The columns from `column` on.
    pub(super) fn from(self, column: usize) -> Self {
        Self { values: &self.values[column * self.column..], ..self }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn fits(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// `out [m, n] (row stride) = [out +] a [m, k] b [k, n]`, on this thread or on all.
#[allow(clippy::too_many_arguments)] // the arguments of a BLAS product, in its order
pub(super) fn matmul(
    out: &mut [f32],
    out_row: usize,
    add: bool,
    a: Matrix,
    b: Matrix,
    m: usize,
    n: usize,
    k: usize,
    threads: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!((m - 1) * out_row + n <= out.len(), "matmul: the result does not lie inside its slice");
    // SAFETY: the result lies inside `out`, as just checked, which is borrowed alone and has values to add to.
    unsafe { matmul_to(out.as_mut_ptr(), out_row, add, a, b, m, n, k, threads) }
}

/// `a [m, k] b [k, n]` on all threads. Nothing sets the result to zeros first.
pub(super) fn product(a: Matrix, b: Matrix, m: usize, n: usize, k: usize) -> Vec<f32> {
    if k == 0 || m == 0 || n == 0 {
        return zeros(m * n);
    }
    let mut out = Vec::with_capacity(m * n);
    // SAFETY: there is room for `m` rows of `n` values, and a product that adds to nothing reads none and writes each.
    unsafe {
        matmul_to(out.as_mut_ptr(), n, false, a, b, m, n, k, true);
        out.set_len(m * n);
    }
    out
}

/// # Safety
/// `m` rows of `n` values from `out` on, `out_row` apart, may be written by this call alone; with `add` they are read,
/// too.
#[allow(clippy::too_many_arguments)] // the arguments of a BLAS product, in its order
unsafe fn matmul_to(
    out: *mut f32,
    out_row: usize,
    add: bool,
    a: Matrix,
    b: Matrix,
    m: usize,
    n: usize,
    k: usize,
    threads: bool,
) {
    assert!(a.fits(m, k) && b.fits(k, n), "matmul: an operand does not lie inside its slice");
    let parallelism = if threads { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the operands lie inside their slices, as just checked, and `out` is the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            1,
            out_row as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
