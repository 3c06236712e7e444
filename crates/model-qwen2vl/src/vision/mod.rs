//! The vision tower: patch embedding, blocks that attend over windows or the whole image, mergers; forward and
//! backward.
//!
//! What the decoder gets is one tensor, the *features* `[M, (1 + K) d]` of `M` image tokens: the embedding that takes
//! the place of the placeholder, then for each of `K` DeepStack blocks what is added behind decoder layer `k`. `K` is 0
//! but in Qwen3-VL.

mod merger;
mod positions;

use burn::tensor::{Int, Tensor, backend::Backend};
use kernels::Kernels;
use kernels::attention::AttentionPlan;
use kernels::attention::packed::{KvGradients, Packed};
use kernels::host::int_tensor;
use kernels::layers::{BlockSaved, Linear, LinearShow, Residual, TransformerBlock};
use kernels::params::{Gradients, ParamVisitor, Shard, cast_to, to_f32};
use kernels::rope::Rotary;

use crate::config::{TowerAttention, VisionConfig};
use crate::rope::{VisionLayout, vision_layout, vision_table};
use crate::tensor::Trained;
pub(crate) use merger::Merger;
pub(crate) use positions::POSITIONS;
use positions::Taps;

/// The tower's parameters.
#[derive(Debug, Clone)]
pub(crate) struct VisionTower<B: Backend> {
    pub(crate) config: VisionConfig,
    /// The Conv3d as a matmul: `[w, patch_dim]`.
    pub(crate) patch_embed: Linear<B>,
    /// Learned positions, `[S^2, w]`.
    pub(crate) positions: Option<Tensor<B, 2>>,
    pub(crate) blocks: Vec<TransformerBlock<B>>,
    pub(crate) merger: Merger<B>,
    /// Behind the blocks `config.deepstack`.
    pub(crate) deep_mergers: Vec<Merger<B>>,
}

/// Epsilon of the tower's norms; not in the config file.
pub(crate) const VISION_EPS: f64 = 1e-6;

/// Everything about a batch of images but their pixels: order, windows, positions.
#[derive(Debug, Clone)]
pub struct VisionPlan<B: Backend> {
    rotary: Rotary<B>,
    /// None where all blocks attend over the whole image.
    windows: Option<AttentionPlan<B>>,
    full: AttentionPlan<B>,
    /// None where the tower takes the patches in the processor's order.
    order: Option<Order<B>>,
    taps: Option<Taps<B>>,
}

/// From the processor's order to the tower's and back.
#[derive(Debug, Clone)]
struct Order<B: Backend> {
    /// Of patches, `[N]`.
    patches: Tensor<B, 1, Int>,
    /// Of merged tokens, from the tower's to the processor's, `[M]`.
    reverse: Tensor<B, 1, Int>,
    /// Of merged tokens, from the processor's to the tower's, `[M]`.
    back: Tensor<B, 1, Int>,
}

impl<B: Backend> VisionPlan<B> {
    /// The plan of images with these grids `[t, h, w]`, in patches.
    pub fn new(config: &VisionConfig, grids: &[[usize; 3]], device: &B::Device) -> Self {
        let layout = vision_layout(config, grids);
        let index = |v: &[usize]| int_tensor(v.iter().copied(), device);
        let mut back = vec![0; layout.reverse.len()];
        for (j, &place) in layout.reverse.iter().enumerate() {
            back[place] = j;
        }
        let windowed = matches!(config.attention, TowerAttention::Windows { .. });
        let VisionLayout { patch_order, reverse, window_lens, full_lens, .. } = &layout;
        let in_order = reverse.iter().enumerate().all(|(j, &place)| j == place);
        Self {
            rotary: vision_table(config, &layout, device),
            windows: windowed.then(|| AttentionPlan::bidirectional(window_lens, device)),
            full: AttentionPlan::bidirectional(full_lens, device),
            order: (!in_order).then(|| Order {
                patches: index(patch_order),
                reverse: index(reverse),
                back: index(&back),
            }),
            taps: config.position_side.map(|side| Taps::new(side, &layout, device)),
        }
    }
}

/// What the tower's backward needs.
pub(crate) struct VisionSaved<B: Backend> {
    patches: Tensor<B, 2>,
    blocks: Vec<BlockSaved<B>>,
    last: Tensor<B, 2>,
}

/// Name of the `k`-th DeepStack merger.
pub(crate) fn deep_merger(k: usize) -> String {
    format!("visual.deepstack_merger_list.{k}")
}

/// Name of the last merger.
pub(crate) const MERGER: &str = "visual.merger";

