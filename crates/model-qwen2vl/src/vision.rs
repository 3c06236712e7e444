//! The vision tower: patch embedding, windowed and full attention blocks, the 2x2 merger; forward and backward.

use burn::tensor::{Int, Tensor, TensorData, activation, backend::Backend};

use crate::attention::AttentionPlan;
use crate::attention::packed::{KvGradients, Packed};
use crate::config::VisionConfig;
use crate::layers::{BlockSaved, Linear, TransformerBlock};
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, cast_to, to_f32};
use crate::rope::{Rotary, VisionLayout, vision_layout, vision_table};

/// The tower's parameters.
#[derive(Debug, Clone)]
pub struct VisionTower<B: Backend> {
    pub(crate) config: VisionConfig,
    /// The Conv3d as a matmul: `[hidden, 1176]`.
    pub(crate) patch_embed: Linear<B>,
    pub(crate) blocks: Vec<TransformerBlock<B>>,
    pub(crate) merger_norm: Tensor<B, 1>,
    pub(crate) merger_fc1: Linear<B>,
    pub(crate) merger_fc2: Linear<B>,
}

/// Epsilon of the tower's norms; not in the config file.
pub(crate) const VISION_EPS: f64 = 1e-6;

/// Everything about a batch of images but their pixels: order, windows, positions.
#[derive(Debug, Clone)]
pub struct VisionPlan<B: Backend> {
    rotary: Rotary<B>,
    windows: AttentionPlan<B>,
    full: AttentionPlan<B>,
    order: Tensor<B, 1, Int>,
    reverse: Tensor<B, 1, Int>,
    back: Tensor<B, 1, Int>,
}

impl<B: Backend> VisionPlan<B> {
    /// The plan of images with these grids `[t, h, w]`, in patches.
    pub fn new(config: &VisionConfig, grids: &[[usize; 3]], device: &B::Device) -> Self {
        let layout = vision_layout(config, grids);
        let index = |v: &[usize]| {
            let v: Vec<i32> = v.iter().map(|&i| i as i32).collect();
            let len = v.len();
            Tensor::from_data(TensorData::new(v, [len]), device)
        };
        let mut back = vec![0; layout.reverse.len()];
        for (j, &place) in layout.reverse.iter().enumerate() {
            back[place] = j;
        }
        let VisionLayout { patch_order, reverse, window_lens, full_lens, .. } = &layout;
        Self {
            rotary: vision_table(config, &layout, device),
            windows: AttentionPlan::bidirectional(window_lens, device),
            full: AttentionPlan::bidirectional(full_lens, device),
            order: index(patch_order),
            reverse: index(reverse),
            back: index(&back),
        }
    }
}

/// What the tower's backward needs.
pub struct VisionSaved<B: Backend> {
    patches: Tensor<B, 2>,
    blocks: Vec<BlockSaved<B>>,
    last: Tensor<B, 2>,
}

impl<B: Kernels> VisionTower<B> {
    fn packed<'a>(&self, i: usize, plan: &'a VisionPlan<B>) -> Packed<'a, B> {
        let full = self.config.fullatt_block_indexes.contains(&i);
        Packed::new(&plan.rotary, if full { &plan.full } else { &plan.windows })
    }

    fn patches(&self, pixels: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        cast_to(pixels.select(0, plan.order.clone()), self.patch_embed.weight.dtype())
    }

    /// Normed and joined 2x2: `x [N, hidden]` to `[N / 4, 4 hidden]`.
    fn merged(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let unit = self.config.merge_unit();
        let [n, h] = x.dims();
        B::rms_norm(x, self.merger_norm.clone(), VISION_EPS).reshape([n / unit, unit * h])
    }

    fn merge(&self, x: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let y = activation::gelu(self.merger_fc1.forward(self.merged(x)));
        self.merger_fc2.forward(y).select(0, plan.reverse.clone())
    }

    /// `pixels [N, 1176]` of all images, in the processor's order, to image embeddings `[N / 4, d]`.
    pub fn forward(&self, pixels: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let mut x = self.patch_embed.forward(self.patches(pixels, plan));
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &plan.rotary, &mut self.packed(i, plan));
        }
        self.merge(x, plan)
    }

    /// As [`forward`](Self::forward), keeping what [`backward`](Self::backward) needs.
    pub fn forward_saving(
        &self,
        pixels: Tensor<B, 2>,
        plan: &VisionPlan<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, VisionSaved<B>) {
        let patches = self.patches(pixels, plan);
        let mut x = self.patch_embed.forward(patches.clone());
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let (y, saved) = block.forward_saving(x, self.packed(i, plan), recompute, None);
            x = y;
            blocks.push(saved);
        }
        (self.merge(x.clone(), plan), VisionSaved { patches, blocks, last: x })
    }

    /// Adds the tower's gradients for `dy [N / 4, d]`, the gradient of the image embeddings.
    pub fn backward(&self, saved: VisionSaved<B>, plan: &VisionPlan<B>, dy: Tensor<B, 2>, grads: &mut Gradients<B>) {
        let VisionSaved { patches, mut blocks, last } = saved;
        let merged = self.merged(last.clone());
        let pre = self.merger_fc1.forward(merged.clone());
        let dy = dy.select(0, plan.back.clone());
        let d = self.merger_fc2.backward(activation::gelu(pre.clone()), dy, "visual.merger.mlp.2", grads);
        let d = self.merger_fc1.backward(merged, gelu_backward(pre, d), "visual.merger.mlp.0", grads);
        let (mut dx, dw) =
            B::rms_norm_backward(last.clone(), self.merger_norm.clone(), VISION_EPS, d.reshape(last.dims()));
        grads.add("visual.merger.ln_q.weight", dw);
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let Some(saved) = blocks.pop() else { break };
            let none = &mut KvGradients::default();
            dx = block.backward(saved, self.packed(i, plan), dx, none, &format!("visual.blocks.{i}"), grads);
        }
        grads.add("visual.patch_embed.proj.weight", dx.transpose().matmul(patches));
    }

    pub(crate) fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let c = &self.config;
        let shape = [c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size];
        visitor.visit("visual.patch_embed.proj.weight", &shape, &mut self.patch_embed.weight);
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit(&format!("visual.blocks.{i}"), visitor);
        }
        let shape = self.merger_norm.dims();
        visitor.visit("visual.merger.ln_q.weight", &shape, &mut self.merger_norm);
        self.merger_fc1.visit("visual.merger.mlp.0", visitor);
        self.merger_fc2.visit("visual.merger.mlp.2", visitor);
    }
}

/// `d gelu / dx = Phi(x) + x phi(x)` with the exact (erf) GELU.
fn gelu_backward<B: Backend>(x: Tensor<B, 2>, dy: Tensor<B, 2>) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = to_f32(x);
    let cdf = x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5);
    let pdf = x.clone().powi_scalar(2).mul_scalar(-0.5).exp().mul_scalar(1.0 / (2.0 * std::f64::consts::PI).sqrt());
    cast_to(to_f32(dy).mul(cdf.add(x.mul(pdf))), dtype)
}
