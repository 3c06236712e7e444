//! A model folder's tokenizer, chat template and image settings as one thing that turns a conversation into ids and
//! patches.

mod chat;
mod files;
mod pieces;
pub mod serving;
mod stream;
mod template;

use std::path::Path;

use tokenizers::Tokenizer;

pub use chat::{ChatMessage, Role};
pub use files::GenerationConfig;
pub use stream::StreamDecoder;

use crate::error::{DataError, ImageError};
use crate::image::{self, Alpha, ExifOrientation, ImageLimits, Patches, RgbImage, RunPixels};
use crate::sample::ImageSource;
use chat::one_question;
use template::ChatTemplate;

/// One piece of a user's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text; must not contain special tokens.
    Text(String),
    /// A picture: index into the images given beside the content.
    Image(usize),
}

/// A prompt as the model takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// `[P]` token ids; each picture stands as `prod(grid_thw) / merge_size^2` copies of `<|image_pad|>`.
    pub input_ids: Vec<u32>,
    /// Pictures in the order of their placeholders.
    pub images: Vec<Patches>,
    /// Of each of them the index among the images that were given: a picture may stand in several places.
    pub sources: Vec<usize>,
}

/// Tokenizer, chat template and image settings of a Qwen-VL folder. `Send + Sync`.
pub struct Processor {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    limits: ImageLimits,
    generation: GenerationConfig,
    vision: VisionIds,
    eos_ids: Vec<u32>,
    pad_id: u32,
    /// Texts of the special tokens; a text that contains one is refused.
    special: Vec<String>,
    special_ids: Vec<u32>,
    vocab_size: usize,
    /// Bytes of the longest token.
    longest_token: usize,
    /// Tokens that a prompt may have, where the run limits them.
    max_prompt_length: Option<usize>,
}

/// Bytes that every prompt may have: a chat template alone writes some hundred.
const SHORT: usize = 4096;