impl<B: Kernels> VisionTower<B> {
    fn packed<'a>(&self, i: usize, plan: &'a VisionPlan<B>) -> Packed<'a, B> {
        let attend = match (&self.config.attention, &plan.windows) {
            (TowerAttention::Windows { full, .. }, Some(windows)) if !full.contains(&i) => windows,
            _ => &plan.full,
        };
        Packed::new(&plan.rotary, attend)
    }

    fn patches(&self, pixels: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let pixels = match &plan.order {
            Some(order) => pixels.select(0, order.patches.clone()),
            None => pixels,
        };
        cast_to(pixels, self.patch_embed.weight.dtype())
    }

    /// Patches `[N, patch_dim]` to the input of the first block `[N, w]`.
    fn embed(&self, patches: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let x = self.patch_embed.forward(patches);
        match (&plan.taps, &self.positions) {
            (Some(taps), Some(table)) => taps.add(x, table),
            _ => x,
        }
    }

    /// The place of block `i` in `config.deepstack`.
    fn deep(&self, i: usize) -> Option<usize> {
        self.config.deepstack.iter().position(|&block| block == i)
    }

    /// Features in the processor's order, of what the mergers gave.
    fn features(&self, merged: Vec<Tensor<B, 2>>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let all = columns(merged);
        match &plan.order {
            Some(order) => all.select(0, order.reverse.clone()),
            None => all,
        }
    }

    /// The features of no image, `[0, (1 + K) d]`.
    pub(crate) fn no_features(&self) -> Tensor<B, 2> {
        let weight = &self.patch_embed.weight;
        let width = (1 + self.deep_mergers.len()) * self.config.out_hidden_size;
        Tensor::empty([0, width], (&weight.device(), weight.dtype()))
    }

    /// `pixels [N, patch_dim]` of all images, in the processor's order, to features `[M, (1 + K) d]`.
    pub(crate) fn forward(&self, pixels: Tensor<B, 2>, plan: &VisionPlan<B>) -> Tensor<B, 2> {
        let mut x = Residual::new(self.embed(self.patches(pixels, plan), plan));
        let mut deep = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            block.forward(&mut x, &mut self.packed(i, plan));
            deep.extend(self.deep(i).map(|k| self.deep_mergers[k].forward(x.sum())));
        }
        deep.insert(0, self.merger.forward(x.sum()));
        self.features(deep, plan)
    }

    /// As [`forward`](Self::forward), keeping what [`backward`](Self::backward) needs.
    pub(crate) fn forward_saving(
        &self,
        pixels: Tensor<B, 2>,
        plan: &VisionPlan<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, VisionSaved<B>) {
        let patches = self.patches(pixels, plan);
        let mut x = self.embed(patches.clone(), plan);
        let mut blocks = Vec::with_capacity(self.blocks.len());
        let mut deep = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            let (y, saved) = block.forward_saving(x, self.packed(i, plan), recompute, None);
            deep.extend(self.deep(i).map(|k| self.deep_mergers[k].forward(y.clone())));
            x = y;
            blocks.push(saved);
        }
        deep.insert(0, self.merger.forward(x.clone()));
        (self.features(deep, plan), VisionSaved { patches, blocks, last: x })
    }

    /// Adds the tower's gradients for `dy [M, (1 + K) d]`, the gradient of the features.
    pub(crate) fn backward(
        &self,
        saved: VisionSaved<B>,
        plan: &VisionPlan<B>,
        dy: Tensor<B, 2>,
        grads: &mut Gradients<B>,
    ) {
        let VisionSaved { patches, mut blocks, last } = saved;
        let dy = match &plan.order {
            Some(order) => dy.select(0, order.back.clone()),
            None => dy,
        };
        let d = self.config.out_hidden_size;
        let part = |k: usize| if self.deep_mergers.is_empty() { dy.clone() } else { dy.clone().narrow(1, k * d, d) };
        let mut dx = self.merger.backward(last.clone(), part(0), MERGER, grads);
        // The output of a block is the input of the next.
        let mut output = last;
        for (i, block) in self.blocks.iter().enumerate().rev() {
            let Some(saved) = blocks.pop() else { break };
            if let Some(k) = self.deep(i) {
                dx = dx.add(self.deep_mergers[k].backward(output, part(1 + k), &deep_merger(k), grads));
            }
            output = saved.x.clone();
            let none = &mut KvGradients::default();
            let prefix = format!("visual.blocks.{i}");
            dx = block.backward(saved, self.packed(i, plan), dx, none, &prefix, grads);
            // Mergers come before all blocks in this order, and those of deeper features are complete with their
            // blocks.
            if self.config.deepstack.iter().all(|&deep| deep >= i) {
                grads.done_through(&format!("{prefix}."));
            }
        }
        if grads.adapters_only() {
            return;
        }
        if let (Some(taps), Some(table)) = (&plan.taps, &self.positions) {
            taps.backward(&dx, table, grads);
        }
        if self.patch_embed.bias.is_some() {
            grads.add("visual.patch_embed.proj.bias", to_f32(dx.clone()).sum_dim(0));
        }
        grads.add("visual.patch_embed.proj.weight", B::weight_gradient(dx, patches));
    }

    /// Shows its linear layers to `show`, named as in [`backward`](Self::backward).
    pub(crate) fn linears(&mut self, show: &mut LinearShow<B>) {
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.linears(&format!("visual.blocks.{i}"), show);
        }
        self.merger.linears(MERGER, show);
        for (k, merger) in self.deep_mergers.iter_mut().enumerate() {
            merger.linears(&deep_merger(k), show);
        }
    }

    pub(crate) fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let c = &self.config;
        let shape = [c.hidden_size, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size];
        visitor.visit("visual.patch_embed.proj.weight", &Shard::whole(&shape), &mut self.patch_embed.weight);
        if let Some(bias) = &mut self.patch_embed.bias {
            visitor.visit("visual.patch_embed.proj.bias", &Shard::whole(&shape[..1]), bias);
        }
        if let Some(table) = &mut self.positions {
            let shard = Shard::whole(&table.dims());
            visitor.visit(POSITIONS, &shard, table);
        }
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit(&format!("visual.blocks.{i}"), visitor);
        }
        self.merger.visit(MERGER, visitor);
        for (k, merger) in self.deep_mergers.iter_mut().enumerate() {
            merger.visit(&deep_merger(k), visitor);
        }
    }
}

impl<B: Kernels> Trained<B> for VisionTower<B> {
    fn show(&mut self, _: &str, visitor: &mut impl ParamVisitor<B>) {
        self.visit(visitor);
    }
}

/// Tensors `[M, d]` side by side.
pub(crate) fn columns<B: Backend>(mut parts: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
    if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(parts, 1) }
}
