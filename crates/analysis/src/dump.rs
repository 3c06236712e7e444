//! The numbers of one response, as a safetensors file that can be laid beside transformers'.

use std::borrow::Cow;

use burn::tensor::{Tensor, backend::Backend};
use model_qwen2vl::model::{Images, PackedBatch, Prompt};
use model_qwen2vl::{Kernels, QwenVl, host};
use rl::TrainError;
use rl::rollout::Response;
use safetensors::Dtype;
use safetensors::tensor::{View, serialize};

/// One pass over the prompt and what was generated.
pub struct States<B: Backend> {
    /// `[M, d]`; none without a picture.
    pub image_embeds: Option<Tensor<B, 2>>,
    /// Final-normed, `[P + G, d]`.
    pub hidden: Tensor<B, 2>,
}

impl<B: Kernels> States<B> {
    /// Runs the model.
    pub fn new(model: &QwenVl<B>, prompt: &Prompt, response: &Response) -> Self {
        let device = model.device();
        let responses = if response.ids.is_empty() { vec![] } else { vec![&response.ids[..]] };
        let batch = PackedBatch::new(&model.config, &[(prompt, responses)], &device);
        let images = Images::new(&model.config, [prompt], &device);
        let features = images.map(|i| model.encode_images(&i));
        let hidden = model.hidden(&batch, features.clone());
        Self { image_embeds: features.map(|features| model.embeddings_of(features)), hidden }
    }
}

/// The values of a tensor in f32.
///
/// # Errors
/// A failing device.
fn values<B: Backend>(tensor: Tensor<B, 2>) -> Result<Vec<f32>, TrainError> {
    Ok(host::floats(tensor)?)
}

/// One entry of the dump.
struct DumpEntry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl DumpEntry {
    fn floats(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
    fn ints(shape: &[usize], values: impl IntoIterator<Item = i64>) -> Self {
        let bytes = values.into_iter().flat_map(i64::to_le_bytes).collect();
        Self { dtype: Dtype::I64, shape: shape.to_vec(), bytes }
    }
}

impl View for &DumpEntry {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Logits computed at one time, in elements.
const LOGIT_BUDGET: usize = 1 << 24;

/// The file: inputs, image embeddings, states and logits of the prompt, and the response with its log-probs and visual
/// focus. P prompt tokens, G generated, N patches, I pictures, M image tokens, d hidden size, V vocabulary. Without a
/// picture its three entries have no rows, and `visual_focus` is left out.
///
/// # Errors
/// A failing device.
pub fn to_bytes<B: Kernels>(
    model: &QwenVl<B>,
    prompt: &Prompt,
    states: &States<B>,
    response: &Response,
) -> Result<Vec<u8>, TrainError> {
    let config = &model.config;
    let (p, g, v, d) = (prompt.len(), response.ids.len(), config.text.vocab_size, config.text.hidden_size);
    let hidden = states.hidden.clone().slice([0..p, 0..d]);
    let mut logits = Vec::with_capacity(p * v);
    let step = (LOGIT_BUDGET / v).max(1);
    for a in (0..p).step_by(step) {
        logits.extend(values(model.logits(hidden.clone().slice([a..(a + step).min(p), 0..d])))?);
    }
    let embeds = states.image_embeds.clone().map_or(Ok(vec![]), values)?;
    let (patch, grids) = (config.vision.patch_dim(), &prompt.image_grid_thw);
    let mut entries = vec![
        ("input_ids", DumpEntry::ints(&[p], prompt.input_ids.iter().map(|&id| i64::from(id)))),
        ("position_ids", DumpEntry::ints(&[3, p], prompt.position_ids.iter().flatten().copied())),
        ("pixel_values", DumpEntry::floats(&[prompt.pixel_values.len() / patch, patch], &prompt.pixel_values)),
        ("image_grid_thw", DumpEntry::ints(&[grids.len(), 3], grids.iter().flatten().map(|&n| n as i64))),
        ("image_embeds", DumpEntry::floats(&[embeds.len() / d, d], &embeds)),
        ("hidden_last", DumpEntry::floats(&[p, d], &values(hidden)?)),
        ("logits", DumpEntry::floats(&[p, v], &logits)),
        ("generated_ids", DumpEntry::ints(&[g], response.ids.iter().map(|&id| i64::from(id)))),
        ("generated_logprobs", DumpEntry::floats(&[g], &response.log_probs)),
    ];
    if !grids.is_empty() {
        let focus = response.visual_focus.as_deref().unwrap_or_default();
        entries.push(("visual_focus", DumpEntry::floats(&[focus.len()], focus)));
    }
    serialize(entries.iter().map(|(name, entry)| (*name, entry)), None)
        .map_err(|e| TrainError::Input(format!("the dump: {e}")))
}