/// Ids of the four vision tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct VisionIds {
    vision_start: u32,
    vision_end: u32,
    image_pad: u32,
    video_pad: u32,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor")
            .field("vocab_size", &self.vocab_size())
            .field("limits", &self.limits)
            .field("eos_ids", &self.eos_ids)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Reads `tokenizer.json`, the chat template (`chat_template.jinja`, `chat_template.json` or
    /// `tokenizer_config.json`), `preprocessor_config.json` (or transformers 5's `processor_config.json`) and
    /// `generation_config.json` if there is one.
    ///
    /// # Errors
    /// A missing or unreadable file, a tokenizer without the vision tokens, no chat template anywhere.
    pub fn from_folder(dir: &Path) -> Result<Self, DataError> {
        files::load(dir)
    }

    /// Sets the run's own pixel limits, EasyR1's `min_pixels` and `max_pixels`; 0 is no limit. Its `process_image`
    /// keeps pictures within them ([`image::process_image`]); `smart_resize` then takes the limits of the model folder,
    /// not these.
    ///
    /// # Errors
    /// Limits that no picture can satisfy.
    pub fn with_limits(mut self, min_pixels: u64, max_pixels: u64) -> Result<Self, DataError> {
        let limits = ImageLimits { run: RunPixels { min_pixels, max_pixels }, ..self.limits };
        limits.validate().map_err(|e| DataError::Prompt(e.to_string()))?;
        self.limits = limits;
        Ok(self)
    }

    /// Sets what becomes of transparency, and whether pictures are turned as their EXIF says.
    pub fn with_picture_settings(mut self, alpha: Alpha, exif_orientation: ExifOrientation) -> Self {
        self.limits = ImageLimits { alpha, exif_orientation, ..self.limits };
        self
    }

    /// A picture as the settings in force decode it: RGB, upright, of its own size.
    ///
    /// # Errors
    /// A file that cannot be read, no image, too many pixels.
    pub fn picture(&self, source: &ImageSource) -> Result<RgbImage, ImageError> {
        image::decode_with(&source.load()?, &self.limits)
    }

    /// Sets the run's limit of a prompt: a text that surely has more tokens is refused before it is tokenized, which
    /// can take long.
    pub fn with_max_prompt_length(mut self, tokens: usize) -> Self {
        self.max_prompt_length = Some(tokens);
        self
    }

    /// Bytes of text beyond which there are surely more than `tokens` tokens: four times as many as tokens of the
    /// longest kind have, as normalizers may shorten a text.
    pub fn bytes_of_tokens(&self, tokens: usize) -> usize {
        const GENEROUS: usize = 4;
        tokens.saturating_mul(self.longest_token).saturating_mul(GENEROUS)
    }

    /// The image settings in force.
    pub fn limits(&self) -> &ImageLimits {
        &self.limits
    }

    /// What `generation_config.json` says.
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// `<|vision_start|>`.
    pub fn vision_start_id(&self) -> u32 {
        self.vision.vision_start
    }

    /// `<|vision_end|>`.
    pub fn vision_end_id(&self) -> u32 {
        self.vision.vision_end
    }

    /// `<|image_pad|>`.
    pub fn image_pad_id(&self) -> u32 {
        self.vision.image_pad
    }

    /// `<|video_pad|>`.
    pub fn video_pad_id(&self) -> u32 {
        self.vision.video_pad
    }

    /// Ids that end a response; the first is the one to append to a supervised response.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// The padding id.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Ids of all special tokens, ascending. A sampler must never draw one except the ends of a response.
    pub fn special_ids(&self) -> &[u32] {
        &self.special_ids
    }

    /// Largest id plus one; the model's vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of one token, special tokens included.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The text of one id, as it stands in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// Encodes one user message, with a system message before it if given, up to where the assistant speaks.
    /// With `system` of `None` the chat template's own default stands.
    ///
    /// # Errors
    /// As [`Processor::encode_chat`].
    pub fn encode(
        &self,
        system: Option<&str>,
        content: &[Content],
        images: &[ImageSource],
    ) -> Result<Encoded, DataError> {
        self.encode_chat(&one_question(system, content), images)
    }

    /// Encodes a conversation up to where the assistant speaks next. A conversation of one user message is the same as
    /// [`Processor::encode`] of it.
    ///
    /// # Errors
    /// Text with special tokens in it, a picture that cannot be used, an index beyond `images`, a template that does
    /// not write one image token for each picture.
    pub fn encode_chat(&self, messages: &[ChatMessage], images: &[ImageSource]) -> Result<Encoded, DataError> {
        let compact = self.compact_ids(messages, images.len())?;
        let sources: Vec<usize> = placeholders(messages).collect();
        let mut patches: Vec<Patches> = Vec::with_capacity(sources.len());
        for (k, &index) in sources.iter().enumerate() {
            // A picture that has been here before is not decoded again.
            if let Some(earlier) = sources[..k].iter().position(|s| *s == index) {
                patches.push(patches[earlier].clone());
                continue;
            }
            let fail = |source| DataError::Image { index: index + 1, source };
            let image = self.picture(&images[index]).map_err(fail)?;
            patches.push(image::process(&image, &self.limits).map_err(fail)?);
        }
        let mut counts = patches.iter().map(|p| self.limits.tokens(p.grid_thw));
        let mut input_ids = Vec::with_capacity(compact.len() + counts.clone().sum::<usize>());
        for id in compact {
            let copies = if id == self.vision.image_pad { counts.next().unwrap_or(0) } else { 1 };
            input_ids.extend(std::iter::repeat_n(id, copies));
        }
        Ok(Encoded { input_ids, images: patches, sources })
    }

    /// The length of [`Processor::encode`]'s `input_ids`, from image headers alone: no pixel is decoded.
    ///
    /// # Errors
    /// As [`Processor::encode`], except that damage behind a header goes unseen.
    pub fn count_tokens(
        &self,
        system: Option<&str>,
        content: &[Content],
        images: &[ImageSource],
    ) -> Result<usize, DataError> {
        self.count_chat_tokens(&one_question(system, content), images)
    }

    /// The length of [`Processor::encode_chat`]'s `input_ids`, from image headers alone.
    ///
    /// # Errors
    /// As [`Processor::encode_chat`], except that damage behind a header goes unseen.
    pub fn count_chat_tokens(&self, messages: &[ChatMessage], images: &[ImageSource]) -> Result<usize, DataError> {
        let mut tokens = self.compact_ids(messages, images.len())?.len();
        for index in placeholders(messages) {
            let count = self.count_image_tokens(&images[index]);
            tokens = tokens - 1 + count.map_err(|source| DataError::Image { index: index + 1, source })?;
        }
        Ok(tokens)
    }

    /// Tokens of one picture, from its header.
    ///
    /// # Errors
    /// No image, too many pixels, too elongated.
    pub fn count_image_tokens(&self, image: &ImageSource) -> Result<usize, ImageError> {
        let (width, height) = image.upright_size(self.limits.exif_orientation)?;
        let limit = self.limits.max_decoded_pixels;
        if width as u64 * height as u64 > limit {
            return Err(ImageError::TooLarge { width, height, limit });
        }
        Ok(self.limits.tokens(image::grid_of(width, height, &self.limits)?))
    }

    /// Ids with one `<|image_pad|>` a picture, checked.
    fn compact_ids(&self, messages: &[ChatMessage], images: usize) -> Result<Vec<u32>, DataError> {
        self.check_length(messages.iter().map(ChatMessage::text_bytes).sum())?;
        let messages: Vec<ChatMessage> = messages.iter().map(ChatMessage::joined).collect();
        for part in messages.iter().flat_map(|message| &message.content) {
            match part {
                Content::Text(text) => self.refuse_special(text)?,
                Content::Image(index) if *index >= images => {
                    return Err(DataError::Prompt(format!(
                        "placeholder count differs: image {} is named but {images} images are given",
                        index + 1
                    )));
                }
                Content::Image(_) => {}
            }
        }
        let rendered = self.template.render(&messages);
        let rendered = rendered.map_err(|e| DataError::Prompt(format!("the chat template failed: {e}")))?;
        self.check_length(rendered.len())?;
        let ids = self.raw_ids(&rendered)?;
        let wanted = placeholders(&messages).count();
        let written = ids.iter().filter(|id| **id == self.vision.image_pad).count();
        let videos = ids.iter().filter(|id| **id == self.vision.video_pad).count();
        if written != wanted || videos != 0 {
            return Err(DataError::Prompt(format!(
                "placeholder count differs: the chat template wrote {written} image and {videos} video tokens for {wanted} images"
            )));
        }
        Ok(ids)
    }

    /// Refuses a prompt of so many bytes that its tokens are surely too many.
    fn check_length(&self, bytes: usize) -> Result<(), DataError> {
        if let Some(tokens) = self.max_prompt_length
            && bytes > self.bytes_of_tokens(tokens).max(SHORT)
        {
            return Err(DataError::Prompt(format!(
                "the text of the prompt has {bytes} bytes, which are surely more than the limit of {tokens} tokens"
            )));
        }
        Ok(())
    }

    fn refuse_special(&self, text: &str) -> Result<(), DataError> {
        match self.special.iter().find(|token| text.contains(token.as_str())) {
            None => Ok(()),
            Some(token) => {
                let pictures = match token.contains("image") || token.contains("vision") {
                    true => "; a picture is written <image>",
                    false => "",
                };
                Err(DataError::Prompt(format!(
                    "the text contains the special token {token}; it would be read as the token and not as text{pictures}"
                )))
            }
        }
    }

    fn raw_ids(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let limit = guard::limits().text_bytes;
        if text.len() as u64 > limit.value {
            return Err(DataError::Prompt(format!(
                "a text of {} bytes is longer than the limit of {} for one text; {}",
                text.len(),
                limit.value,
                limit.raise()
            )));
        }
        // `false`: the template writes every special token; the tokenizer's post-processor must not add its own.
        let encode = || self.tokenizer.encode_fast(text, false).map_err(|e| e.to_string());
        match guard::caught(encode).and_then(|done| done) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(e) => Err(DataError::Prompt(format!("the tokenizer failed: {}", guard::echo(&e)))),
        }
    }

    /// Ids of plain text, no special token added.
    ///
    /// # Errors
    /// Text with a special token in it (take its id from [`Processor::token_id`]), or a failing tokenizer.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, DataError> {
        self.refuse_special(text)?;
        self.raw_ids(text)
    }

    /// Text of ids. Ids beyond the vocabulary (a padded embedding) have no text.
    ///
    /// # Errors
    /// A failing tokenizer.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, DataError> {
        let decode = || self.tokenizer.decode(ids, skip_special).map_err(|e| e.to_string());
        guard::caught(decode)
            .and_then(|done| done)
            .map_err(|e| DataError::Prompt(format!("the tokenizer cannot decode: {}", guard::echo(&e))))
    }

    /// Decodes a response token by token, special tokens left out.
    pub fn stream(&self) -> StreamDecoder<'_> {
        StreamDecoder::new(self)
    }

    /// The text that each token of a response adds to `text`, which all of them decode to without special tokens; the
    /// concatenation is `text`. A token that ends inside a character has an empty one, and the one that completes the
    /// character has all of it.
    ///
    /// # Errors
    /// A failing tokenizer.
    pub fn pieces(&self, ids: &[u32], text: &str) -> Result<Vec<String>, DataError> {
        pieces::of(ids, text, self)
    }
}

/// The pictures that stand in a conversation, in its order.
fn placeholders(messages: &[ChatMessage]) -> impl Iterator<Item = usize> + '_ {
    messages.iter().flat_map(|message| &message.content).filter_map(|part| match part {
        Content::Image(index) => Some(*index),
        Content::Text(_) => None,
    })
}
