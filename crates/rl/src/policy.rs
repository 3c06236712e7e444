//! What the trainer needs from a model: the seam between `rl` and an architecture.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use model_qwen2vl::attention::decode::{DecodeCache, PromptKv};
use model_qwen2vl::model::{Images, PackedBatch, Pictures, Prompt, Tape};
use model_qwen2vl::save::Companions;
use model_qwen2vl::shared::{PartTape, SharedPrompt, TrainedPrompt};
use model_qwen2vl::{Gradients, Kernels, ModelError, ParamVisitor, QwenVl};

/// A group to pack: a prompt and the token ids of some of its responses.
pub type PackGroup<'a> = (&'a Prompt, Vec<&'a [u32]>);

/// A policy over packed groups. `N` packed tokens, `S` rows being decoded, `d` hidden size, `V` vocabulary.
pub trait Policy<B: Kernels>: Clone + Send {
    /// What a training forward keeps for its backward.
    type Tape;
    /// A prompt whose group does not fit into one pass, while its responses are scored in parts.
    type Shared;
    /// The same in training.
    type Trained;
    /// What the training forward of a part keeps for its backward.
    type PartTape;
    /// Keys and values of rows being decoded.
    type Cache;
    /// Keys and values of prefilled prompts.
    type Kv;

    /// Where the weights are.
    fn device(&self) -> B::Device;
    /// Packs groups without padding.
    fn pack(&self, groups: &[PackGroup]) -> PackedBatch<B>;
    /// The pictures of these prompts; none without any.
    fn images(&self, prompts: &[&Prompt]) -> Option<Images<B>>;
    /// Image features `[M, (1 + K) d]`: embeddings, and what `K` DeepStack layers add. Wherever `image_embeds` are asked for, it is these.
    fn encode_images(&self, images: &Images<B>) -> Tensor<B, 2>;
    /// Final-normed hidden states `[N, d]`.
    fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2>;
    /// The same for prompts alone, with their keys and values.
    fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, Self::Kv);
    /// An empty cache.
    fn cache(&self, max_new_tokens: usize) -> Self::Cache;
    /// Adds the prompts of a prefilled batch to the cache, each with `n` rows.
    fn admit(&self, cache: &mut Self::Cache, kv: &Self::Kv, prompts: &[std::ops::Range<usize>], n: usize);
    /// Drops finished rows as far as possible; the old index of each row that stays.
    fn compact(&self, cache: &mut Self::Cache, keep: &[bool]) -> Vec<usize>;
    /// One token more for every row: hidden states `[S, d]`.
    fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut Self::Cache) -> Tensor<B, 2>;
    /// The training forward.
    fn forward_saving(
        &self,
        batch: &PackedBatch<B>,
        pictures: Pictures<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::Tape);
    /// Adds all gradients but the head's.
    fn backward(&self, tape: Self::Tape, batch: &PackedBatch<B>, d_hidden: Tensor<B, 2>, grads: &mut Gradients<B>);
    /// Packs some responses of a prompt that is computed apart; rows are numbered as if it came first.
    fn pack_part(&self, prompt: &Prompt, responses: &[&[u32]]) -> PackedBatch<B>;
    /// Computes a prompt for scoring in parts.
    fn share(&self, prompt: &Prompt, image_embeds: Option<Tensor<B, 2>>) -> Self::Shared;
    /// Final-normed hidden states `[N, d]` of the prompt and of one part.
    fn hidden_part(&self, shared: &Self::Shared, part: &PackedBatch<B>) -> Tensor<B, 2>;
    /// Computes a prompt for training in parts.
    fn share_saving(&self, prompt: &Prompt, pictures: Pictures<B>, recompute: bool) -> Self::Trained;
    /// The training forward of a part.
    fn forward_saving_part(
        &self,
        prompt: &Self::Trained,
        part: &PackedBatch<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::PartTape);
    /// Adds all gradients of a part's own tokens but the head's.
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
    /// The head's matrix `[V, d]` and the name of its gradient.
    fn head(&self) -> (&Tensor<B, 2>, &'static str);
    /// Shows every parameter to `visitor`.
    fn visit_params(&mut self, visitor: &mut impl ParamVisitor<B>);
    /// Writes the weights as a Hugging Face folder, with the tokenizer and processor files of `companions`.
    ///
    /// # Errors
    /// Weights that are not finite, a device that cannot be read, anything the file system refuses.
    fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError>;
    /// Checks and positions a prompt for this model.
    ///
    /// # Errors
    /// Ids, grids and pixels that do not fit each other or the model.
    fn prompt(
        &self,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Prompt, ModelError>;
    /// The prompt without its pictures and the tokens that stand for them; none if nothing is left.
    fn without_images(&self, prompt: &Prompt) -> Option<Prompt>;
    /// Ids of vision tokens, which are never sampled.
    fn vision_token_ids(&self) -> Vec<u32>;
    /// Bytes that one packed token's activations take if no layer is computed again.
    fn activation_bytes(&self) -> usize;
}

impl<B: Kernels> Policy<B> for QwenVl<B> {
    type Tape = Tape<B>;
    type Shared = SharedPrompt<B>;
    type Trained = TrainedPrompt<B>;
    type PartTape = PartTape<B>;
    type Cache = DecodeCache<B>;
    type Kv = PromptKv<B>;

    fn device(&self) -> B::Device {
        self.device()
    }
    fn pack(&self, groups: &[PackGroup]) -> PackedBatch<B> {
        PackedBatch::new(&self.config, groups, &self.device())
    }
    fn images(&self, prompts: &[&Prompt]) -> Option<Images<B>> {
        Images::new(&self.config, prompts.iter().copied(), &self.device())
    }
    fn encode_images(&self, images: &Images<B>) -> Tensor<B, 2> {
        self.encode_images(images)
    }
    fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        self.hidden(batch, image_embeds)
    }
    fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, Self::Kv) {
        self.prefill(batch, image_embeds)
    }
    fn cache(&self, max_new_tokens: usize) -> Self::Cache {
        self.cache(max_new_tokens)
    }
    fn admit(&self, cache: &mut Self::Cache, kv: &Self::Kv, prompts: &[std::ops::Range<usize>], n: usize) {
        cache.add_lane(kv, prompts, n);
    }
    fn compact(&self, cache: &mut Self::Cache, keep: &[bool]) -> Vec<usize> {
        cache.compact(keep)
    }
    fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut Self::Cache) -> Tensor<B, 2> {
        self.decode(ids, positions, cache)
    }
    fn forward_saving(
        &self,
        batch: &PackedBatch<B>,
        pictures: Pictures<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::Tape) {
        self.forward_saving(batch, pictures, recompute)
    }
    fn backward(&self, tape: Self::Tape, batch: &PackedBatch<B>, d_hidden: Tensor<B, 2>, grads: &mut Gradients<B>) {
        self.backward(tape, batch, d_hidden, grads);
    }
    fn pack_part(&self, prompt: &Prompt, responses: &[&[u32]]) -> PackedBatch<B> {
        PackedBatch::part(&self.config, prompt, responses, &self.device())
    }
    fn share(&self, prompt: &Prompt, image_embeds: Option<Tensor<B, 2>>) -> Self::Shared {
        self.share(prompt, image_embeds)
    }
    fn hidden_part(&self, shared: &Self::Shared, part: &PackedBatch<B>) -> Tensor<B, 2> {
        self.hidden_part(shared, part)
    }
    fn share_saving(&self, prompt: &Prompt, pictures: Pictures<B>, recompute: bool) -> Self::Trained {
        self.share_saving(prompt, pictures, recompute)
    }
    fn forward_saving_part(
        &self,
        prompt: &Self::Trained,
        part: &PackedBatch<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Self::PartTape) {
        self.forward_saving_part(prompt, part, recompute)
    }
    fn backward_part(
        &self,
        tape: Self::PartTape,
        prompt: &mut Self::Trained,
        part: &PackedBatch<B>,
        d_hidden: Tensor<B, 2>,
        grads: &mut Gradients<B>,
    ) {
        self.backward_part(tape, prompt, part, d_hidden, grads);
    }
    fn backward_shared(&self, prompt: Self::Trained, grads: &mut Gradients<B>) {
        self.backward_shared(prompt, grads);
    }
    fn head(&self) -> (&Tensor<B, 2>, &'static str) {
        self.head()
    }
    fn visit_params(&mut self, visitor: &mut impl ParamVisitor<B>) {
        self.visit(visitor);
    }
    fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        self.save(dir, companions)
    }
    fn prompt(
        &self,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Prompt, ModelError> {
        Prompt::new(&self.config, input_ids, pixel_values, image_grid_thw)
    }
    fn without_images(&self, prompt: &Prompt) -> Option<Prompt> {
        prompt.without_images(&self.config)
    }
    fn vision_token_ids(&self) -> Vec<u32> {
        self.config.vision_token_ids()
    }
    fn activation_bytes(&self) -> usize {
        let t = &self.config.text;
        // x, h1, x_mid and h2; q and o; k and v; gate and up; q and k before their norms
        let mut widths = 4 * t.hidden_size + 2 * t.query_width() + 2 * t.kv_width() + 2 * t.intermediate_size;
        if t.qk_norm {
            widths += t.query_width() + t.kv_width();
        }
        widths * t.num_hidden_layers * self.head().0.dtype().size()
    }
}
