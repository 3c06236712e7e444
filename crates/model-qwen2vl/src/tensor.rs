//! Tensor parallelism: ranks that share one decoder out, as Megatron-LM does (arXiv 1909.08053).
//!
//! | parameters | a rank holds |
//! |---|---|
//! | `q_proj`, `gate_proj`, `up_proj` | rows: its heads, its part of the MLP's inside |
//! | `k_proj`, `v_proj` | rows: its heads; with more ranks than heads, one head, which other ranks hold too |
//! | `o_proj`, `down_proj` | columns |
//! | `embed_tokens`, `lm_head` | rows: its ids |
//! | norms, the vision tower | all |
//!
//! All ranks of the group make the same calls with the same batches: the same prompts and responses, in the same order.
//! Hidden states, log-probs, sampled ids and the gradients of hidden states are the same on all of them, bit for bit.
//! The tower is not shared out but its pictures are: each rank computes some, and all get the features of all.
//!
//! Adapters of a layer (LoRA) are cut as it is: `B` where its outputs are, `A` where its inputs are; the other matrix
//! is on all ranks.
//!
//! After a backward each rank has the whole gradient of what it holds, so that copies have equal ones. Of some
//! parameters a rank computes a part, by its own pictures or heads: these are summed before they are added to the
//! others, those of the tower, of the norms of queries and keys and of adapters' matrices that all have over the group,
//! those of key/value heads over the ranks with copies.

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::Ranks;
use kernels::head::VocabShards;
use kernels::layers::{BlockShape, QK_NAMES, TransformerBlock, adapted_module};
use kernels::{Gradients, Kernels, ParamVisitor, Shard, StackPart, collective};
use policy::ModelError;

use crate::config::TextConfig;
use crate::decoder::{EMBED, LM_HEAD};

/// The ranks that share a decoder out, and what this one has of it.
#[derive(Debug, Clone)]
pub struct TensorParallel {
    ranks: Ranks,
    /// Those that hold the same key/value heads as this one.
    copies: Ranks,
    rank: usize,
    size: usize,
    /// Parts that the key/value heads are cut into: `size`, or one for each head.
    kv_parts: usize,
    /// Heads of this rank.
    shape: BlockShape,
    /// Width of this rank's part of the MLP.
    wide: usize,
    vocab_size: usize,
    vocab: Option<VocabShards>,
}

/// How ranks share a parameter out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum TensorCut {
    Nothing,
    Rows,
    KvRows,
    Columns,
    Vocabulary,
}

impl TensorCut {
    fn of(name: &str) -> Self {
        if name == EMBED || name == LM_HEAD {
            return Self::Vocabulary;
        }
        if let Some((module, is_b)) = adapted_module(name) {
            return match Self::of_module(module) {
                Self::Columns if is_b => Self::Nothing,
                Self::Rows | Self::KvRows if !is_b => Self::Nothing,
                cut => cut,
            };
        }
        name.rsplit_once('.').map_or(Self::Nothing, |(module, _)| Self::of_module(module))
    }

    /// How the weight and bias of a layer are shared out.
    fn of_module(module: &str) -> Self {
        match module.rsplit('.').next().filter(|_| module.starts_with("model.layers.")) {
            Some("q_proj" | "gate_proj" | "up_proj") => Self::Rows,
            Some("k_proj" | "v_proj") => Self::KvRows,
            Some("o_proj" | "down_proj") => Self::Columns,
            _ => Self::Nothing,
        }
    }
}

impl TensorParallel {
    /// One rank that has the whole decoder.
    pub fn solo(text: &TextConfig) -> Self {
        Self::part(text, 0, 1)
    }

