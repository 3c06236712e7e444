//! The whole model over packed batches: one forward for scoring, prefill and training, and its backward.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::attention::decode::{DecodeCache, Prefill, PromptKv};
use crate::attention::mass::{self, AttentionMass, Looker, Measure};
use crate::attention::packed::{KvGradients, Packed};
use crate::attention::{AttentionPlan, Response};
use crate::config::QwenVlConfig;
use crate::decoder::{Decoder, DecoderSaved, Deep, DeepGradients};
use crate::error::ModelError;
use crate::host::DeviceError;
use crate::layers::Attend;
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor};
use crate::rope::{Rotary, mrope_positions, mrope_table, next_position};
use crate::vision::{VisionPlan, VisionSaved, VisionTower, columns};

/// A model of any of the [families](crate::config::FAMILIES).
#[derive(Debug, Clone)]
pub struct QwenVl<B: Backend> {
    /// The architecture.
    pub config: QwenVlConfig,
    pub(crate) visual: VisionTower<B>,
    pub(crate) decoder: Decoder<B>,
}

/// One prompt, ready for the model: ids with expanded image placeholders, positions, pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Token ids `[P]`.
    pub input_ids: Vec<u32>,
    /// M-RoPE positions `[3][P]`.
    pub position_ids: [Vec<i64>; 3],
    /// Normalised patches of all images, row-major `[N, patch_dim]`. Copies of a prompt share them.
    pub pixel_values: Arc<Vec<f32>>,
    /// `[t, h, w]` in patches, one an image.
    pub image_grid_thw: Vec<[usize; 3]>,
}

impl Prompt {
    /// Checks that placeholders, grids and pixels agree and computes the positions.
    ///
    /// # Errors
    /// An empty prompt, an id outside the vocabulary, a video token, or images and placeholders that differ.
    pub fn new(
        config: &QwenVlConfig,
        input_ids: Vec<u32>,
        pixel_values: Vec<f32>,
        image_grid_thw: Vec<[usize; 3]>,
    ) -> Result<Self, ModelError> {
        if input_ids.is_empty() {
            return Err(ModelError::Input("the prompt is empty".into()));
        }
        if let Some(id) = input_ids.iter().find(|&&id| id as usize >= config.text.vocab_size) {
            return Err(ModelError::Input(format!(
                "token id {id} is outside the model's vocabulary of {}; is the tokenizer another model's?",
                config.text.vocab_size
            )));
        }
        let merge = config.vision.spatial_merge_size;
        if let Some([t, h, w]) =
            image_grid_thw.iter().find(|[t, h, w]| t * h * w == 0 || h % merge != 0 || w % merge != 0)
        {
            return Err(ModelError::Input(format!(
                "an image grid of {t} x {h} x {w} patches cannot be merged {merge} x {merge}"
            )));
        }
        let patches: usize = image_grid_thw.iter().map(|g| g.iter().product::<usize>()).sum();
        if patches * config.vision.patch_dim() != pixel_values.len() {
            return Err(ModelError::Input(format!(
                "the image grids need {patches} patches of {} values, {} values were given",
                config.vision.patch_dim(),
                pixel_values.len()
            )));
        }
        let position_ids = mrope_positions(config, &input_ids, &image_grid_thw)?;
        Ok(Self { input_ids, position_ids, pixel_values: Arc::new(pixel_values), image_grid_thw })
    }

    /// The prompt as it is without its pictures: image tokens and the vision start and end around them are gone, and
    /// the positions are those of the text that is left. The chat template writes the same of a message without a
    /// picture, but for text that touches across the gap, which a tokenizer might join. `None` if nothing is left.
    pub fn without_images(&self, config: &QwenVlConfig) -> Option<Self> {
        let vision = config.vision_token_ids();
        let input_ids: Vec<u32> = self.input_ids.iter().copied().filter(|id| !vision.contains(id)).collect();
        if input_ids.is_empty() {
            return None;
        }
        let position_ids = mrope_positions(config, &input_ids, &[]).ok()?;
        Some(Self { input_ids, position_ids, pixel_values: Arc::default(), image_grid_thw: vec![] })
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Whether there are no tokens; never true for a prompt that [`new`](Self::new) made.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }

    /// Indices of the image tokens.
    pub fn image_rows(&self, config: &QwenVlConfig) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.input_ids[i] == config.image_token_id).collect()
    }

    /// Position of the first response token.
    pub fn next_position(&self) -> i64 {
        next_position(&self.position_ids)
    }
}

