//! The operations worth specialising for a backend: each has a default in plain tensor operations (which is also what
//! autodiff differentiates in tests) and may be overridden.
//!
//! Backward functions are written by hand: the engine never builds an autodiff graph over the model.

mod adamw;
mod backends;
// What cubecl's macros make of a kernel is public wherever it stands.
#[cfg(feature = "cube")]
#[allow(unreachable_pub, unnameable_types)]
mod cube;
#[cfg(feature = "flex")]
mod flex;
pub mod plain;

#[cfg(feature = "cuda")]
pub use cube::nccl;

pub use adamw::{AdamWParameter, AdamWStep, Rounded, Rounding, by_chance, noise, plain_adamw};

use burn::tensor::{DType, Int, Tensor, backend::Backend};
use comm::Ranks;
use vgpo::{Prototype, RowPrototypes};

use crate::attention::decode::{DecodeKv, NewTokens, OwnKv};
use crate::attention::{self, AttentionPlan, AttentionSaved};
use crate::collective;
use crate::head::{self, HeadOutput};
use crate::host::DeviceError;
use crate::layers::BlockShape;
use crate::params::to_f32;
use crate::pending::PendingSum;
use crate::rope::Rotary;
use crate::sampling::{self, RowChoice};

/// A backend that can run the model. Implemented for Burn's CPU, wgpu and CUDA backends and for `Autodiff` over them.
pub trait Kernels: Backend {
    /// Packed tokens come in multiples of this, the last ones of them idle: a GPU's buffers are then of few sizes.
    const TOKENS: usize = 1;

    /// Bytes that the device's memory pool holds, in use or kept for later; none for a processor's own memory.
    fn device_memory(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// Bytes of the device's memory that nothing holds, whether its pools keep them or not; none where that is not
    /// known, and for a processor's own memory. What other programs hold of the device counts as free.
    fn free_memory(_device: &Self::Device) -> Option<u64> {
        None
    }

    /// What `make` makes, in memory of its own where a device has pools: for what stays, like weights, and shall not
    /// hold pages that what comes and goes would leave. [`memory_cleanup`](Backend::memory_cleanup) gives back what was
    /// only on the way.
    fn persistent<T>(_device: &Self::Device, make: impl FnOnce() -> T) -> T {
        make()
    }

    /// Waits until what was uploaded before the last call is on the device, and frees the host's copies: without calls
    /// a long series of uploads keeps all of them.
    ///
    /// # Errors
    /// [`DeviceError`] with what failed since the device was last read or waited for.
    fn release_uploads(_device: &Self::Device) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Matrix products `a b`, in the type of both: `[.., m, k]` and `[.., k, n]` to `[.., m, n]`; a batch of one matrix
    /// stands for as many as the other has. Operands may be transposed views. What is multiplied here never goes to
    /// Burn's own matmul on GPUs, where the kernel that is found fastest may be a wrong one (docs/architecture.md).
    fn matmul<const D: usize>(a: Tensor<Self, D>, b: Tensor<Self, D>) -> Tensor<Self, D> {
        plain::matmul(a, b)
    }

    /// The gradient `dy^T x` of a weight `[out, in]` in f32, of `dy [N, out]` and `x [N, in]`.
    fn weight_gradient(dy: Tensor<Self, 2>, x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::weight_gradient(dy, x)
    }

    /// Asks the device for something that it has to refuse: a task without which the program must not go on. Does
    /// nothing on processors, which have no such queue. For checks that a failure is noticed.
    fn refused_launch(_device: &Self::Device) {}

    /// `x W^T + b`: `x [N, in]`, `weight [out, in]`, `bias [out]` to `[N, out]`.
    fn affine(x: Tensor<Self, 2>, weight: &Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>) -> Tensor<Self, 2> {
        plain::affine(x, weight, bias)
    }

    /// `x W^T` as partial sums in f32, `[s, N, out]`, which have still to be added over `s`: what a GPU makes of few
    /// rows, for a caller whose next kernel reads them anyway.
    fn partial_affine(x: Tensor<Self, 2>, weight: &Tensor<Self, 2>) -> Tensor<Self, 3> {
        to_f32(Self::affine(x, weight, None)).unsqueeze()
    }

    /// RMSNorm as Hugging Face computes it: in f32, rounded to the input's type, then scaled. `x [N, d]`, `weight [d]`.
    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        plain::rms_norm(x, weight, eps)
    }