    /// All `ranks` call this, with the same `text`.
    ///
    /// # Errors
    /// [`ModelError::Input`] with the numbers of ranks that are possible, on all ranks alike.
    ///
    /// # Panics
    /// Where a rank is gone: see [`collective`].
    pub fn new(text: &TextConfig, ranks: &Ranks) -> Result<Self, ModelError> {
        let shapes = Self::shapes(text, ranks.rank(), ranks.size())?;
        if ranks.is_solo() {
            return Ok(shapes);
        }
        let part = shapes.rank / shapes.copies();
        let copies = if shapes.copies() == 1 { Ranks::solo() } else { collective::done(ranks.split("copies", part)) };
        let vocab = Some(VocabShards::new(text.vocab_size, ranks.clone()));
        Ok(Self { ranks: ranks.clone(), copies, vocab, ..shapes })
    }

    /// What rank `rank` of `size` holds, for one who counts: nothing can be computed with it, since it knows no other
    /// rank.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shapes(text: &TextConfig, rank: usize, size: usize) -> Result<Self, ModelError> {
        if fits(text, size) {
            return Ok(Self::part(text, rank, size));
        }
        let allowed: Vec<String> =
            (1..=text.num_attention_heads).filter(|&size| fits(text, size)).map(|size| size.to_string()).collect();
        Err(ModelError::Input(format!(
            "{size} ranks cannot share out a decoder of {} heads, {} key/value heads and an MLP of {}: \
             parallel.tensor can be {}",
            text.num_attention_heads,
            text.num_key_value_heads,
            text.intermediate_size,
            allowed.join(", ")
        )))
    }

    fn part(text: &TextConfig, rank: usize, size: usize) -> Self {
        let kv_parts = size.min(text.num_key_value_heads);
        let shape = BlockShape {
            heads: text.num_attention_heads / size,
            kv_heads: text.num_key_value_heads / kv_parts,
            head_dim: text.head_dim,
        };
        let (wide, vocab_size) = (text.intermediate_size / size, text.vocab_size);
        let [ranks, copies] = [Ranks::solo(), Ranks::solo()];
        Self { ranks, copies, rank, size, kv_parts, shape, wide, vocab_size, vocab: None }
    }

    /// The ranks.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Heads of this rank.
    pub(crate) fn shape(&self) -> BlockShape {
        self.shape
    }

    /// Width of this rank's part of the MLP.
    pub(crate) fn wide(&self) -> usize {
        self.wide
    }

    /// Who has which ids; none alone.
    pub(crate) fn vocab(&self) -> Option<&VocabShards> {
        self.vocab.as_ref()
    }

    /// Ids of this rank.
    pub(crate) fn ids(&self) -> std::ops::Range<usize> {
        VocabShards::nth(self.vocab_size, self.rank, self.size)
    }

    /// Ranks that hold the same key/value heads.
    fn copies(&self) -> usize {
        self.size / self.kv_parts
    }

    /// Which part of the parameter `name` this rank holds; `shape` is the part's.
    pub fn shard(&self, name: &str, shape: &[usize]) -> Shard {
        let nth = |axis: usize, index: usize, parts: usize| {
            let mut shard = Shard::whole(shape);
            shard.axis = axis;
            if let Some(extent) = shard.shape.get_mut(axis) {
                shard.range = index * *extent..(index + 1) * *extent;
                *extent *= parts;
            }
            shard
        };
        match TensorCut::of(name) {
            TensorCut::Nothing => Shard { first: self.rank == 0, ..Shard::whole(shape) },
            TensorCut::Rows => nth(0, self.rank, self.size),
            TensorCut::Columns => nth(1, self.rank, self.size),
            TensorCut::KvRows => {
                let first = self.rank.is_multiple_of(self.copies());
                Shard { first, ..nth(0, self.rank / self.copies(), self.kv_parts) }
            }
            TensorCut::Vocabulary => {
                let mut whole = shape.to_vec();
                whole[0] = self.vocab_size;
                Shard { range: self.ids(), ..Shard::whole(&whole) }
            }
        }
    }

    /// The ranks whose sum is the gradient of the parameter `name`; none where each has all of it.
    fn partial(&self, name: &str) -> Option<&Ranks> {
        let norm = name.rsplit('.').nth(1).is_some_and(|module| QK_NAMES.contains(&module));
        match TensorCut::of(name) {
            TensorCut::KvRows => Some(&self.copies),
            TensorCut::Nothing if norm || name.starts_with("visual.") || adapted_module(name).is_some() => {
                Some(&self.ranks)
            }
            _ => None,
        }
        .filter(|ranks| !ranks.is_solo())
    }
}