/// Prompts and their responses, packed without padding: for each group its prompt, then its responses.
#[derive(Debug, Clone)]
pub struct PackedBatch<B: Backend> {
    /// Rows of each prompt.
    pub prompts: Vec<Range<usize>>,
    /// Rows of each response, in the order given.
    pub responses: Vec<Response>,
    /// Rows of image tokens, all prompts together.
    pub image_rows: Vec<usize>,
    /// Packed tokens, `N`.
    pub tokens: usize,
    pub(crate) ids: Tensor<B, 1, Int>,
    pub(crate) rotary: Rotary<B>,
    pub(crate) plan: AttentionPlan<B>,
    /// Where row `i` comes from in `[embedded ids; image embeddings]`, and the split back; none without images.
    merge: Option<Merge<B>>,
}

#[derive(Debug, Clone)]
struct Merge<B: Backend> {
    source: Tensor<B, 1, Int>,
    image_rows: Tensor<B, 1, Int>,
    text_rows: Tensor<B, 1, Int>,
    text_ids: Tensor<B, 1, Int>,
}

/// A tensor of indices.
pub fn int_tensor<B: Backend>(values: impl IntoIterator<Item = usize>, device: &B::Device) -> Tensor<B, 1, Int> {
    let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
    let len = values.len();
    Tensor::from_data(TensorData::new(values, [len]), device)
}

impl<B: Kernels> PackedBatch<B> {
    /// Packs groups of one prompt and any number of (non-empty) responses.
    pub fn new(config: &QwenVlConfig, groups: &[(&Prompt, Vec<&[u32]>)], device: &B::Device) -> Self {
        let (mut prompts, mut responses) = (Vec::new(), Vec::new());
        let mut ids: Vec<usize> = Vec::new();
        let mut positions: [Vec<i64>; 3] = Default::default();
        for (g, (prompt, group)) in groups.iter().enumerate() {
            prompts.push(ids.len()..ids.len() + prompt.len());
            ids.extend(prompt.input_ids.iter().map(|&i| i as usize));
            for (all, own) in positions.iter_mut().zip(&prompt.position_ids) {
                all.extend(own);
            }
            let first = prompt.next_position();
            for response in group {
                responses.push(Response { rows: ids.len()..ids.len() + response.len(), prompt: g });
                ids.extend(response.iter().map(|&i| i as usize));
                for all in &mut positions {
                    all.extend((0..response.len() as i64).map(|t| first + t));
                }
            }
        }
        let image_rows: Vec<usize> =
            prompts.iter().flat_map(|r| r.clone()).filter(|&i| ids[i] == config.image_token_id as usize).collect();
        let merge = (!image_rows.is_empty()).then(|| {
            let mut source: Vec<usize> = (0..ids.len()).collect();
            for (j, &row) in image_rows.iter().enumerate() {
                source[row] = ids.len() + j;
            }
            let text_rows: Vec<usize> = (0..ids.len()).filter(|&i| source[i] == i).collect();
            Merge {
                source: int_tensor(source, device),
                image_rows: int_tensor(image_rows.iter().copied(), device),
                text_ids: int_tensor(text_rows.iter().map(|&i| ids[i]), device),
                text_rows: int_tensor(text_rows, device),
            }
        });
        Self {
            plan: AttentionPlan::causal(&prompts, &responses, device),
            rotary: mrope_table(&config.text, &positions, device),
            tokens: ids.len(),
            ids: int_tensor(ids, device),
            prompts,
            responses,
            image_rows,
            merge,
        }
    }

    /// Responses that continue a prompt which is computed apart from them, see [`SharedPrompt`](crate::shared::SharedPrompt). Rows
    /// are numbered as if the prompt came first.
    pub fn part(config: &QwenVlConfig, prompt: &Prompt, responses: &[&[u32]], device: &B::Device) -> Self {
        let p = prompt.len();
        let ids: Vec<usize> = responses.iter().flat_map(|r| r.iter().map(|&id| id as usize)).collect();
        let mut end = p;
        let responses: Vec<Response> = responses
            .iter()
            .map(|r| {
                end += r.len();
                Response { rows: end - r.len()..end, prompt: 0 }
            })
            .collect();
        let first = prompt.next_position();
        let positions: Vec<i64> = responses.iter().flat_map(|r| (0..r.rows.len() as i64).map(|t| first + t)).collect();
        Self {
            plan: AttentionPlan::continuing(p, &responses, device),
            rotary: mrope_table(&config.text, &[positions.clone(), positions.clone(), positions], device),
            tokens: end,
            ids: int_tensor(ids, device),
            prompts: std::iter::once(0..p).collect(),
            image_rows: prompt.image_rows(config),
            responses,
            merge: None,
        }
    }

