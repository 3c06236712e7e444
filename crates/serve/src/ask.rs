//! From the JSON of a request to what is asked: every field that is known is checked, what would change the answer and
//! cannot be done is refused, and all else is ignored.

use std::sync::Arc;

use data::Role;
use rollout::MOST_TOP_LOG_PROBS;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::{JsonFields, kind, shown};
use crate::stop::{LONGEST_STOP, MOST_STOPS};

/// Most messages of a conversation.
const MOST_MESSAGES: usize = 1024;
/// Most values of a body, the names of fields left out: one takes 32 bytes of memory, however short it is written.
const MOST_VALUES: usize = 1 << 20;
/// The lowest temperature besides 0: below it scaled logits leave the range of f32.
const LOWEST_TEMPERATURE: f64 = 1e-5;

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskedPart {
    Text(String),
    /// The URL of a picture.
    Picture(String),
}

/// What the answer continues.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskedPrompt {
    /// `/v1/chat/completions`.
    Chat(Vec<(Role, Vec<AskedPart>)>),
    /// `/v1/completions`: each of several texts, or one.
    Texts(Vec<AskedText>),
}

/// A text to be continued.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AskedText {
    Text(String),
    /// Tokens, which may be special ones.
    Ids(Vec<u32>),
}

/// A request as it was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskedRequest {
    pub model: String,
    pub asked: AskedPrompt,
    pub settings: AskedSettings,
}

/// How it is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskedSettings {
    pub n: usize,
    pub temperature: f64,
    pub top_p: f64,
    /// None: any.
    pub seed: Option<u64>,
    /// None: as many as there is room for.
    pub max_tokens: Option<usize>,
    pub min_tokens: usize,
    pub stops: Arc<[String]>,
    pub log_probs: bool,
    /// How many of the likeliest tokens to name beside each.
    pub top_log_probs: usize,
    pub visual_focus: bool,
    pub stream: bool,
    /// Of a stream: a last part with the numbers of tokens.
    pub include_usage: bool,
}

impl AskedRequest {
    /// Of `/v1/chat/completions`.
    pub(crate) fn chat(body: &[u8]) -> Result<Self, ApiError> {
        let body = parse(body)?;
        let fields = JsonFields(&body);
        let model = model(fields)?;
        refuse(fields)?;
        let asked = AskedPrompt::Chat(messages(fields)?);
        let mut settings = settings(fields)?;
        settings.log_probs = fields.flag("logprobs")?;
        settings.top_log_probs = fields.count("top_logprobs", TOPS)?.unwrap_or(0) as usize;
        if settings.top_log_probs > 0 && !settings.log_probs {
            return Err(ApiError::field("top_logprobs", "it needs logprobs: true"));
        }
        Ok(Self { model, asked, settings })
    }

    /// Of `/v1/completions`.
    pub(crate) fn completion(body: &[u8]) -> Result<Self, ApiError> {
        let body = parse(body)?;
        let fields = JsonFields(&body);
        let model = model(fields)?;
        refuse(fields)?;
        let asked = AskedPrompt::Texts(prompts(fields)?);
        let mut settings = settings(fields)?;
        let tops = fields.count("logprobs", TOPS)?;
        settings.log_probs = tops.is_some();
        settings.top_log_probs = tops.unwrap_or(0) as usize;
        if fields.get("top_logprobs").is_some_and(|value| !zero(value)) {
            return Err(ApiError::field("top_logprobs", "here the number stands in logprobs"));
        }
        Ok(Self { model, asked, settings })
    }
}

/// How many of the likeliest tokens there may be.
const TOPS: std::ops::RangeInclusive<u64> = 0..=MOST_TOP_LOG_PROBS as u64;

fn parse(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if values_of(body) > MOST_VALUES {
        return Err(ApiError::bad(format!("the body has more than {MOST_VALUES} values")));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(ApiError::bad(format!("the body is {}; expected a JSON object", kind(&other)))),
        Err(reason) => Err(ApiError::bad(format!("the body is no JSON: {reason}"))),
    }
}

