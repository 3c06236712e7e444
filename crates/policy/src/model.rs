//! The seam between a model and those who use it, in three parts: what scores, what decodes, and what learns.
//!
//! A model may be shared out over ranks (tensor parallelism). Then all of its ranks make the same calls with the same
//! arguments, in the same order, and get the same results. A call in which a rank is lost does not return: it ends the
//! process by a panic ([`kernels::collective`]).

use std::ops::Range;

use burn::tensor::{Int, Tensor};
use kernels::{Gradients, Kernels, LmHead, ParamVisitor};

use crate::{Companions, Hold, ModelCopy, ModelError, PackGroup, PackedBatch, Prompt, Staged};

/// Where a training forward has its image features from.
#[derive(Debug, Clone)]
pub enum Pictures<'a, B: Kernels> {
    /// From the vision tower, which reads the pictures of these prompts in order and gets gradients.
    Trained(&'a [&'a Prompt]),
    /// Features computed before, `[M, (1 + K) d]`, or none without images: the tower gets no gradients.
    Embedded(Option<Tensor<B, 2>>),
}

/// A model that takes prompts with pictures and scores responses to them.
pub trait Scoring<B: Kernels>: Clone + Send {
    /// A prompt whose group does not fit into one pass, while its responses are scored in parts.
    type Shared;

    /// Where the weights are.
    fn device(&self) -> B::Device;
    /// Checks and positions a prompt for this model. `pixel_values` are the normalised patches of all images,
    /// row-major, and `image_grid_thw` has `[t, h, w]` in patches for each of them.
    ///
    /// # Errors
    /// [`ModelError::Input`] where ids, grids and pixels do not fit each other or the model.
    fn prompt(
        &self,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Prompt, ModelError>;
    /// Whether [`prompt`](Self::prompt) would make this prompt: its fields can be changed by anyone.
    ///
    /// # Errors
    /// [`ModelError::Input`] where ids, positions, grids and pixels do not fit each other or the model.
    fn check_prompt(&self, prompt: &Prompt) -> Result<(), ModelError>;
    /// The prompt without its pictures and the tokens that stand for them; none if nothing is left.
    fn without_images(&self, prompt: &Prompt) -> Option<Prompt>;
    /// Ids of vision tokens, which are never sampled.
    fn vision_token_ids(&self) -> Vec<u32>;
    /// Packs groups without padding.
    fn pack(&self, groups: &[PackGroup]) -> PackedBatch<B>;
    /// Image features `[M, (1 + K) d]` of these prompts in order, none without any pictures: the embeddings of their
    /// `M` image tokens, and what the `K` DeepStack layers add. Wherever `image_embeds` are asked for, it is these.
    fn encode_images(&self, prompts: &[&Prompt]) -> Option<Tensor<B, 2>>;
    /// Final-normed hidden states `[N, d]`.
    fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2>;
    /// The head, whose product with hidden states are the logits, and the name of its gradient.
    fn head(&self) -> (LmHead<'_, B>, &'static str);

    /// Packs some responses of a prompt that is computed apart; rows are numbered as if it came first.
    fn pack_part(&self, prompt: &Prompt, responses: &[&[u32]]) -> PackedBatch<B>;
    /// Computes a prompt for scoring its responses in parts.
    fn share(&self, prompt: &Prompt, image_embeds: Option<Tensor<B, 2>>) -> Self::Shared;
    /// Final-normed hidden states `[P + R, d]` of the prompt and of one part.
    fn hidden_part(&self, shared: &Self::Shared, part: &PackedBatch<B>) -> Tensor<B, 2>;
}

/// A model that continues prompts token by token.
pub trait Decoding<B: Kernels>: Scoring<B> {
    /// Keys and values of rows being decoded.
    type Cache;
    /// Keys and values of prefilled prompts.
    type Kv;

