//! From what is asked to what the engine takes: pictures, chat template, tokens, and the bounds of all of them. Runs on
//! threads beside the device's.

use data::{ChatMessage, Content, ImageSource, Role};
use rollout::sampler::Sampling;
use rollout::{ResponseLimits, RolloutRequest};
use vgpo::PrototypeMode;

use crate::ask::{AskedPart, AskedPrompt, AskedRequest, AskedSettings, AskedText};
use crate::error::ApiError;
use crate::media;
use crate::options::{ServedModel, ServerOptions};

/// Most pictures of a request.
const MOST_PICTURES: usize = 256;
/// Pixels of all pictures of a request together, in multiples of what one may have before it is resized.
const PICTURES_OF_PIXELS: u64 = 4;

/// What the engine can answer of a request, and what its reply needs to know.
pub(crate) struct PreparedRequest {
    /// One for each prompt.
    pub requests: Vec<RolloutRequest>,
    /// Of the first prompt; each further one has the next number.
    pub seed: u64,
    pub settings: AskedSettings,
    pub is_chat: bool,
}

/// Ids, patches and grids of a prompt.
type PromptParts = (Vec<u32>, Vec<f32>, Vec<[usize; 3]>);

/// # Errors
/// What the client is told.
pub(crate) fn prepare(
    asked: AskedRequest,
    model: &ServedModel,
    options: &ServerOptions,
) -> Result<PreparedRequest, ApiError> {
    if !options.model_names.contains(&asked.model) {
        let (name, ours) = (guard::echo(&asked.model), options.model_names.join("`, `"));
        let reason = format!("the model `{name}` does not exist; this server has `{ours}`");
        return Err(ApiError { param: Some("model".into()), ..ApiError::status(404, reason) }.code("model_not_found"));
    }
    let settings = asked.settings;
    if settings.n > options.max_batch_rows {
        let reason = format!("{} responses; this server samples {} at a time", settings.n, options.max_batch_rows);
        return Err(ApiError::field("n", reason));
    }
    let seed = settings.seed.unwrap_or_else(any_seed);
    let (is_chat, requests) = match asked.asked {
        AskedPrompt::Chat(messages) => {
            let parts = chat(messages, model, options)?;
            (true, vec![request(parts, seed, &settings, model, options)?])
        }
        AskedPrompt::Texts(texts) if texts.len() > options.max_queue => {
            let reason = format!("{} prompts; {} at most (--max-queue)", texts.len(), options.max_queue);
            return Err(ApiError::field("prompt", reason));
        }
        AskedPrompt::Texts(texts) => {
            let one = |(seed, asked)| {
                request((text_ids(asked, model, options)?, vec![], vec![]), seed, &settings, model, options)
            };
            // The same prompt twice is answered in two ways.
            let seeds = std::iter::successors(Some(seed), |seed| Some(seed.wrapping_add(1)));
            (false, seeds.zip(texts).map(one).collect::<Result<_, _>>()?)
        }
    };
    Ok(PreparedRequest { requests, seed, settings, is_chat })
}

/// The ids of a text that is to be continued.
fn text_ids(asked: AskedText, model: &ServedModel, options: &ServerOptions) -> Result<Vec<u32>, ApiError> {
    let ids = match asked {
        AskedText::Text(text) => {
            check_bytes(text.len(), model, options)?;
            model.processor.encode_text(&text).map_err(|e| ApiError::field("prompt", e))?
        }
        AskedText::Ids(ids) => {
            // A picture's tokens mean nothing without it, and rows of the embedding without a token were never trained.
            let is_none = |id: &&u32| model.suppress.contains(id) || model.processor.token(**id).is_none();
            if let Some(id) = ids.iter().find(is_none) {
                return Err(ApiError::field("prompt", format!("there is no text token {id}")));
            }
            ids
        }
    };
    Ok(ids)
}

/// One prompt of a request, for the engine.
fn request(
    (ids, pixels, grids): PromptParts,
    seed: u64,
    settings: &AskedSettings,
    model: &ServedModel,
    options: &ServerOptions,
) -> Result<RolloutRequest, ApiError> {
    check_prompt(ids.len(), options)?;
    if settings.visual_focus && grids.is_empty() {
        return Err(ApiError::field("visual_focus", "there is no picture to look at"));
    }
    let prompt = (model.prompt)(ids, pixels, grids).map_err(|e| ApiError::bad(e.to_string()))?;
    let max_new_tokens = room(settings, prompt.next_position().max(0) as usize, model, options)?;
    let limits = ResponseLimits {
        max_new_tokens,
        min_new_tokens: settings.min_tokens,
        eos: model.eos.clone(),
        suppress: model.suppress.clone(),
    };
    let sampling = Sampling { temperature: settings.temperature, top_p: settings.top_p, seed };
    let focus = settings.visual_focus.then_some(PrototypeMode::Mean);
    // The key that `generate` has: the same seed gives the same response.
    let (n, top_log_probs) = (settings.n, settings.top_log_probs);
    Ok(RolloutRequest { prompt, key: 0, n, sampling, limits, focus, top_log_probs })
}

/// A seed for a request that names none.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Each has keys of its own. 53 bits, so that every client can send it back.
    RandomState::new().hash_one(0) >> 11
}

