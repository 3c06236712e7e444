//! The norm of all gradients in few launches: up to 32 tensors at a time, then one cube over all partial sums.

use burn::tensor::{DType, Shape, Tensor};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::launch::{Launch, array_part, empty, float, grid, held, tensor, units, vector};
use super::reduce::sum;
use crate::ops::adamw::PART;
use crate::ops::plain;

/// Elements of which one cube sums the squares.
const BLOCK: usize = 1 << 16;

/// Tensors of one launch at most.
const TOGETHER: usize = 32;

/// Sums of squares of blocks of several tensors. Tensor `t` has `lens[t]` vectors of `N` and its blocks are the cubes
/// before `ends[t]`; they go to `parts`, from `first` on.
#[cube(launch_unchecked)]
fn squares<G: Float, N: Size>(
    grads: &Sequence<Array<Vector<G, N>>>,
    lens: &Sequence<usize>,
    ends: &Sequence<usize>,
    parts: &mut Array<f32>,
    first: usize,
    #[comptime] block: usize,
    #[comptime] units: usize,
    #[define(G)] _type: StorageType,
) {
    let cube = CUBE_POS;
    let mut shared = SharedMemory::<f32>::new(units);
    let mut squares = 0.0f32;
    let mut last = 0usize;
    let mut begin = 0usize;
    #[unroll]
    for t in 0..grads.len() {
        let end = *ends.index(t);
        if cube >= begin {
            if cube < end {
                squares = of_block::<G, N>(grads.index(t), *lens.index(t), cube - begin, block, units);
            }
        }
        begin = end;
        last = end;
    }
    // Every unit of the cube comes here: the sum waits for all of them.
    let total = sum(squares, &mut shared, units);
    if cube < last {
        if UNIT_POS == 0 {
            parts[first + cube] = total;
        }
    }
}

/// What this unit adds to the sum of squares of block `at`.
#[cube]
fn of_block<G: Float, N: Size>(
    grad: &Array<Vector<G, N>>,
    len: usize,
    at: usize,
    #[comptime] block: usize,
    #[comptime] units: usize,
) -> f32 {
    let start = at * block;
    let stop = select(start + block < len, start + block, len);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut i = start + UNIT_POS as usize;
    while i < stop {
        let g = Vector::<f32, N>::cast_from(grad[i]);
        squares += g * g;
        i += units;
    }
    let mut total = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        total += squares[k];
    }
    total
}

/// The sum of `parts [len]`, by one cube.
#[cube(launch_unchecked)]
fn total(parts: &Array<f32>, out: &mut Array<f32>, len: usize, #[comptime] units: usize) {
    let mut shared = SharedMemory::<f32>::new(units);
    let mut part = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < len {
        part += parts[i];
        i += units;
    }
    let all = sum(part, &mut shared, units);
    if UNIT_POS == 0 {
        out[0] = all;
    }
}

/// A piece of a gradient of at most [`PART`] elements.
struct SquaredPiece<R: CubeRuntime> {
    of: CubeTensor<R>,
    start: usize,
    count: usize,
    width: usize,
}

impl<R: CubeRuntime> SquaredPiece<R> {
    /// Pieces of `grad` whose elements are counted in 32 bits.
    fn all(grad: CubeTensor<R>) -> impl Iterator<Item = Self> {
        let grad = into_contiguous(grad);
        let (len, width) = (grad.meta.num_elements(), vector(&grad));
        let piece = move |start| Self { of: grad.clone(), start, count: PART.min(len - start), width };
        (0..len).step_by(PART).map(piece)
    }

    /// Cubes that it takes.
    fn cubes(&self) -> usize {
        self.count.div_ceil(BLOCK)
    }
}

fn launch_squares<R: CubeRuntime>(pieces: &[SquaredPiece<R>], parts: &CubeTensor<R>, first: usize) {
    let Some(SquaredPiece { of, width, .. }) = pieces.first() else { return };
    let client = of.client.clone();
    let units = units(&client, 256);
    let mut cubes = 0;
    let ends = pieces.iter().map(|piece| {
        cubes += piece.cubes();
        cubes
    });
    let ends: SequenceArg<R, usize> = ends.collect();
    // SAFETY: a block ends with its tensor, and `parts` has room for every block of every tensor.
    unsafe {
        squares::launch_unchecked::<R>(
            &client,
            grid(&client, cubes),
            CubeDim::new_1d(units as u32),
            *width,
            pieces.iter().map(|p| array_part(&p.of, p.start, p.count)).collect(),
            pieces.iter().map(|p| p.count / p.width).collect(),
            ends,
            parts.clone().into_array_arg(),
            first,
            BLOCK / width,
            units,
            of.dtype.into(),
        );
    }
}

fn launch_squared_norm<R: CubeRuntime>(grads: Vec<CubeTensor<R>>) -> Option<CubeTensor<R>> {
    let mut pieces: Vec<SquaredPiece<R>> = grads.into_iter().flat_map(SquaredPiece::all).collect();
    let client = pieces.first()?.of.client.clone();
    // One launch takes tensors of one type and width, and every buffer is a binding, of which a device has so many.
    pieces.sort_by_key(|piece| (piece.of.dtype.name(), piece.width));
    let bindings = (client.properties().hardware.max_bindings as usize).saturating_sub(2);
    let most = bindings.clamp(1, TOGETHER);
    let blocks: usize = pieces.iter().map(SquaredPiece::cubes).sum();
    let parts = empty(&pieces[0].of, Shape::new([blocks]), DType::F32);
    let mut first = 0;
    for alike in pieces.chunk_by(|a, b| (a.of.dtype, a.width) == (b.of.dtype, b.width)) {
        for together in alike.chunks(most) {
            launch_squares(together, &parts, first);
            first += together.iter().map(SquaredPiece::cubes).sum::<usize>();
        }
    }
    let out = empty(&parts, Shape::new([1]), DType::F32);
    let units = units(&client, 256);
    // SAFETY: `parts` has `blocks` elements, all of them written above.
    unsafe {
        total::launch_unchecked::<R>(
            &client,
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(units as u32),
            parts.into_array_arg(),
            out.clone().into_array_arg(),
            blocks,
            units,
        );
    }
    Some(out)
}

/// See [`Kernels::squared_norm`](crate::Kernels::squared_norm). The default where a type is not for kernels.
pub(super) fn squared_norm<B: Launch>(grads: Vec<Tensor<B, 1>>, device: &B::Device) -> Tensor<B, 1> {
    if !grads.iter().all(|g| float(g.dtype())) {
        return plain::squared_norm(grads, device);
    }
    match launch_squared_norm(grads.into_iter().map(held).collect()) {
        Some(norm) => tensor(norm),
        None => Tensor::zeros([1], (device, DType::F32)),
    }
}
