//! What makes of [`QwenVl`] a [`Policy`](policy::Policy).

use std::ops::Range;

use burn::tensor::{Int, Tensor};
use kernels::attention::decode::{DecodeCache, PromptKv};
use kernels::layers::AdaptersOnly;
use kernels::{Gradients, Kernels, LmHead, ParamVisitor};
use policy::{
    Companions, Decoding, Hold, Learning, ModelCopy, ModelError, PackGroup, PackedBatch, Pictures, Prompt, Scoring,
    Staged,
};

use crate::QwenVl;
use crate::model::Tape;
use crate::shared::{PartTape, SharedPrompt, TrainedPrompt};

impl<B: Kernels> Scoring<B> for QwenVl<B> {
    type Shared = SharedPrompt<B>;

    fn device(&self) -> B::Device {
        self.device()
    }
    fn prompt(
        &self,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Prompt, ModelError> {
        self.config.prompt(input_ids, pixel_values, image_grid_thw)
    }
    fn check_prompt(&self, prompt: &Prompt) -> Result<(), ModelError> {
        self.config.check_prompt(prompt)
    }
    fn without_images(&self, prompt: &Prompt) -> Option<Prompt> {
        self.config.without_images(prompt)
    }
    fn vision_token_ids(&self) -> Vec<u32> {
        self.config.vision_token_ids()
    }
    fn pack(&self, groups: &[PackGroup]) -> PackedBatch<B> {
        PackedBatch::new(&self.config, groups, &self.device())
    }
    fn encode_images(&self, prompts: &[&Prompt]) -> Option<Tensor<B, 2>> {
        self.encode_dealt(prompts)
    }
    fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        self.hidden(batch, image_embeds)
    }
    fn head(&self) -> (LmHead<'_, B>, &'static str) {
        self.head()
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
}

impl<B: Kernels> Decoding<B> for QwenVl<B> {
    type Cache = DecodeCache<B>;
    type Kv = PromptKv<B>;

    fn kv_bytes(&self) -> usize {
        let shape = self.decoder.tensor.shape();
        2 * shape.kv_heads * shape.head_dim * self.config.text.num_hidden_layers * self.decoder.embed.dtype().size()
    }
    fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, Self::Kv) {
        self.prefill(batch, image_embeds)
    }
    fn cache(&self, max_new_tokens: usize) -> Self::Cache {
        self.cache(max_new_tokens)
    }
    fn admit(&self, cache: &mut Self::Cache, kv: &Self::Kv, prompts: &[Range<usize>], n: usize) {
        cache.add_lane(kv, prompts, n);
    }
    fn compact(&self, cache: &mut Self::Cache, keep: &[bool]) -> Vec<usize> {
        cache.compact(keep)
    }
    fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut Self::Cache) -> Tensor<B, 2> {
        self.decode(ids, positions, cache)
    }
}

impl<B: Kernels> Learning<B> for QwenVl<B> {
    type Tape = Tape<B>;
    type Trained = TrainedPrompt<B>;
    type PartTape = PartTape<B>;

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
    fn visit_params(&mut self, visitor: &mut impl ParamVisitor<B>) {
        match self.adapters {
            None => self.visit(visitor),
            Some(_) => self.visit(&mut AdaptersOnly(visitor)),
        }
    }
    fn trains_vision(&self) -> bool {
        self.adapters.as_ref().is_none_or(|adapters| adapters.tower)
    }
    fn begin_update(&mut self, seed: u64) {
        if let Some(adapters) = &mut self.adapters {
            adapters.seed = seed;
        }
    }
    fn stage(&self, companions: Option<&Companions>, copy: ModelCopy, hold: Hold) -> Result<Staged, ModelError> {
        match &self.adapters {
            None => self.stage(companions, copy, hold),
            Some(adapters) => self.stage_adapter(adapters, companions, copy, hold),
        }
    }
    fn stage_merged(&self, companions: Option<&Companions>, copy: ModelCopy, hold: Hold) -> Result<Staged, ModelError> {
        self.stage(companions, copy, hold)
    }
    fn activation_bytes(&self) -> usize {
        let (t, shape) = (&self.config.text, self.decoder.tensor.shape());
        let (query, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        // x, h1, x_mid and h2; q and o; k and v; gate and up; q and k before their norms
        let mut widths = 4 * t.hidden_size + 2 * query + 2 * kv + 2 * self.decoder.tensor.wide();
        if t.qk_norm {
            widths += query + kv;
        }
        widths * t.num_hidden_layers * self.decoder.embed.dtype().size()
    }
}
