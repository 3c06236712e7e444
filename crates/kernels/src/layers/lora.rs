//! Low-rank adapters of linear layers (LoRA, arXiv 2106.09685): `y = x W^T + b + s (x A^T) B^T` with `A [r, in]` and
//! `B [out, r]`, which learn while the weight stays. They are applied apart from the weight: nothing is rounded to the
//! weight's own type, and no second copy of it is held.
//!
//! Of layers of one input, whose weights lie in one matrix, the `A`s do, too: one product computes all of them.
//!
//! Ranks that share a layer out (arXiv 1909.08053) cut its adapter along the same axis: `B` where the outputs are cut,
//! `A` where the inputs are. The other of the two is whole on all ranks, and each computes a part of its gradient.

use std::ops::Range;

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, Shard, StackPart, cast_to};

/// Ends of the names of an adapter's two matrices behind the name of its layer.
const NAMES: [&str; 2] = ["lora_A.weight", "lora_B.weight"];

/// The names of the two matrices of the adapter of the layer `module`: `A`, `B`.
pub fn adapter_names(module: &str) -> [String; 2] {
    NAMES.map(|end| format!("{module}.{end}"))
}

/// The layer whose adapter the parameter `name` belongs to, and whether it is its `B`; none of other parameters.
pub fn adapted_module(name: &str) -> Option<(&str, bool)> {
    NAMES.iter().enumerate().find_map(|(i, end)| Some((name.strip_suffix(end)?.strip_suffix('.')?, i == 1)))
}

/// The adapters of one linear layer, or of several of one input.
#[derive(Debug, Clone)]
pub struct Lora<B: Backend> {
    /// The `A`s, one below the other: `[k r, in]`.
    pub a: Tensor<B, 2>,
    /// The layers that have an adapter, in the order of their outputs.
    pub parts: Vec<LoraPart<B>>,
    /// `s`: alpha / r, or alpha / sqrt(r).
    pub scale: f64,
    /// Outputs of all layers together, of those without an adapter, too.
    pub out: usize,
    /// The first of its inputs among those of the whole layer, where ranks share them out.
    pub first_input: usize,
}

/// The adapter of one layer.
#[derive(Debug, Clone)]
pub struct LoraPart<B: Backend> {
    /// The layer's name, `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// Its outputs among those of all.
    pub rows: Range<usize>,
    /// `[out, r]`
    pub b: Tensor<B, 2>,
}

/// Which inputs of adapters a training pass drops: each with probability `share`, by the token's key and the place of
/// the layer, so that a pass that is cut otherwise, computed again or on another rank drops the same.
#[derive(Debug, Clone, Copy)]
pub struct Dropout<'a> {
    /// Probability of each input, from 0 to less than 1.
    pub share: f64,
    /// Of the optimizer step, and then of the layer.
    pub seed: u64,
    /// A key for each row.
    pub rows: &'a [u64],
}

impl Dropout<'_> {
    /// That of the layer at `place` in block `index`.
    pub(crate) fn at(self, index: usize, place: u64) -> Self {
        Self { seed: mixed(self.seed ^ ((index as u64) << 8 | place)), ..self }
    }

    /// What the inputs `[N, width]` from `first` on are multiplied by: 0, or `1 / (1 - share)`.
    fn mask<B: Backend>(&self, first: usize, width: usize, device: &B::Device, dtype: DType) -> Tensor<B, 2> {
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let limit = (self.share * (1u64 << 32) as f64) as u64;
        let mut values = Vec::with_capacity(self.rows.len() * width);
        for row in self.rows {
            let row = mixed(self.seed ^ row);
            values.extend((first as u64..(first + width) as u64).map(|column| {
                let drawn = mixed(row.wrapping_add(column.wrapping_mul(STEP))) >> 32;
                if drawn < limit { 0.0 } else { kept }
            }));
        }
        Tensor::from_data(TensorData::new(values, [self.rows.len(), width]), (device, dtype))
    }
}