/// Tokens that the response may have, after a prompt that takes `first` positions.
fn room(
    settings: &AskedSettings,
    first: usize,
    model: &ServedModel,
    options: &ServerOptions,
) -> Result<usize, ApiError> {
    let left = model.max_positions.saturating_sub(first);
    let max = match settings.max_tokens {
        None if left == 0 => {
            let reason = format!("the prompt takes all of the model's {} positions", model.max_positions);
            return Err(ApiError::field("messages", reason).code("context_length_exceeded"));
        }
        None => left.min(options.max_new_tokens),
        Some(asked) if asked > options.max_new_tokens => {
            let most = options.max_new_tokens;
            let reason = format!("{asked} tokens; this server gives {most} at most (--max-new-tokens)");
            return Err(ApiError::field("max_tokens", reason));
        }
        Some(asked) if asked > left => {
            let reason = format!(
                "the prompt takes {first} positions and {asked} tokens are asked for; the model has {} in all",
                model.max_positions
            );
            return Err(ApiError::field("max_tokens", reason).code("context_length_exceeded"));
        }
        Some(asked) => asked,
    };
    match settings.min_tokens > max {
        true => Err(ApiError::field(
            "min_tokens",
            format!("{} is more than the {max} tokens there may be", settings.min_tokens),
        )),
        false => Ok(max),
    }
}

fn check_prompt(tokens: usize, options: &ServerOptions) -> Result<(), ApiError> {
    let most = options.max_prompt_tokens;
    match tokens > most {
        true => {
            let reason =
                format!("the prompt has {tokens} tokens; this server takes {most} at most (--max-prompt-tokens)");
            Err(ApiError::bad(reason).code("context_length_exceeded"))
        }
        false => Ok(()),
    }
}

/// Refuses a text of so many bytes that its tokens are surely too many, before they are counted.
fn check_bytes(bytes: usize, model: &ServedModel, options: &ServerOptions) -> Result<(), ApiError> {
    let most = model.processor.bytes_of_tokens(options.max_prompt_tokens).max(4096);
    match bytes > most {
        true => {
            let tokens = options.max_prompt_tokens;
            let reason =
                format!("the prompt has {bytes} bytes, surely more than the {tokens} tokens of --max-prompt-tokens");
            Err(ApiError::bad(reason).code("context_length_exceeded"))
        }
        false => Ok(()),
    }
}

fn chat(
    asked: Vec<(Role, Vec<AskedPart>)>,
    model: &ServedModel,
    options: &ServerOptions,
) -> Result<PromptParts, ApiError> {
    let mut pictures: Vec<ImageSource> = Vec::new();
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(asked.len() + 1);
    if let Some(system) = options.system.clone().filter(|_| asked.iter().all(|(role, _)| *role != Role::System)) {
        messages.push(ChatMessage { role: Role::System, content: vec![Content::Text(system)] });
    }
    let mut bytes = 0;
    for (i, (role, parts)) in asked.into_iter().enumerate() {
        let mut content = Vec::with_capacity(parts.len());
        for (k, part) in parts.into_iter().enumerate() {
            content.push(match part {
                AskedPart::Text(text) => {
                    bytes += text.len();
                    Content::Text(text)
                }
                AskedPart::Picture(url) => {
                    let place = format!("messages[{i}].content[{k}]");
                    if pictures.len() == MOST_PICTURES {
                        return Err(ApiError::field(place, format!("more than {MOST_PICTURES} pictures")));
                    }
                    pictures.push(media::picture(&url, options).map_err(|reason| ApiError::field(place, reason))?);
                    Content::Image(pictures.len() - 1)
                }
            });
        }
        messages.push(ChatMessage { role, content });
    }
    check_bytes(bytes, model, options)?;
    check_pictures(&pictures)?;
    let wrong = |error: data::DataError| ApiError::field("messages", error);
    // By headers alone: what is too long costs no pixel.
    check_prompt(model.processor.count_chat_tokens(&messages, &pictures).map_err(wrong)?, options)?;
    let encoded = model.processor.encode_chat(&messages, &pictures).map_err(wrong)?;
    let grids = encoded.images.iter().map(|image| image.grid_thw).collect();
    let mut images = encoded.images.into_iter();
    // One picture is not copied.
    let mut pixels = images.next().map_or_else(Vec::new, |first| first.values);
    images.for_each(|image| pixels.extend(image.values));
    Ok((encoded.input_ids, pixels, grids))
}

/// Refuses pictures that would take long to decode, by their headers.
fn check_pictures(pictures: &[ImageSource]) -> Result<(), ApiError> {
    let limit = guard::limits().decoded_pixels;
    let most = limit.value.saturating_mul(PICTURES_OF_PIXELS);
    let mut pixels = 0u64;
    for (k, picture) in pictures.iter().enumerate() {
        let wrong = |e: data::ImageError| ApiError::field("messages", format!("picture {}: {e}", k + 1));
        let (width, height) = picture.header_size().map_err(wrong)?;
        let own = u64::from(width) * u64::from(height);
        if own > limit.value {
            return Err(wrong(data::ImageError::TooLarge { width, height, limit: limit.value }));
        }
        pixels = pixels.saturating_add(own);
    }
    match pixels > most {
        true => {
            let reason = format!(
                "the pictures have {pixels} pixels together; {most} at most ({} times {})",
                PICTURES_OF_PIXELS, limit.name
            );
            Err(ApiError::field("messages", reason))
        }
        false => Ok(()),
    }
}

impl std::fmt::Debug for PreparedRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedRequest").field("settings", &self.settings).finish_non_exhaustive()
    }
}