    pub(crate) fn packed(&self) -> Packed<'_, B> {
        Packed::new(&self.rotary, &self.plan)
    }

    /// Rows whose hidden state predicts each response token, response by response, and nothing else.
    pub fn predicting_rows(&self) -> Vec<usize> {
        let mut rows = Vec::new();
        for r in &self.responses {
            rows.push(self.prompts[r.prompt].end - 1);
            rows.extend(r.rows.start..r.rows.end - 1);
        }
        rows
    }
}

/// The images of a batch: pixels `[N, patch_dim]` and their plan.
#[derive(Debug, Clone)]
pub struct Images<B: Backend> {
    /// Patches of all images.
    pub pixels: Tensor<B, 2>,
    /// Order, windows, positions.
    pub plan: VisionPlan<B>,
}

impl<B: Backend> Images<B> {
    /// The images of these prompts in order; none if they have none.
    pub fn new<'a>(
        config: &QwenVlConfig,
        prompts: impl IntoIterator<Item = &'a Prompt>,
        device: &B::Device,
    ) -> Option<Self> {
        let (mut values, mut grids) = (Vec::new(), Vec::new());
        for prompt in prompts {
            values.extend_from_slice(&prompt.pixel_values);
            grids.extend_from_slice(&prompt.image_grid_thw);
        }
        if grids.is_empty() {
            return None;
        }
        let dim = config.vision.patch_dim();
        let rows = values.len() / dim;
        Some(Self {
            pixels: Tensor::from_data(TensorData::new(values, [rows, dim]), device),
            plan: VisionPlan::new(&config.vision, &grids, device),
        })
    }
}

/// Where a training forward has its image embeddings from.
#[derive(Debug, Clone)]
pub enum Pictures<'a, B: Backend> {
    /// From the tower, which gets gradients; none without images.
    Trained(Option<&'a Images<B>>),
    /// Features computed before, `[M, (1 + K) d]`: the tower gets no gradients.
    Embedded(Option<Tensor<B, 2>>),
}

/// What a training forward keeps.
pub struct Tape<B: Backend> {
    pub(crate) decoder: DecoderSaved<B>,
    vision: Option<(VisionSaved<B>, VisionPlan<B>)>,
}

impl<B: Kernels> QwenVl<B> {
    /// The device that holds the weights.
    pub fn device(&self) -> B::Device {
        self.decoder.embed.device()
    }

    /// What the decoder takes of images: features `[M, (1 + K) d]`, the embeddings of their tokens and, for each of `K` DeepStack
    /// layers, what is added behind it. Handed on as a whole, wherever `image_embeds` are asked for.
    pub fn encode_images(&self, images: &Images<B>) -> Tensor<B, 2> {
        self.visual.forward(images.pixels.clone(), &images.plan)
    }

    /// The embeddings `[M, d]` among the features of [`encode_images`](Self::encode_images).
    pub fn embeddings_of(&self, features: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.config.vision.deepstack.is_empty() {
            true => features,
            false => features.narrow(1, 0, self.config.text.hidden_size),
        }
    }

    /// The head's matrix `[V, d]` and its parameter name.
    pub fn head(&self) -> (&Tensor<B, 2>, &'static str) {
        self.decoder.head()
    }

    /// Logits `[M, V]` of hidden states `[M, d]`. For a few rows only: the training path uses [`crate::head`].
    pub fn logits(&self, hidden: Tensor<B, 2>) -> Tensor<B, 2> {
        B::affine(hidden, self.head().0, None)
    }

    /// Embedded tokens `[N, d]`, and what is added behind the first layers.
    pub(crate) fn embed(
        &self,
        batch: &PackedBatch<B>,
        features: Option<Tensor<B, 2>>,
    ) -> (Tensor<B, 2>, Option<Deep<B>>) {
        let x = self.decoder.embed.clone().select(0, batch.ids.clone());
        let (Some(merge), Some(features)) = (&batch.merge, features) else { return (x, None) };
        let deep = !self.config.vision.deepstack.is_empty();
        let deep = deep.then(|| Deep { rows: merge.image_rows.clone(), features: features.clone() });
        let images = self.embeddings_of(features);
        (Tensor::cat(vec![x, images], 0).select(0, merge.source.clone()), deep)
    }

