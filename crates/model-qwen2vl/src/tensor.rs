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
//! After a backward the gradients of what a rank holds alone are complete. Those of the tower, of the norms of queries
//! and keys and of key/value heads with copies are sums of which each rank has its own pictures' and heads' part, until
//! [`QwenVl::complete_gradients`].

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;
use kernels::head::VocabShards;
use kernels::layers::{BlockShape, QK_NAMES};
use kernels::{Gradients, Kernels, ParamVisitor, Shard, StackPart, collective};
use policy::ModelError;

use crate::config::TextConfig;
use crate::decoder::{EMBED, LM_HEAD};
use crate::model::QwenVl;

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
enum Cut {
    Nothing,
    Rows,
    KvRows,
    Columns,
    Vocabulary,
}

impl Cut {
    fn of(name: &str) -> Self {
        if name == EMBED || name == LM_HEAD {
            return Self::Vocabulary;
        }
        let module = name.rsplit('.').nth(1);
        match module.filter(|_| name.starts_with("model.layers.")) {
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
        match Cut::of(name) {
            Cut::Nothing => Shard { first: self.rank == 0, ..Shard::whole(shape) },
            Cut::Rows => nth(0, self.rank, self.size),
            Cut::Columns => nth(1, self.rank, self.size),
            Cut::KvRows => {
                let first = self.rank.is_multiple_of(self.copies());
                Shard { first, ..nth(0, self.rank / self.copies(), self.kv_parts) }
            }
            Cut::Vocabulary => {
                let mut whole = shape.to_vec();
                whole[0] = self.vocab_size;
                Shard { range: self.ids(), ..Shard::whole(&whole) }
            }
        }
    }

    /// The ranks whose sum is the gradient of the parameter `name`; none where each has all of it.
    fn partial(&self, name: &str) -> Option<&Ranks> {
        let norm = name.rsplit('.').nth(1).is_some_and(|module| QK_NAMES.contains(&module));
        match Cut::of(name) {
            Cut::KvRows => Some(&self.copies),
            Cut::Nothing if norm || name.starts_with("visual.") => Some(&self.ranks),
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
pub(crate) struct Placed<'a, V> {
    pub(crate) tensor: &'a TensorParallel,
    pub(crate) visitor: &'a mut V,
}

impl<B: Backend, V: ParamVisitor<B>> ParamVisitor<B> for Placed<'_, V> {
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

/// Parameters whose gradients are sums over ranks: name, elements of this rank's part, the ranks.
struct Partial<'a>(&'a TensorParallel, Vec<(String, usize, Ranks)>);

impl<B: Backend> ParamVisitor<B> for Partial<'_> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        if let Some(ranks) = self.0.partial(name) {
            self.1.push((name.to_string(), tensor.shape().num_elements(), ranks.clone()));
        }
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Sums the gradients of which several ranks have a part, so that each rank has the whole gradient of what it holds:
    /// those of the vision tower and of the norms of queries and keys over all ranks, those of key/value heads over the
    /// ranks with copies. All ranks call it once, after the last pass of an update and before anything reads or reduces
    /// `grads`; a second call would sum again. Parameters of which no rank has a gradient get none.
    ///
    /// # Panics
    /// Where a rank is gone or the device fails: see [`collective`].
    pub fn complete_gradients(&self, grads: &mut Gradients<B>) {
        if self.tensor.ranks.is_solo() {
            return;
        }
        let mut partial = Partial(&self.tensor, Vec::new());
        self.clone().visit(&mut partial);
        let has: Vec<bool> = partial.1.iter().map(|(name, ..)| grads.get(name).is_some()).collect();
        let all = collective::done(self.tensor.ranks.gather("names of gradients", &has));
        for (i, (name, len, ranks)) in partial.1.into_iter().enumerate() {
            if all.iter().any(|has| has[i]) {
                let own = grads.remove(&name).unwrap_or_else(|| Tensor::zeros([len], &self.device()));
                grads.add(&name, B::all_reduce(own, &ranks, "gradients of copies"));
            }
        }
    }
}