/// At least as many values as JSON has, before any is made: commas outside of strings, and one more.
fn values_of(body: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (1, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

fn model(fields: JsonFields) -> Result<String, ApiError> {
    let missing = || ApiError::field("model", "is missing; GET /v1/models names what is served");
    fields.text("model")?.map(str::to_owned).ok_or_else(missing)
}

/// Whether a value of a field changes nothing.
type NoEffect = fn(&Value) -> bool;

/// Fields that would change the answer and that nothing here can do, unless they have a value that changes nothing.
pub(crate) const REFUSED: &[(&str, NoEffect, &str)] = &[
    ("response_format", |v| v["type"] == "text", "only {\"type\": \"text\"} can be given"),
    ("tools", empty, "tools are not supported"),
    ("functions", empty, "functions are not supported"),
    ("tool_choice", |v| v == "none" || v == "auto", "tools are not supported"),
    ("function_call", |v| v == "none" || v == "auto", "functions are not supported"),
    ("frequency_penalty", zero, "penalties are not supported"),
    ("presence_penalty", zero, "penalties are not supported"),
    ("repetition_penalty", one, "penalties are not supported"),
    ("length_penalty", one, "beam search is not supported"),
    ("use_beam_search", off, "beam search is not supported"),
    ("best_of", one, "best_of is not supported; ask for n responses"),
    ("logit_bias", empty, "logit_bias is not supported"),
    ("prompt_logprobs", |_| false, "log-probs of the prompt are not supported"),
    ("top_k", |v| matches!(v.as_i64(), Some(-1 | 0)), "top_k is not supported; use top_p"),
    ("min_p", zero, "min_p is not supported; use top_p"),
    ("echo", off, "echo is not supported"),
    ("suffix", |v| v == "", "suffix is not supported"),
    ("modalities", |v| v.as_array().is_some_and(|all| all.iter().all(|one| one == "text")), "answers are text"),
    ("audio", |_| false, "answers are text"),
    ("ignore_eos", off, "ignore_eos is not supported; min_tokens is"),
    ("stop_token_ids", empty, "stop_token_ids is not supported; use stop"),
    ("bad_words", empty, "bad_words is not supported"),
    ("allowed_token_ids", empty, "allowed_token_ids is not supported"),
    ("continue_final_message", off, "continuing a message is not supported"),
    ("add_generation_prompt", |v| v == true, "it is always added"),
    ("chat_template", |_| false, "the chat template is the model's"),
    ("guided_json", |_| false, "guided decoding is not supported"),
    ("guided_regex", |_| false, "guided decoding is not supported"),
    ("guided_choice", |_| false, "guided decoding is not supported"),
    ("guided_grammar", |_| false, "guided decoding is not supported"),
    ("structured_outputs", |_| false, "guided decoding is not supported"),
    ("mm_processor_kwargs", empty, "sizes of pictures are the server's (--min-pixels, --max-pixels)"),
];

fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

fn zero(value: &Value) -> bool {
    value.as_f64() == Some(0.0)
}

fn one(value: &Value) -> bool {
    value.as_f64() == Some(1.0)
}

fn off(value: &Value) -> bool {
    value == false
}

fn refuse(fields: JsonFields) -> Result<(), ApiError> {
    let effect = |(name, no_effect, _): &&(&str, NoEffect, &str)| fields.get(name).is_some_and(|v| !no_effect(v));
    match REFUSED.iter().find(effect) {
        Some((name, _, reason)) => Err(ApiError::field(*name, reason)),
        None => Ok(()),
    }
}

fn settings(fields: JsonFields) -> Result<AskedSettings, ApiError> {
    let temperature = fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0);
    if temperature > 0.0 && temperature < LOWEST_TEMPERATURE {
        let reason =
            format!("{temperature} is neither 0, which takes the likeliest token, nor from {LOWEST_TEMPERATURE} on");
        return Err(ApiError::field("temperature", reason));
    }
    let top_p = fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0);
    if top_p == 0.0 {
        return Err(ApiError::field("top_p", "it must be above 0; temperature 0 takes the likeliest token"));
    }
    const TOKENS: std::ops::RangeInclusive<u64> = 1..=1 << 30;
    // The newer name comes first where a client sends both.
    let max_tokens = match fields.count("max_completion_tokens", TOKENS)? {
        Some(tokens) => Some(tokens),
        None => fields.count("max_tokens", TOKENS)?,
    };
    let stream = fields.flag("stream")?;
    let options = fields.object("stream_options")?;
    if options.is_some() && !stream {
        return Err(ApiError::field("stream_options", "it needs stream: true"));
    }
    Ok(AskedSettings {
        n: fields.count("n", 1..=1 << 16)?.unwrap_or(1) as usize,
        temperature,
        top_p,
        seed: fields.seed("seed")?,
        max_tokens: max_tokens.map(|tokens| tokens as usize),
        min_tokens: fields.count("min_tokens", 0..=1 << 30)?.unwrap_or(0) as usize,
        stops: stops(fields)?,
        log_probs: false,
        top_log_probs: 0,
        visual_focus: fields.flag("visual_focus")?,
        stream,
        include_usage: options.map(|options| options.flag("include_usage")).transpose()?.unwrap_or(false),
    })
}

