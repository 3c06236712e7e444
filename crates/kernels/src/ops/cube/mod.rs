//! Specialisations for GPUs, written in CubeCL once for every runtime (wgpu, CUDA): each operation one pass over
//! memory. They compute in f32 whatever type the tensors have (f32, bf16 or f16, looked up at run time), give the same
//! numbers on every run, and leave what they do not cover to the defaults.

mod adamw;
mod attention;
mod decode;
mod elements;
mod few_rows;
mod focus;
mod gradients;
mod head;
mod launch;
mod matmul;
#[cfg(feature = "cuda")]
pub mod nccl;
mod norm;
mod qkv;
mod reduce;
mod refused;
mod sample;
mod scores;
mod squared_norm;
mod stream;
mod token_rows;

use burn::tensor::{DType, Int, Tensor};
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime};
#[cfg(feature = "cuda")]
use comm::Ranks;
use cubecl::MemoryAllocationMode;
use vgpo::{Prototype, RowPrototypes};

use super::{AdamWParameter, AdamWStep, Kernels};
use crate::attention::decode::{DecodeKv, NewTokens, OwnKv};
use crate::attention::{AttentionPlan, AttentionSaved};
use crate::bounds;
#[cfg(feature = "cuda")]
use crate::collective;
use crate::head::HeadOutput;
use crate::host::DeviceError;
use crate::layers::BlockShape;
#[cfg(feature = "cuda")]
use crate::pending::PendingSum;
use crate::rope::Rotary;
use crate::sampling::RowChoice;

impl<R: CubeRuntime, BT: BoolElement> Kernels for CubeBackend<R, f32, i32, BT> {
    const TOKENS: usize = bounds::TOKENS;

    fn device_memory(device: &Self::Device) -> Option<u64> {
        R::client(device).memory_usage().ok().map(|usage| usage.bytes_reserved)
    }

    fn free_memory(device: &Self::Device) -> Option<u64> {
        let client = R::client(device);
        // Only the CUDA runtime tells: its largest page is a quarter of the device.
        let total = (R::name(&client) == "cuda").then(|| 4 * client.properties().memory.max_page_size)?;
        Some(total.saturating_sub(client.memory_usage().ok()?.bytes_in_use))
    }

    fn persistent<T>(device: &Self::Device, make: impl FnOnce() -> T) -> T {
        let client = R::client(device);
        // SAFETY: the mode is that of this thread's stream, and is set back before anything else is queued on it.
        unsafe { client.allocation_mode(MemoryAllocationMode::Persistent) };
        let made = make();
        // SAFETY: as above.
        unsafe { client.allocation_mode(MemoryAllocationMode::Auto) };
        made
    }

    fn release_uploads(device: &Self::Device) -> Result<(), DeviceError> {
        R::client(device).flush().map_err(|e| DeviceError(e.to_string()))
    }

    fn matmul<const D: usize>(a: Tensor<Self, D>, b: Tensor<Self, D>) -> Tensor<Self, D> {
        matmul::matmul(a, b)
    }

    fn weight_gradient(dy: Tensor<Self, 2>, x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        matmul::weight_gradient(dy, x)
    }

    fn partial_affine(x: Tensor<Self, 2>, weight: &Tensor<Self, 2>) -> Tensor<Self, 3> {
        few_rows::partial_affine(x, weight)
    }

    fn affine(x: Tensor<Self, 2>, weight: &Tensor<Self, 2>, bias: Option<&Tensor<Self, 1>>) -> Tensor<Self, 2> {
        matmul::affine(x, weight, bias)
    }

    fn refused_launch(device: &Self::Device) {
        refused::launch::<R>(device);
    }

    fn rms_norm(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        norm::rms_norm(x, weight, eps)
    }

    fn add_parts_rms_norm(
        x: Tensor<Self, 2>,
        parts: Tensor<Self, 3>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        stream::add_parts_rms_norm(x, parts, weight, eps)
    }

    fn take_rows(table: &Tensor<Self, 2>, rows: Tensor<Self, 1, Int>) -> Tensor<Self, 2> {
        stream::take_rows(table, rows)
    }

