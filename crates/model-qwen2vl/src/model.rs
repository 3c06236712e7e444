//! The whole model over packed batches: one forward for scoring, prefill and training, and its backward.

use burn::tensor::{Int, Tensor, backend::Backend};
use kernels::attention::decode::{DecodeCache, Prefill, PromptKv};
use kernels::attention::mass::{self, AttentionMass, Looker, MassMeter};
use kernels::attention::packed::{KvGradients, Packed};
pub use kernels::host::int_tensor;
use kernels::layers::Attend;
use kernels::{DeviceError, Gradients, Kernels, LmHead, ParamVisitor};
pub use policy::{PackedBatch, Pictures, Prompt};

use crate::config::QwenVlConfig;
use crate::decoder::{Decoder, DecoderSaved, Deep, DeepGradients};
use crate::lora::Adapters;
pub use crate::pictures::Images;
use crate::pictures::{DealtImages, PicturesTape};
use crate::tensor::{PlacedVisitor, TensorParallel};
use crate::vision::{VisionTower, columns};

/// A model of any of the [families](crate::config::FAMILIES).
#[derive(Debug, Clone)]
pub struct QwenVl<B: Backend> {
    /// The architecture.
    pub config: QwenVlConfig,
    pub(crate) visual: VisionTower<B>,
    pub(crate) decoder: Decoder<B>,
    /// What is known of its adapters, where it has any: then they alone learn.
    pub(crate) adapters: Option<Adapters>,
}

/// What a training forward keeps.
pub struct Tape<B: Backend> {
    pub(crate) decoder: DecoderSaved<B>,
    vision: Option<PicturesTape<B>>,
}

impl<B: Kernels> QwenVl<B> {
    /// The device that holds the weights.
    pub fn device(&self) -> B::Device {
        self.decoder.embed.device()
    }

    /// What the decoder takes of images: features `[M, (1 + K) d]`, the embeddings of their tokens and, for each of `K`
    /// DeepStack layers, what is added behind it. Handed on as a whole, wherever `image_embeds` are asked for. Ranks
    /// that share the decoder out compute all of them each; [`Scoring::encode_images`](policy::Scoring::encode_images)
    /// deals them out.
    pub fn encode_images(&self, images: &Images<B>) -> Tensor<B, 2> {
        self.visual.forward(images.pixels.clone(), &images.plan)
    }

    /// The features of the images of these prompts in order, none without any: each rank computes some of them.
    pub(crate) fn encode_dealt(&self, prompts: &[&Prompt]) -> Option<Tensor<B, 2>> {
        let images = DealtImages::new(&self.config, prompts, self.decoder.tensor.ranks(), &self.device())?;
        Some(images.features(&self.visual))
    }

    /// The embeddings `[M, d]` among the features of [`encode_images`](Self::encode_images).
    pub fn embeddings_of(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.config.vision.deepstack.is_empty() {
            true => features,
            false => features.narrow(1, 0, self.config.text.hidden_size),
        }
    }

    /// The head's matrix `[V, d]`, or this rank's rows of it, and its parameter name.
    pub fn head(&self) -> (LmHead<'_, B>, &'static str) {
        let (weight, name) = self.decoder.head();
        (LmHead { weight, shared: self.decoder.tensor.vocab(), frozen: self.adapters.is_some() }, name)
    }

    /// The ranks that share the decoder out.
    pub fn tensor_parallel(&self) -> &TensorParallel {
        &self.decoder.tensor
    }