fn stops(fields: JsonFields) -> Result<Arc<[String]>, ApiError> {
    let wrong = |reason: String| Err(ApiError::field("stop", reason));
    let all: Vec<&str> = match fields.get("stop") {
        None => vec![],
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) if all.len() > MOST_STOPS => {
            return wrong(format!("{} stop strings; {MOST_STOPS} at most", all.len()));
        }
        Some(Value::Array(all)) => match all.iter().map(Value::as_str).collect::<Option<_>>() {
            Some(all) => all,
            None => return wrong("expected strings".into()),
        },
        Some(other) => return wrong(format!("expected a string or a list of strings, got {}", kind(other))),
    };
    if all.iter().any(|stop| stop.is_empty()) {
        return wrong("a stop string is empty".into());
    }
    if let Some(long) = all.iter().find(|stop| stop.len() > LONGEST_STOP) {
        return wrong(format!("a stop string has {} bytes; {LONGEST_STOP} at most", long.len()));
    }
    Ok(all.into_iter().map(str::to_owned).collect())
}

/// A text, a list of texts, the token ids of a text, or a list of those.
fn prompts(fields: JsonFields) -> Result<Vec<AskedText>, ApiError> {
    let wrong = |reason: &str| ApiError::field("prompt", reason);
    let all = match fields.get("prompt") {
        None => return Err(wrong("is missing")),
        Some(Value::String(text)) => vec![AskedText::Text(text.clone())],
        Some(Value::Array(all)) => match all.first() {
            None => return Err(wrong("is an empty list")),
            Some(Value::Number(_)) => vec![token_ids(all)?],
            Some(Value::String(_) | Value::Array(_)) => all
                .iter()
                .map(|one| match one {
                    Value::String(text) => Ok(AskedText::Text(text.clone())),
                    Value::Array(ids) => token_ids(ids),
                    other => Err(wrong(&format!("expected a text or a list of token ids, got {}", kind(other)))),
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(wrong(&format!("expected texts or token ids, got {}", kind(other)))),
        },
        Some(other) => return Err(wrong(&format!("expected a string or a list, got {}", kind(other)))),
    };
    let is_empty = |text: &AskedText| match text {
        AskedText::Text(text) => text.is_empty(),
        AskedText::Ids(ids) => ids.is_empty(),
    };
    match all.iter().position(is_empty) {
        Some(i) => Err(wrong(&format!("prompt {} is empty", i + 1))),
        None => Ok(all),
    }
}

fn token_ids(ids: &[Value]) -> Result<AskedText, ApiError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = ids.iter().map(id).collect();
    ids.map(AskedText::Ids)
        .ok_or_else(|| ApiError::field("prompt", "token ids are whole numbers, and nothing else stands among them"))
}

fn messages(fields: JsonFields) -> Result<Vec<(Role, Vec<AskedPart>)>, ApiError> {
    let wrong = |reason: String| Err(ApiError::field("messages", reason));
    let all = match fields.get("messages") {
        None => return wrong("is missing".into()),
        Some(Value::Array(all)) => all,
        Some(other) => return wrong(format!("expected a list of messages, got {}", kind(other))),
    };
    if all.is_empty() || all.len() > MOST_MESSAGES {
        return wrong(format!("{} messages; from 1 to {MOST_MESSAGES}", all.len()));
    }
    let messages = all.iter().enumerate().map(|(i, value)| message(&format!("messages[{i}]"), value));
    let messages: Vec<_> = messages.collect::<Result<_, _>>()?;
    match messages.last() {
        Some((Role::Assistant, _)) => wrong("the last message is the assistant's; there is nothing to answer".into()),
        _ => Ok(messages),
    }
}

fn message(place: &str, value: &Value) -> Result<(Role, Vec<AskedPart>), ApiError> {
    let Value::Object(fields) = value else {
        return Err(ApiError::field(place, format!("expected an object, got {}", kind(value))));
    };
    let fields = JsonFields(fields);
    let at = |name: &str| format!("{place}.{name}");
    let role = match fields.get("role") {
        Some(Value::String(role)) => match role.as_str() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => {
                let reason =
                    format!("there is no role {:?}; there are system, developer, user, assistant", guard::echo(other));
                return Err(ApiError::field(at("role"), reason));
            }
        },
        Some(other) => return Err(ApiError::field(at("role"), format!("expected a string, got {}", kind(other)))),
        None => return Err(ApiError::field(at("role"), "is missing")),
    };
    if fields.get("tool_calls").is_some_and(|calls| !empty(calls)) {
        return Err(ApiError::field(at("tool_calls"), "tools are not supported"));
    }
    let parts = match fields.get("content") {
        None => return Err(ApiError::field(at("content"), "is missing")),
        Some(Value::String(text)) => vec![AskedPart::Text(text.clone())],
        Some(Value::Array(parts)) => {
            let parts = parts.iter().enumerate();
            parts.map(|(k, value)| part(&format!("{place}.content[{k}]"), value)).collect::<Result<Vec<_>, _>>()?
        }
        Some(other) => {
            return Err(ApiError::field(at("content"), format!("expected a string or a list, got {}", kind(other))));
        }
    };
    let pictures = parts.iter().any(|part| matches!(part, AskedPart::Picture(_)));
    match pictures && role != Role::User {
        true => Err(ApiError::field(at("content"), "pictures stand in messages of the user")),
        false => Ok((role, parts)),
    }
}