/// What SplitMix64 counts by.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finish of SplitMix64: 64 bits that look random of any 64 bits.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(STEP);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl<B: Kernels> Lora<B> {
    /// `r`
    fn rank(&self) -> usize {
        self.a.dims()[0] / self.parts.len().max(1)
    }

    /// `s x A^T`, `[N, k r]`.
    fn inner(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        B::affine(x, &self.a, None).mul_scalar(self.scale)
    }

    /// What `x [N, in]` is multiplied by, if any of it is dropped.
    fn mask(&self, x: &Tensor<B, 2>, dropout: Option<Dropout>) -> Option<Tensor<B, 2>> {
        dropout.map(|dropout| dropout.mask(self.first_input, x.dims()[1], &x.device(), x.dtype()))
    }

    /// What it adds to the outputs for `x [N, in]`: `[N, out]`.
    pub(crate) fn forward(&self, x: Tensor<B, 2>, dropout: Option<Dropout>) -> Tensor<B, 2> {
        let mask = self.mask(&x, dropout);
        let inner = self.inner(masked(x, mask.as_ref()));
        let (n, r) = (inner.dims()[0], self.rank());
        let zeros = |width: usize| Tensor::zeros([n, width], (&inner.device(), inner.dtype()));
        let mut columns = Vec::new();
        let mut end = 0;
        for (i, LoraPart { rows, b, .. }) in self.parts.iter().enumerate() {
            if end < rows.start {
                columns.push(zeros(rows.start - end));
            }
            columns.push(B::affine(inner.clone().narrow(1, i * r, r), b, None));
            end = rows.end;
        }
        if end < self.out {
            columns.push(zeros(self.out - end));
        }
        if columns.len() == 1 { columns.swap_remove(0) } else { Tensor::cat(columns, 1) }
    }

    /// Adds the gradients of its matrices and returns its part of `dx [N, in]` for `dy [N, out]`.
    pub(crate) fn backward(
        &self,
        x: Tensor<B, 2>,
        dy: Tensor<B, 2>,
        dropout: Option<Dropout>,
        grads: &mut Gradients<B>,
    ) -> Tensor<B, 2> {
        let mask = self.mask(&x, dropout);
        let x = masked(x, mask.as_ref());
        let inner = self.inner(x.clone());
        let r = self.rank();
        let mut back = Vec::with_capacity(self.parts.len());
        for (i, LoraPart { module, rows, b }) in self.parts.iter().enumerate() {
            let dy = match rows.len() == self.out {
                true => dy.clone(),
                false => dy.clone().narrow(1, rows.start, rows.len()),
            };
            let [_, name] = adapter_names(module);
            grads.add(&name, B::weight_gradient(dy.clone(), inner.clone().narrow(1, i * r, r)));
            back.push(B::matmul(dy, b.clone()));
        }
        let back = if back.len() == 1 { back.swap_remove(0) } else { Tensor::cat(back, 1) };
        let back = back.mul_scalar(self.scale); // [N, k r]
        grads.add_stack(&self.stack(), B::weight_gradient(back.clone(), x));
        masked(B::matmul(back, self.a.clone()), mask.as_ref())
    }
}

impl<B: Backend> Lora<B> {
    /// The `A`s by name.
    fn stack(&self) -> Vec<StackPart> {
        let rows = self.a.dims()[0] / self.parts.len().max(1);
        let part = |part: &LoraPart<B>| {
            let [name, _] = adapter_names(&part.module);
            StackPart { name, rows }
        };
        self.parts.iter().map(part).collect()
    }

    /// Shows its parameters to `visitor`.
    pub(crate) fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let (stack, [_, width]) = (self.stack(), self.a.dims());
        let shards: Vec<Shard> = stack.iter().map(|part| Shard::whole(&[part.rows, width])).collect();
        visitor.visit_stack(&stack, &shards, &mut self.a);
        for LoraPart { module, b, .. } in &mut self.parts {
            let [_, name] = adapter_names(module);
            let shard = Shard::whole(&b.dims());
            visitor.visit(&name, &shard, b);
        }
    }

    /// `s B A` of the layer `module`, `[out, in]` in f32: what its weight would have more; none without an adapter.
    pub fn merged(&self, module: &str) -> Option<Tensor<B, 2>>
    where
        B: Kernels,
    {
        let i = self.parts.iter().position(|part| part.module == module)?;
        let r = self.rank();
        let a = cast_to(self.a.clone().narrow(0, i * r, r), DType::F32);
        let b = cast_to(self.parts[i].b.clone(), DType::F32);
        Some(B::matmul(b, a).mul_scalar(self.scale))
    }
}

fn masked<B: Backend>(x: Tensor<B, 2>, mask: Option<&Tensor<B, 2>>) -> Tensor<B, 2> {
    match mask {
        Some(mask) => x.mul(mask.clone()),
        None => x,
    }
}

/// Shows a visitor the matrices of adapters alone.
pub struct AdaptersOnly<'a, V>(pub &'a mut V);

impl<B: Backend, V: ParamVisitor<B>> ParamVisitor<B> for AdaptersOnly<'_, V> {
    const REPLACES: bool = V::REPLACES;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        if adapted_module(name).is_some() {
            self.0.visit(name, shard, tensor);
        }
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], shards: &[Shard], tensor: &mut Tensor<B, D>) {
        // A stack is of one kind.
        if parts.first().is_some_and(|part| adapted_module(&part.name).is_some()) {
            self.0.visit_stack(parts, shards, tensor);
        }
    }
}