    fn rms_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
        dy: Tensor<Self, 2>,
        residual: Option<Tensor<Self, 2>>,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        norm::rms_norm_backward(x, weight, eps, dy, residual)
    }

    fn add_rms_norm(
        x: Tensor<Self, 2>,
        residual: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 2>) {
        norm::add_rms_norm(x, residual, weight, eps)
    }

    fn rotate(x: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        elements::rotate(x, rotary, 1.0)
    }

    fn rotate_backward(dy: Tensor<Self, 3>, rotary: &Rotary<Self>) -> Tensor<Self, 3> {
        elements::rotate(dy, rotary, -1.0)
    }

    fn rotate_qkv(qkv: Tensor<Self, 2>, shape: BlockShape, rotary: &Rotary<Self>) -> [Tensor<Self, 3>; 3] {
        qkv::rotate_qkv(qkv, shape, rotary)
    }

    fn rotate_qkv_backward(d_qkv: [Tensor<Self, 3>; 3], rotary: &Rotary<Self>) -> Tensor<Self, 2> {
        qkv::rotate_qkv_backward(d_qkv, rotary)
    }

    fn swiglu(gate_up: Tensor<Self, 2>) -> Tensor<Self, 2> {
        elements::swiglu(gate_up)
    }

    fn swiglu_parts(parts: Tensor<Self, 3>, dtype: DType) -> Tensor<Self, 2> {
        elements::swiglu_parts(parts, dtype)
    }

    fn swiglu_backward(gate_up: Tensor<Self, 2>, dy: Tensor<Self, 2>) -> Tensor<Self, 2> {
        elements::swiglu_backward(gate_up, dy)
    }

    fn packed_attention(
        q: Tensor<Self, 3>,
        k: Tensor<Self, 3>,
        v: Tensor<Self, 3>,
        plan: &AttentionPlan<Self>,
    ) -> (Tensor<Self, 3>, AttentionSaved<Self>) {
        attention::forward(q, k, v, plan)
    }

    fn packed_attention_backward(
        qkv: [Tensor<Self, 3>; 3],
        o: Tensor<Self, 3>,
        saved: &AttentionSaved<Self>,
        d_o: Tensor<Self, 3>,
        plan: &AttentionPlan<Self>,
    ) -> [Tensor<Self, 3>; 3] {
        attention::backward(qkv, o, saved, d_o, plan)
    }

    fn decode_heads(
        projected: Tensor<Self, 3>,
        tokens: NewTokens<'_, Self>,
        own: Vec<OwnKv<Self>>,
    ) -> (Tensor<Self, 3>, Vec<OwnKv<Self>>) {
        decode::heads(projected, tokens, own)
    }

    fn decode_attention(q: Tensor<Self, 3>, past: &[DecodeKv<Self>]) -> Tensor<Self, 3> {
        decode::attention(q, past)
    }

    fn logits_at_once() -> usize {
        bounds::SAMPLER_LOGITS
    }

    fn sample(
        logits: Tensor<Self, 2>,
        choices: &[RowChoice],
        forbidden: Option<&Tensor<Self, 2>>,
    ) -> (Tensor<Self, 1, Int>, Tensor<Self, 1>) {
        sample::sample(logits, choices, forbidden)
    }

    fn log_probs(
        hidden: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
        temperature: f64,
        with_entropy: bool,
    ) -> HeadOutput<Self> {
        head::log_probs(hidden, weight, targets, temperature, with_entropy)
    }

    fn log_probs_backward(
        hidden: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        targets: Tensor<Self, 1, Int>,
        temperature: f64,
        d_log_probs: Tensor<Self, 1>,
        d_entropy: Option<Tensor<Self, 1>>,
        learns: bool,
    ) -> (Tensor<Self, 2>, Option<Tensor<Self, 2>>) {
        head::log_probs_backward(hidden, weight, targets, temperature, d_log_probs, d_entropy, learns)
    }

    fn kl_divergence(
        p: Tensor<Self, 2>,
        q: Tensor<Self, 2>,
        weight: &Tensor<Self, 2>,
        temperature: f64,
    ) -> Tensor<Self, 1> {
        head::kl_divergence(p, q, weight, temperature)
    }

    fn visual_focus(hidden: Tensor<Self, 2>, prototype: &Prototype<Self>, eps: f64) -> Tensor<Self, 1> {
        focus::visual_focus(hidden, prototype, eps)
    }

    fn visual_focus_of_rows(hidden: Tensor<Self, 2>, prototypes: &RowPrototypes<Self>, eps: f64) -> Tensor<Self, 1> {
        focus::visual_focus_of_rows(hidden, prototypes, eps)
    }

    fn adamw(p: AdamWParameter<Self>, grad: Tensor<Self, 1>, h: &AdamWStep) -> AdamWParameter<Self> {
        adamw::adamw(p, grad, h)
    }

    #[cfg(feature = "cuda")]
    fn reduce_scatter(x: Tensor<Self, 1>, ranks: &Ranks, name: &'static str) -> Result<Tensor<Self, 1>, DeviceError> {
        match nccl::applies::<Self>(&x.device(), ranks) {
            true => nccl::reduce_scatter(x, ranks, name),
            false => collective::reduce_scatter(x, ranks, name),
        }
    }

    #[cfg(feature = "cuda")]
    fn begin_reduce_scatter(
        x: Tensor<Self, 1>,
        ranks: &Ranks,
        name: &'static str,
    ) -> Result<PendingSum<Self>, DeviceError> {
        match nccl::applies::<Self>(&x.device(), ranks) {
            true => nccl::begin_reduce_scatter(x, ranks, name),
            false => collective::reduce_scatter(x, ranks, name).map(PendingSum::done),
        }
    }

    #[cfg(feature = "cuda")]
    fn all_reduce<const D: usize>(
        x: Tensor<Self, D>,
        ranks: &Ranks,
        name: &'static str,
    ) -> Result<Tensor<Self, D>, DeviceError> {
        match nccl::applies::<Self>(&x.device(), ranks) {
            true => nccl::all_reduce(x, ranks, name),
            false => collective::all_reduce(x, ranks, name),
        }
    }

    #[cfg(feature = "cuda")]
    fn all_gather(x: Tensor<Self, 1>, ranks: &Ranks, name: &'static str) -> Result<Tensor<Self, 1>, DeviceError> {
        match nccl::applies::<Self>(&x.device(), ranks) {
            true => nccl::all_gather(x, ranks, name),
            false => collective::all_gather(x, ranks, name),
        }
    }

    fn accumulate(sum: Tensor<Self, 1>, grad: Tensor<Self, 1>) -> Tensor<Self, 1> {
        gradients::accumulate(sum, grad)
    }

    fn accumulate_columns(sum: Tensor<Self, 1>, rows: Tensor<Self, 2>) -> Tensor<Self, 1> {
        gradients::accumulate_columns(sum, rows)
    }

    fn accumulate_rows(table: Tensor<Self, 1>, rows: Tensor<Self, 1, Int>, values: Tensor<Self, 2>) -> Tensor<Self, 1> {
        gradients::accumulate_rows(table, rows, values)
    }

    fn squared_norm(grads: Vec<Tensor<Self, 1>>, device: &Self::Device) -> Tensor<Self, 1> {
        squared_norm::squared_norm(grads, device)
    }
}