    /// Bytes of the keys and values of one token, in all layers.
    fn kv_bytes(&self) -> usize;
    /// As [`hidden`](Scoring::hidden) for prompts alone, with their keys and values.
    fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, Self::Kv);
    /// An empty cache for responses of at most `max_new_tokens`.
    fn cache(&self, max_new_tokens: usize) -> Self::Cache;
    /// Adds the prompts of a prefilled batch to the cache, each with `n` rows, which come last.
    fn admit(&self, cache: &mut Self::Cache, kv: &Self::Kv, prompts: &[Range<usize>], n: usize);
    /// Drops finished rows as far as possible; the old index of each row that stays. `keep` has one flag per row.
    fn compact(&self, cache: &mut Self::Cache, keep: &[bool]) -> Vec<usize>;
    /// One token more for every row: ids and positions `[S]` to final-normed hidden states `[S, d]`.
    fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut Self::Cache) -> Tensor<B, 2>;
}

/// A model whose parameters learn, by a backward pass of its own. It computes all gradients but the head's, which come
/// with those of the hidden states out of [`kernels::head`].
pub trait Learning<B: Kernels>: Scoring<B> {
    /// What a training forward keeps for its backward.
    type Tape;
    /// A prompt whose group does not fit into one pass, while its responses are trained on in parts.
    type Trained;
    /// What the training forward of a part keeps for its backward.
    type PartTape;

    /// The training forward: hidden states `[N, d]` and what the backward needs. With `recompute` it keeps the layers'
    /// inputs only, and the backward computes the rest again.
    fn forward_saving(
        &self,
        batch: &PackedBatch<B>,
        pictures: Pictures<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::Tape);
    /// Adds the gradients of all parameters but the head's for `d_hidden [N, d]`.
    fn backward(&self, tape: Self::Tape, batch: &PackedBatch<B>, d_hidden: Tensor<B, 2>, grads: &mut Gradients<B>);

    /// Computes a prompt for training on its responses in parts; ends with [`backward_shared`](Self::backward_shared).
    fn share_saving(&self, prompt: &Prompt, pictures: Pictures<B>, recompute: bool) -> Self::Trained;
    /// The training forward of a [part](Scoring::pack_part): hidden states `[P + R, d]` and what its backward needs.
    fn forward_saving_part(
        &self,
        prompt: &Self::Trained,
        part: &PackedBatch<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::PartTape);
    /// Adds the gradients of a part's own tokens but the head's for `d_hidden [P + R, d]`; the prompt's share waits in
    /// `prompt`.
    fn backward_part(
        &self,
        tape: Self::PartTape,
        prompt: &mut Self::Trained,
        part: &PackedBatch<B>,
        d_hidden: Tensor<B, 2>,
        grads: &mut Gradients<B>,
    );
    /// Adds the gradients of the prompt after all of its parts.
    fn backward_shared(&self, prompt: Self::Trained, grads: &mut Gradients<B>);

    /// Shows every parameter that learns to `visitor`, in a fixed order; of those that ranks share out, this rank's
    /// part.
    fn visit_params(&mut self, visitor: &mut impl ParamVisitor<B>);
    /// Whether anything in the vision tower learns, unless it is frozen by the run.
    fn trains_vision(&self) -> bool {
        true
    }
    /// Says that the passes of one optimizer step follow, and names their random numbers: what they drop.
    fn begin_update(&mut self, seed: u64) {
        let _ = seed;
    }
    /// What this rank has to write of what was learned, a Hugging Face folder with the weights or adapters alone as
    /// PEFT has them: files that nothing changes any more, whatever is learned afterwards. The tensors of weights are
    /// dealt out by bytes over the ranks of all copies of the model; the first one has the tokenizer and processor
    /// files of `companions`, too. The ranks that share this copy out all call this.
    ///
    /// # Errors
    /// [`ModelError::Device`] for a device that cannot be read; ranks that are gone.
    fn stage(&self, companions: Option<&Companions>, copy: ModelCopy, hold: Hold) -> Result<Staged, ModelError>;
    /// The same of all weights, with what adapters add to them.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    fn stage_merged(&self, companions: Option<&Companions>, copy: ModelCopy, hold: Hold) -> Result<Staged, ModelError> {
        self.stage(companions, copy, hold)
    }
    /// Bytes that one packed token's activations take if no layer is computed again.
    fn activation_bytes(&self) -> usize;
}

/// A model that can be sampled from and trained.
pub trait Policy<B: Kernels>: Decoding<B> + Learning<B> {}

impl<B: Kernels, P: Decoding<B> + Learning<B>> Policy<B> for P {}