    /// `x + residual`, both `[N, d]`, and its [`rms_norm`](Self::rms_norm): `(sum, normed)`.
    fn add_rms_norm(
        x: Tensor<Self, 2>,
        residual: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        plain::add_rms_norm(x, residual, weight, eps)
    }

    /// [`add_rms_norm`](Self::add_rms_norm) of a residual that [`partial_affine`](Self::partial_affine) made, `[s, N,
    /// d]`, rounded to the type of `x` before it is added.
    fn add_parts_rms_norm(
        x: Tensor<Self, 2>,
        parts: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        let dtype = x.dtype();
        Self::add_rms_norm(x, plain::whole(parts, dtype), weight, eps)
    }

    /// Gradients of [`rms_norm`](Self::rms_norm): `dx [N, d]`, with `residual [N, d]` added, the gradient that goes
    /// around the norm; and `[_, d]` in f32, whose column sums are the gradient of the weight.
    fn rms_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        dy: Tensor<Self, 2>,
        residual: Option<Tensor<Self, 2>>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        plain::rms_norm_backward(x, weight, eps, dy, residual)
    }

    /// LayerNorm in f32, rounded to the input's type after scale and shift. `x [N, d]`, `weight, bias [d]`.
    fn layer_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, bias: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        plain::layer_norm(x, weight, bias, eps)
    }

    /// Gradients of [`layer_norm`](Self::layer_norm): `(dx [N, d], dweight [d] in f32, dbias [d] in f32)`.
    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        dy: Tensor<Self, 2>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>, Tensor<Self, 1>) {
        plain::layer_norm_backward(x, weight, eps, dy)
    }

    /// `act(x)`, `[N, m]`.
    fn activate(x: Tensor<Self, 2>, act: Activation) -> Tensor<Self, 2> {
        plain::activate(x, act)
    }

    /// Gradient of [`activate`](Self::activate): `act'(x) dy`.
    fn activate_backward(x: Tensor<Self, 2>, act: Activation, dy: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::activate_backward(x, act, dy)
    }

    /// Rows `rows [M]` of `table [V, d]`: `[M, d]`.
    fn take_rows(table: &Tensor<Self, 2>, rows: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        plain::take_rows(table, rows)
    }

    /// `x [N, d]` with `values [M, d]` added to its rows `rows [M]`, which differ from each other.
    fn add_rows(x: Tensor<Self, 2>, rows: Tensor<Self, 1, Int>, values: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::add_rows(x, rows, values)
    }

    /// Rotate-half: `x cos + (-x2, x1) sin` over `x [N, heads, hd]`, computed in f32.
    fn rotate(x: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        plain::rotate(x, rotary)
    }

    /// Gradient of [`rotate`](Self::rotate): the rotation the other way.
    fn rotate_backward(dy: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        plain::rotate_backward(dy, rotary)
    }

    /// Queries `[N, H, hd]` and keys `[N, Hkv, hd]`, both turned as by [`rotate`](Self::rotate), and values of what the
    /// projections made, `[N, (q | k | v)]`.
    fn rotate_qkv(qkv: Tensor<Self, 2>, shape: BlockShape, rotary: &Rotary<Self>) -> [Tensor<Self, 3>; 3] {
        plain::rotate_qkv(qkv, shape, rotary)
    }

    /// Gradient of [`rotate_qkv`](Self::rotate_qkv): of queries, keys and values to `[N, (q | k | v)]`.
    fn rotate_qkv_backward(d_qkv: [Tensor<Self, 3>; 3], rotary: &Rotary<Self>) -> Tensor<Self, 2> {
        plain::rotate_qkv_backward(d_qkv, rotary)
    }

    /// `silu(gate) * up`, `[N, m]`, of `[N, (gate | up)]`.
    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::swiglu(gate_up)
    }

    /// [`swiglu`](Self::swiglu) of what [`partial_affine`](Self::partial_affine) made, `[s, N, (gate | up)]`, rounded
    /// to `dtype` before it is used; to `[N, m]` of `dtype`.
    fn swiglu_parts(parts: Tensor<Self, 3>, dtype: DType) -> Tensor<Self, 2> {
        Self::swiglu(plain::whole(parts, dtype))
    }

    /// Gradient of [`swiglu`](Self::swiglu), `[N, (gate | up)]`, for `dy [N, m]`.
    fn swiglu_backward(gate_up: Tensor<Self, 2>, dy: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::swiglu_backward(gate_up, dy)
    }

    /// Attention of packed tokens under a [`AttentionPlan`]: `q [N, H, hd]`, `k, v [N, Hkv, hd]` to `o [N, H, hd]`,
    /// with what the backward pass needs. Memory is linear in `N`: scores exist one block at a time. Rows that no
    /// segment of the plan holds ask nothing: zeros in `o`.
    fn packed_attention(
        q: Tensor<Self, 3>,
        k: Tensor<Self, 3>,
        v: Tensor<Self, 3>,
        plan: &AttentionPlan<Self>,
    ) -> (Tensor<Self, 3>, AttentionSaved<Self>) {
        attention::forward(q, k, v, plan)
    }

    /// Gradients of [`packed_attention`](Self::packed_attention): `(dq, dk, dv)`. The scores are computed again block
    /// by block. Rows that ask nothing have zeros in `dq`; as the prefix of a segment they get their `dk` and `dv`.
    fn packed_attention_backward(
        qkv: [Tensor<Self, 3>; 3],
        o: Tensor<Self, 3>,
        saved: &AttentionSaved<Self>,
        d_o: Tensor<Self, 3>,
        plan: &AttentionPlan<Self>,
    ) -> [Tensor<Self, 3>; 3] {
        attention::backward(qkv, o, saved, d_o, plan)
    }

    /// Queries of one new token a row, `[S, H, hd]`, out of what the projections made without their bias, as
    /// [`partial_affine`](Self::partial_affine) leaves it, `[s, S, (q | k | v)]`: with bias and norms, turned. Keys and
    /// values go to the next column of the caches `own`, whose rows share out the `S` in order; in place where nothing
    /// else holds them.
    fn decode_heads(
        projected: Tensor<Self, 3>,
        tokens: NewTokens<'_, Self>,
        own: Vec<OwnKv<Self>>,
    ) -> (Tensor<Self, 3>, Vec<OwnKv<Self>>) {
        plain::decode_heads(projected, tokens, own)
    }

    /// Attention of one new token a row, `q [S, H, hd]`, to the prompt of its group and to the row's own columns; to
    /// `[S, H, hd]`. The rows of `past` share out the `S` in order.
    fn decode_attention(q: Tensor<Self, 3>, past: &[DecodeKv<Self>]) -> Tensor<Self, 3> {
        plain::decode_attention(q, past)
    }

    /// Logits held at one time while tokens are sampled, in elements.
    fn logits_at_once() -> usize {
        1 << 24
    }

    /// One token for each row of logits `[S, V]` of any float type: ids and log-probs `[S]` in f32, on the device.
    /// `choices` has one entry per row; rows that share temperature and nucleus cost no further operation. `forbidden`
    /// are added to the logits that are sampled from, not to those the log-probs come from; one `[1, V]` mask for all
    /// rows or one `[S, V]` each, in f32. Logits that are no numbers give a token of the vocabulary and a log-prob that
    /// is none either.
    fn sample(
        logits: Tensor<Self, 2>,
        choices: &[RowChoice],
        forbidden: Option<&Tensor<Self, 2>>,
    ) -> (Tensor<Self, 1, Int>, Tensor<Self, 1>) {
        sampling::sample(logits, choices, forbidden)
    }

    /// Log-probs and entropies of `targets [M]`: see [`crate::head::log_probs`].
    fn log_probs(
        hidden: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
        temperature: f64,
        with_entropy: bool,
    ) -> HeadOutput<Self> {
        head::plain_log_probs(hidden, weight, targets, temperature, with_entropy)
    }

    /// Gradients of [`log_probs`](Self::log_probs): `dhidden [M, d]` and, where the head `learns`, `dweight [V, d]` in
    /// f32.
    fn log_probs_backward(
        hidden: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
        temperature: f64,
        d_log_probs: Tensor<Self, 1>,
        d_entropy: Option<Tensor<Self, 1>>,
        learns: bool,
    ) -> (Tensor<Self, 2>, Option<Tensor<Self, 2>>) {
        head::plain_log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy, learns)
    }

    /// Full-vocabulary divergences `[M]` of two predictions `p, q [M, d]`: see [`crate::head::kl_divergence`].
    fn kl_divergence(
        p: Tensor<Self, 2>,
        q: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        temperature: f64,
    ) -> Tensor<Self, 1> {
        head::plain_kl_divergence(p, q, weight, temperature, head::CPU_LOGITS)
    }

    /// Visual focus `[T]` in f32 of the hidden states `[T, d]` of one prompt's tokens: see [`vgpo::visual_focus`].
    fn visual_focus(hidden: Tensor<Self, 2>, prototype: &Prototype<Self>, eps: f64) -> Tensor<Self, 1> {
        vgpo::visual_focus(hidden, prototype, eps)
    }

    /// Visual focus `[S]` in f32 of rows `[S, d]` that each have prototypes of their own: see
    /// [`RowPrototypes::visual_focus`].
    fn visual_focus_of_rows(hidden: Tensor<Self, 2>, prototypes: &RowPrototypes<Self>, eps: f64) -> Tensor<Self, 1> {
        prototypes.visual_focus(hidden, eps)
    }

    /// One AdamW update of `p` by its flat gradient `grad`. The sums are f32 whatever the types are.
    fn adamw(p: AdamWParameter<Self>, grad: Tensor<Self, 1>, h: &AdamWStep) -> AdamWParameter<Self> {
        plain_adamw(p, grad, h)
    }

    /// This rank's part of the sum over `ranks` of `x`, flat, in f32: `x` has as many parts of equal length as there
    /// are ranks.
    ///
    /// # Errors
    /// A rank that is gone; a device that cannot be read.
    fn reduce_scatter(x: Tensor<Self, 1>, ranks: &Ranks, name: &'static str) -> Result<Tensor<Self, 1>, DeviceError> {
        collective::reduce_scatter(x, ranks, name)
    }

    /// [`reduce_scatter`](Self::reduce_scatter) that what is queued on the device after it need not wait for: see
    /// [`pending`](crate::pending).
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    fn begin_reduce_scatter(
        x: Tensor<Self, 1>,
        ranks: &Ranks,
        name: &'static str,
    ) -> Result<PendingSum<Self>, DeviceError> {
        Self::reduce_scatter(x, ranks, name).map(PendingSum::done)
    }

    /// The sum over `ranks` of `x`, the same on all of them: taken in f32 and rounded to the type of `x` once; between
    /// CUDA devices rounded to it by each rank that adds.
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    fn all_reduce<const D: usize>(
        x: Tensor<Self, D>,
        ranks: &Ranks,
        name: &'static str,
    ) -> Result<Tensor<Self, D>, DeviceError> {
        collective::all_reduce(x, ranks, name)
    }

    /// The parts `x` of all `ranks`, flat and of equal length and type, one after the other.
    ///
    /// # Errors
    /// As [`reduce_scatter`](Self::reduce_scatter).
    fn all_gather(x: Tensor<Self, 1>, ranks: &Ranks, name: &'static str) -> Result<Tensor<Self, 1>, DeviceError> {
        collective::all_gather(x, ranks, name)
    }

    /// `sum + grad`, both flat, added in f32 and rounded to the type of `sum`; in place where nothing else holds it.
    fn accumulate(sum: Tensor<Self, 1>, grad: Tensor<Self, 1>) -> Tensor<Self, 1> {
        plain::accumulate(sum, grad)
    }

    /// `sum [d]` plus the column sums of `rows [N, d]`, added in f32 and rounded to the type of `sum`; in place where
    /// nothing else holds it.
    fn accumulate_columns(sum: Tensor<Self, 1>, rows: Tensor<Self, 2>) -> Tensor<Self, 1> {
        plain::accumulate_columns(sum, rows)
    }

    /// `table [V, d]`, flat, with `values [M, d]` added to its rows `rows [M]`, which may repeat: the sum of each row
    /// is taken in f32 and rounded to the type of `table` once; in place where nothing else holds it.
    fn accumulate_rows(table: Tensor<Self, 1>, rows: Tensor<Self, 1, Int>, values: Tensor<Self, 2>) -> Tensor<Self, 1> {
        plain::accumulate_rows(table, rows, values)
    }

    /// The sum of the squares of all elements of all `grads`, `[1]` in f32: NaN or infinite if one of them is, or if it
    /// exceeds f32. The same number on every run.
    fn squared_norm(grads: Vec<Tensor<Self, 1>>, device: &Self::Device) -> Tensor<Self, 1> {
        plain::squared_norm(grads, device)
    }
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(1.702 x)`.
    QuickGelu,
    /// The GELU with a hyperbolic tangent in place of the error function (`gelu_pytorch_tanh`).
    GeluTanh,
    /// The exact GELU, by the error function.
    Gelu,
}