    /// Logits `[M, V]` of hidden states `[M, d]`. For a few rows only: the training path uses [`kernels::head`].
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head().0.logits(hidden)
    }

    /// Embedded tokens `[N, d]`, and what is added behind the first layers.
    pub(crate) fn embed(
        &self,
        batch: &PackedBatch<B>,
        features: Option<Tensor<B, 2>>,
    ) -> (Tensor<B, 2>, Option<Deep<B>>) {
        let x = self.decoder.embed_rows(batch.ids.clone(), |table, ids| table.clone().select(0, ids));
        let (Some(images), Some(features)) = (&batch.images, features) else { return (x, None) };
        let deep = !self.config.vision.deepstack.is_empty();
        let deep = deep.then(|| Deep {
            rows: images.image_rows.clone(),
            features: features.clone(),
            width: self.config.text.hidden_size,
        });
        let all = Tensor::cat(vec![x, self.embeddings_of(features)], 0);
        (all.select(0, images.source.clone()), deep)
    }

    /// The decoder over a packed batch, with attention left to `attend`.
    fn decoded(
        &self,
        batch: &PackedBatch<B>,
        features: Option<Tensor<B, 2>>,
        attend: &mut impl Attend<B>,
    ) -> Tensor<B, 2> {
        let (x, deep) = self.embed(batch, features);
        self.decoder.forward(x, deep.as_ref(), attend)
    }

    /// Final-normed hidden states `[N, d]` of a packed batch with the features `[M, (1 + K) d]` of its images.
    pub fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        self.decoded(batch, image_embeds, &mut batch.packed())
    }

    /// As [`hidden`](Self::hidden), with the last layer's attention of every response on image, prompt text and
    /// generated text.
    ///
    /// # Errors
    /// A device that cannot be read.
    pub fn hidden_with_attention(
        &self,
        batch: &PackedBatch<B>,
        image_embeds: Option<Tensor<B, 2>>,
    ) -> Result<(Tensor<B, 2>, Vec<AttentionMass>), DeviceError> {
        let lookers = batch
            .responses
            .iter()
            .map(|r| {
                let prompt = batch.prompts[r.prompt].clone();
                let images = batch.image_rows.iter().copied().filter(|i| prompt.contains(i)).collect();
                Looker { rows: r.rows.clone(), prompt, images }
            })
            .collect();
        let last = self.config.text.num_hidden_layers - 1;
        let mut measure = MassMeter { plan: &batch.plan, rotary: &batch.rotary, last, lookers, masses: Vec::new() };
        let hidden = self.decoded(batch, image_embeds, &mut measure);
        Ok((hidden, mass::read(measure.masses)?))
    }

    /// As [`hidden`](Self::hidden) for prompts alone, with the keys and values of every layer.
    pub fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, PromptKv<B>) {
        let mut prefill = Prefill { plan: &batch.plan, rotary: &batch.rotary, kv: Vec::new(), dropout: None };
        let hidden = self.decoded(batch, image_embeds, &mut prefill);
        (hidden, prefill.kv)
    }

    /// An empty cache for responses of at most `max_new_tokens`.
    pub fn cache(&self, max_new_tokens: usize) -> DecodeCache<B> {
        DecodeCache::new(self.config.text.rope(), max_new_tokens)
    }

    /// One token more for every row of the cache: ids and positions `[S]` to final-normed hidden states `[S, d]`.
    pub fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut DecodeCache<B>) -> Tensor<B, 2> {
        let x = self.decoder.embed_rows(ids, B::take_rows);
        let hidden = self.decoder.forward(x, None, &mut cache.step(positions, &self.device()));
        cache.advance();
        hidden
    }

    /// The training forward: hidden states `[N, d]` and what the backward needs.
    pub fn forward_saving(
        &self,
        batch: &PackedBatch<B>,
        pictures: Pictures<B>,
        recompute: bool,
    ) -> (Tensor<B, 2>, Tape<B>) {
        self.forward_keeping(batch, pictures, recompute, None)
    }

    /// As [`forward_saving`](Self::forward_saving); keys and values of every layer go to `kv`, if it is there.
    pub(crate) fn forward_keeping(
        &self,
        batch: &PackedBatch<B>,
        pictures: Pictures<B>,
        recompute: bool,
        kv: Option<&mut PromptKv<B>>,
    ) -> (Tensor<B, 2>, Tape<B>) {
        let (features, vision) = match pictures {
            Pictures::Trained(prompts) => {
                DealtImages::new(&self.config, prompts, self.decoder.tensor.ranks(), &self.device())
                    .map(|images| images.features_saving(&self.visual, recompute))
                    .unzip()
            }
            Pictures::Embedded(features) => (features, None),
        };
        let (x, deep) = self.embed(batch, features);
        let (hidden, decoder) = self.decoder.forward_saving(x, deep.as_ref(), self.packed(batch), recompute, kv);
        (hidden, Tape { decoder, vision })
    }

    /// Adds the gradients of all parameters but the head's for `d_hidden [N, d]`.
    pub fn backward(&self, tape: Tape<B>, batch: &PackedBatch<B>, d_hidden: Tensor<B, 2>, grads: &mut Gradients<B>) {
        self.backward_with(tape, batch, d_hidden, &mut KvGradients::default(), grads);
    }

    /// As [`backward`](Self::backward), with what parts of the group added to the gradients of keys and values.
    pub(crate) fn backward_with(
        &self,
        tape: Tape<B>,
        batch: &PackedBatch<B>,
        d_hidden: Tensor<B, 2>,
        kv: &mut KvGradients<B>,
        grads: &mut Gradients<B>,
    ) {
        grads.set_adapters_only(self.adapters.is_some());
        // Behind the first layers, only a tower that gets gradients asks for any.
        let mut deep = tape.vision.as_ref().zip(batch.images.as_ref()).map(|(_, images)| DeepGradients {
            rows: images.image_rows.clone(),
            layers: self.config.vision.deepstack.len(),
            gradients: Vec::new(),
        });
        let dx = self.decoder.backward(tape.decoder, self.packed(batch), d_hidden, deep.as_mut(), kv, grads);
        match &batch.images {
            None => self.decoder.embed_backward(batch.ids.clone(), dx, grads),
            Some(images) => {
                let d_text = dx.clone().select(0, images.text_rows.clone());
                self.decoder.embed_backward(images.text_ids.clone(), d_text, grads);
                if let Some(pictures) = tape.vision {
                    let mut d_features = vec![dx.select(0, images.image_rows.clone())];
                    d_features.extend(deep.into_iter().flat_map(|deep| deep.gradients.into_iter().rev()));
                    let backward = |grads: &mut _| pictures.backward(&self.visual, columns(d_features), grads);
                    self.decoder.tensor.completing(&self.visual, "visual", grads, backward);
                }
            }
        }
        // Pages of a GPU's memory that this pass filled: one of another length would not fit into them.
        B::memory_cleanup(&self.device());
    }

    /// The tokens of a batch in training, with what adapters drop.
    pub(crate) fn packed<'a>(&self, batch: &'a PackedBatch<B>) -> Packed<'a, B> {
        let dropout = self.adapters.as_ref().and_then(|adapters| adapters.dropout(&batch.keys));
        Packed { dropout, ..batch.packed() }
    }

    /// Shows every parameter to `visitor`, in a fixed order: this rank's parts of those that ranks share out.
    pub fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        let tensor = self.decoder.tensor.clone();
        let mut placed = PlacedVisitor { tensor: &tensor, visitor };
        self.visual.visit(&mut placed);
        self.decoder.visit(&mut placed);
    }
}