    /// The decoder over a packed batch, with attention left to `attend`.
    fn decoded(
        &self,
        batch: &PackedBatch<B>,
        features: Option<Tensor<B, 2>>,
        attend: &mut impl Attend<B>,
    ) -> Tensor<B, 2> {
        let (x, deep) = self.embed(batch, features);
        self.decoder.forward(x, deep.as_ref(), &batch.rotary, attend)
    }

    /// Final-normed hidden states `[N, d]` of a packed batch with the features `[M, (1 + K) d]` of its images.
    pub fn hidden(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        self.decoded(batch, image_embeds, &mut batch.packed())
    }

    /// As [`hidden`](Self::hidden), with the last layer's attention of every response on image, prompt text and generated text.
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
        let mut measure = Measure { plan: &batch.plan, last, lookers, masses: Vec::new() };
        let hidden = self.decoded(batch, image_embeds, &mut measure);
        Ok((hidden, mass::read(measure.masses)?))
    }

    /// As [`hidden`](Self::hidden) for prompts alone, with the keys and values of every layer.
    pub fn prefill(&self, batch: &PackedBatch<B>, image_embeds: Option<Tensor<B, 2>>) -> (Tensor<B, 2>, PromptKv<B>) {
        let mut prefill = Prefill { plan: &batch.plan, kv: Vec::new() };
        let hidden = self.decoded(batch, image_embeds, &mut prefill);
        (hidden, prefill.kv)
    }

    /// An empty cache for responses of at most `max_new_tokens`.
    pub fn cache(&self, max_new_tokens: usize) -> DecodeCache<B> {
        DecodeCache::new(self.config.text.num_key_value_heads, max_new_tokens)
    }

    /// One token more for every row of the cache: ids and positions `[S]` to final-normed hidden states `[S, d]`.
    pub fn decode(&self, ids: Tensor<B, 1, Int>, positions: &[i64], cache: &mut DecodeCache<B>) -> Tensor<B, 2> {
        let x = self.decoder.embed.clone().select(0, ids);
        let positions = [positions.to_vec(), positions.to_vec(), positions.to_vec()];
        let rotary = mrope_table(&self.config.text, &positions, &self.device());
        let hidden = self.decoder.forward(x, None, &rotary, cache);
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
            Pictures::Trained(Some(images)) => {
                let (e, saved) = self.visual.forward_saving(images.pixels.clone(), &images.plan, recompute);
                (Some(e), Some((saved, images.plan.clone())))
            }
            Pictures::Trained(None) => (None, None),
            Pictures::Embedded(features) => (features, None),
        };
        let (x, deep) = self.embed(batch, features);
        let (hidden, decoder) = self.decoder.forward_saving(x, deep.as_ref(), batch.packed(), recompute, kv);
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
        // Behind the first layers, only a tower that gets gradients asks for any.
        let mut deep = tape.vision.as_ref().zip(batch.merge.as_ref()).map(|(_, merge)| DeepGradients {
            rows: merge.image_rows.clone(),
            layers: self.config.vision.deepstack.len(),
            gradients: Vec::new(),
        });
        let dx = self.decoder.backward(tape.decoder, batch.packed(), d_hidden, deep.as_mut(), kv, grads);
        match &batch.merge {
            None => self.decoder.embed_backward(batch.ids.clone(), dx, grads),
            Some(merge) => {
                let d_text = dx.clone().select(0, merge.text_rows.clone());
                self.decoder.embed_backward(merge.text_ids.clone(), d_text, grads);
                if let Some((saved, plan)) = tape.vision {
                    let mut d_features = vec![dx.select(0, merge.image_rows.clone())];
                    d_features.extend(deep.into_iter().flat_map(|deep| deep.gradients.into_iter().rev()));
                    self.visual.backward(saved, &plan, columns(d_features), grads);
                }
            }
        }
    }

    /// Shows every parameter to `visitor`, in a fixed order.
    pub fn visit(&mut self, visitor: &mut impl ParamVisitor<B>) {
        self.visual.visit(visitor);
        self.decoder.visit(visitor);
    }
}