/// Whether so many ranks can share out this decoder.
fn fits(text: &TextConfig, size: usize) -> bool {
    let kv = text.num_key_value_heads;
    size > 0
        && text.num_attention_heads.is_multiple_of(size)
        && text.intermediate_size.is_multiple_of(size)
        && (kv.is_multiple_of(size) || size.is_multiple_of(kv))
        && size <= text.vocab_size
}

/// Tells a visitor which parts of the parameters the layers' tensors are.
pub(crate) struct PlacedVisitor<'a, V> {
    pub(crate) tensor: &'a TensorParallel,
    pub(crate) visitor: &'a mut V,
}

impl<B: Backend, V: ParamVisitor<B>> ParamVisitor<B> for PlacedVisitor<'_, V> {
    const REPLACES: bool = V::REPLACES;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        self.visitor.visit(name, &self.tensor.shard(name, &shard.shape), tensor);
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], shards: &[Shard], tensor: &mut Tensor<B, D>) {
        let placed = |(part, shard): (&StackPart, &Shard)| self.tensor.shard(&part.name, &shard.shape);
        let shards: Vec<Shard> = parts.iter().zip(shards).map(placed).collect();
        self.visitor.visit_stack(parts, &shards, tensor);
    }
}

/// A parameter of whose gradient a backward computes a part: name, elements of what this rank holds, and the ranks with
/// the other parts.
struct PartialGradient<B: Backend> {
    name: String,
    len: usize,
    device: B::Device,
    ranks: Ranks,
}

/// Lists them.
struct PartialGradients<'a, B: Backend> {
    tensor: &'a TensorParallel,
    /// Where adapters alone learn.
    adapters_only: bool,
    found: Vec<PartialGradient<B>>,
}

impl<B: Backend> ParamVisitor<B> for PartialGradients<'_, B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        let learns = !self.adapters_only || adapted_module(name).is_some();
        if let Some(ranks) = self.tensor.partial(name).filter(|_| learns) {
            let (len, device) = (tensor.shape().num_elements(), tensor.device());
            self.found.push(PartialGradient { name: name.to_string(), len, device, ranks: ranks.clone() });
        }
    }
}

/// Something with parameters and a backward: a layer, the tower.
pub(crate) trait Trained<B: Backend>: Clone {
    /// Shows its parameters, named as in its backward.
    fn show(&mut self, prefix: &str, visitor: &mut impl ParamVisitor<B>);
}

impl<B: Kernels> Trained<B> for TransformerBlock<B> {
    fn show(&mut self, prefix: &str, visitor: &mut impl ParamVisitor<B>) {
        self.visit(prefix, visitor);
    }
}

impl TensorParallel {
    /// Does `backward` of `of`, all of whose gradients it adds to `grads` whole. All ranks call this, those too whose
    /// own `backward` adds nothing.
    pub(crate) fn completing<B: Kernels, T>(
        &self,
        of: &impl Trained<B>,
        prefix: &str,
        grads: &mut Gradients<B>,
        backward: impl FnOnce(&mut Gradients<B>) -> T,
    ) -> T {
        let adapters_only = grads.adapters_only();
        let mut partial = PartialGradients { tensor: self, adapters_only, found: Vec::new() };
        if !self.ranks.is_solo() {
            of.clone().show(prefix, &mut partial);
        }
        if partial.found.is_empty() {
            return backward(grads);
        }
        let mut own = Gradients::default();
        own.set_adapters_only(adapters_only);
        let done = backward(&mut own);
        for PartialGradient { name, len, device, ranks } in partial.found {
            let part = own.remove(&name).unwrap_or_else(|| Tensor::zeros([len], (&device, DType::F32)));
            own.add(&name, collective::sum(part, &ranks, "partial gradients"));
        }
        grads.absorb(own);
        done
    }
}