fn part(place: &str, value: &Value) -> Result<AskedPart, ApiError> {
    let wrong = |reason: &str| Err(ApiError::field(place, reason));
    // Some clients write texts without their type.
    if let Value::String(text) = value {
        return Ok(AskedPart::Text(text.clone()));
    }
    match value["type"].as_str() {
        Some("text") => match &value["text"] {
            Value::String(text) => Ok(AskedPart::Text(text.clone())),
            _ => wrong("a part of type text has a string `text`"),
        },
        Some("image_url") => match (&value["image_url"], &value["image_url"]["url"]) {
            (Value::String(url), _) | (_, Value::String(url)) => Ok(AskedPart::Picture(url.clone())),
            _ => wrong("a part of type image_url has an object `image_url` with a string `url`"),
        },
        Some(other) => {
            let reason = format!("there are parts of type text and image_url, not {}", shown(&other.into()));
            wrong(&reason)
        }
        None => wrong("the type of this part is missing: text or image_url"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(change: Value) -> Result<AskedRequest, ApiError> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        AskedRequest::chat(body.to_string().as_bytes())
    }

    #[test]
    fn fields_have_their_defaults_and_both_spellings() {
        let asked = chat(json!({})).unwrap();
        let settings = &asked.settings;
        assert_eq!((settings.n, settings.temperature, settings.top_p, settings.seed), (1, 1.0, 1.0, None));
        assert_eq!((settings.max_tokens, settings.stream, settings.log_probs), (None, false, false));
        assert_eq!(chat(json!({ "temperature": null, "stop": null })).unwrap(), asked);
        assert_eq!(chat(json!({ "user": "u", "metadata": { "a": 1 }, "some_field": [1] })).unwrap(), asked);
        let max = |change: Value| chat(change).unwrap().settings.max_tokens;
        assert_eq!(max(json!({ "max_tokens": 7 })), Some(7));
        assert_eq!(max(json!({ "max_tokens": 7.0, "max_completion_tokens": 9 })), Some(9));
        assert_eq!(chat(json!({ "seed": -1 })).unwrap().settings.seed, Some(u64::MAX));
        assert_eq!(*chat(json!({ "stop": "a" })).unwrap().settings.stops, ["a".to_owned()]);
        assert!(chat(json!({ "logprobs": true, "top_logprobs": 0 })).unwrap().settings.log_probs);
        let no_effect =
            json!({ "response_format": { "type": "text" }, "tools": [], "frequency_penalty": 0, "top_k": -1 });
        assert_eq!(chat(no_effect).unwrap(), asked);
        let parts = json!([{ "role": "user", "content": [
            { "type": "text", "text": "a" },
            { "type": "image_url", "image_url": { "url": "data:x", "detail": "low" } },
            { "type": "image_url", "image_url": "data:y" },
        ] }]);
        let AskedPrompt::Chat(messages) = chat(json!({ "messages": parts })).unwrap().asked else { panic!() };
        let picture = |url: &str| AskedPart::Picture(url.into());
        assert_eq!(messages[0].1, [AskedPart::Text("a".into()), picture("data:x"), picture("data:y")]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        for (change, param, part) in [
            (json!({ "model": null }), "model", "is missing"),
            (json!({ "messages": [] }), "messages", "0 messages"),
            (json!({ "messages": "hi" }), "messages", "expected a list of messages, got a string"),
            (json!({ "messages": [{ "role": "tool", "content": "" }] }), "messages[0].role", "no role"),
            (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", "is missing"),
            (
                json!({ "messages": [{ "role": "user", "content": [{ "type": "input_audio" }] }] }),
                "messages[0].content[0]",
                "input_audio",
            ),
            (json!({ "messages": [{ "role": "assistant", "content": "a" }] }), "messages", "nothing to answer"),
            (json!({ "temperature": 3 }), "temperature", "from 0 to 2"),
            (json!({ "temperature": "hot" }), "temperature", "got a string"),
            (json!({ "temperature": 1e-9 }), "temperature", "neither 0"),
            (json!({ "top_p": 0 }), "top_p", "above 0"),
            (json!({ "n": 0 }), "n", "from 1"),
            (json!({ "n": 1.5 }), "n", "whole number"),
            (json!({ "max_tokens": 0 }), "max_tokens", "from 1"),
            (json!({ "max_tokens": -5 }), "max_tokens", "from 1"),
            (json!({ "seed": "x" }), "seed", "whole number"),
            (json!({ "stop": many }), "stop", "10000 stop strings; 16 at most"),
            (json!({ "stop": "x".repeat(100_000) }), "stop", "100000 bytes; 256 at most"),
            (json!({ "stop": [""] }), "stop", "is empty"),
            (json!({ "stop": [1] }), "stop", "expected strings"),
            (json!({ "stream": 1 }), "stream", "true or false"),
            (json!({ "stream_options": { "include_usage": true } }), "stream_options", "stream: true"),
            (json!({ "response_format": { "type": "json_object" } }), "response_format", "only"),
            (json!({ "tools": [{}] }), "tools", "not supported"),
            (json!({ "logit_bias": { "5": 1 } }), "logit_bias", "not supported"),
            (json!({ "top_logprobs": 2 }), "top_logprobs", "logprobs: true"),
            (json!({ "top_logprobs": 21, "logprobs": true }), "top_logprobs", "from 0 to 20"),
            (json!({ "messages": [{ "role": 5, "content": "" }] }), "messages[0].role", "got a number"),
            (json!({ "top_k": 5 }), "top_k", "top_p"),
        ] {
            let error = chat(change.clone()).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{change}");
            assert!(error.message.contains(part), "{part:?} is not in {}", error.message);
        }
        for body in [&b"{"[..], b"[]", b"", b"{\"model\": \"\xff\"}", &b"[".repeat(100_000)] {
            let error = AskedRequest::chat(body).unwrap_err();
            assert!(error.status == 400 && error.message.starts_with("the body is "), "{error:?}");
        }
        let text = |body: Value| AskedRequest::completion(body.to_string().as_bytes());
        assert!(text(json!({ "model": "m", "prompt": ["a"], "logprobs": 0 })).unwrap().settings.log_probs);
        for prompt in [
            json!(null),
            json!(""),
            json!([]),
            json!({}),
            json!(["a", ""]),
            json!(["a", 1]),
            json!([1, "a"]),
            json!([1, -2]),
            json!([1.5]),
            json!([[1], []]),
            json!([1u64 << 32]),
            json!([null]),
        ] {
            let error = text(json!({ "model": "m", "prompt": prompt })).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"), "{prompt}");
        }
        for (field, value) in [("logprobs", json!(21)), ("logprobs", json!(true)), ("top_logprobs", json!(2))] {
            let error = text(json!({ "model": "m", "prompt": "a", field: value })).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)));
        }
    }

    #[test]
    fn prompts_are_texts_and_token_ids_one_or_several() {
        let of = |prompt: Value| {
            let body = json!({ "model": "m", "prompt": prompt, "logprobs": 3 }).to_string();
            let asked = AskedRequest::completion(body.as_bytes()).unwrap();
            assert_eq!((asked.settings.log_probs, asked.settings.top_log_probs), (true, 3));
            let AskedPrompt::Texts(all) = asked.asked else { panic!() };
            all
        };
        let (text, ids) = (|text: &str| AskedText::Text(text.into()), AskedText::Ids);
        assert_eq!(of(json!("a")), [text("a")]);
        assert_eq!(of(json!(["a", "b", "a"])), [text("a"), text("b"), text("a")]);
        assert_eq!(of(json!([1, 2])), [ids(vec![1, 2])]);
        assert_eq!(of(json!([[1, 2], "b", [3]])), [ids(vec![1, 2]), text("b"), ids(vec![3])]);
    }

    /// Regression: 32 MiB of `[0,0,0...]` became more than a gigabyte.
    #[test]
    fn a_body_of_very_many_values_is_refused_before_they_are_made() {
        assert_eq!(values_of(br#"{"a": [1, 2, {"b": "x,[\"{,"}], "c": []}"#), 8);
        let body = format!("{{\"model\": \"m\", \"x\": [{}0]}}", "0,".repeat(MOST_VALUES));
        let error = AskedRequest::chat(body.as_bytes()).unwrap_err();
        assert!(error.status == 400 && error.message.contains("more than 1048576 values"), "{error:?}");
        let text = ",".repeat(2 * MOST_VALUES);
        assert_eq!(chat(json!({ "messages": [{ "role": "user", "content": text }] })).unwrap().settings.n, 1);
    }
}
