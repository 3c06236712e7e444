//! Replies in OpenAI's shapes, whole and in parts.

use data::Processor;
use rollout::{FinishReason, TokenLogProb};
use serde_json::{Map, Value, json};

use crate::open::TextPiece;
use crate::prepare::PreparedRequest;
use crate::shared::{ServerState, now};

/// What all parts of a reply say.
#[derive(Debug, Clone)]
pub(crate) struct ReplyHead {
    id: String,
    created: u64,
    model: String,
    is_chat: bool,
    choices: usize,
    seed: u64,
    prompt_tokens: usize,
    log_probs: bool,
    top_log_probs: bool,
    focus: bool,
    include_usage: bool,
}

fn reason(finish: Option<FinishReason>) -> Value {
    match finish {
        None => Value::Null,
        Some(FinishReason::Stop) => "stop".into(),
        Some(FinishReason::Length) => "length".into(),
    }
}

/// What a token says by itself: half a character is a replacement character.
fn token_text(processor: &Processor, id: u32) -> String {
    processor.decode(&[id], false).unwrap_or_default()
}

/// A token as chat replies name it.
fn named(text: &str, log_prob: f32) -> Value {
    // Half a character has no bytes that are its text.
    let bytes = (!text.contains('\u{FFFD}')).then_some(text.as_bytes());
    json!({ "token": text, "logprob": log_prob, "bytes": bytes })
}

/// The likeliest tokens as completions name them. Of several that look the same, as halves of characters do, the
/// likeliest is named.
fn by_text(tops: &[TokenLogProb], processor: &Processor) -> Value {
    let mut all = Map::new();
    for top in tops {
        all.entry(token_text(processor, top.id)).or_insert_with(|| top.log_prob.into());
    }
    Value::Object(all)
}

impl ReplyHead {
    pub(crate) fn new(prepared: &PreparedRequest, state: &ServerState) -> Self {
        use std::hash::{BuildHasher, RandomState};
        let kind = if prepared.is_chat { "chatcmpl" } else { "cmpl" };
        Self {
            id: format!("{kind}-{:016x}", RandomState::new().hash_one(0)),
            created: now(),
            model: state.options.model_names.first().cloned().unwrap_or_default(),
            is_chat: prepared.is_chat,
            choices: prepared.requests.iter().map(|request| request.n).sum(),
            seed: prepared.seed,
            prompt_tokens: prepared.requests.iter().map(|request| request.prompt.len()).sum(),
            log_probs: prepared.settings.log_probs,
            top_log_probs: prepared.settings.top_log_probs > 0,
            focus: prepared.settings.visual_focus,
            include_usage: prepared.settings.include_usage,
        }
    }

    fn object(&self, object: &str) -> Map<String, Value> {
        let head = [
            ("id", self.id.clone().into()),
            ("object", object.into()),
            ("created", self.created.into()),
            ("model", self.model.clone().into()),
            ("system_fingerprint", Value::Null),
            // Ours: what to send to get the same again.
            ("seed", self.seed.into()),
        ];
        head.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    fn usage(&self, completion_tokens: usize) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        })
    }

    /// The log-probs of a piece; `offset` is where the text of its first token begins, in characters, and becomes where
    /// that of the next piece does.
    fn log_probs(&self, piece: &TextPiece, processor: &Processor, offset: &mut usize) -> Value {
        if !self.log_probs {
            return Value::Null;
        }
        let texts: Vec<String> = piece.ids.iter().map(|id| token_text(processor, *id)).collect();
        if self.is_chat {
            let entry = |(i, (text, log_prob)): (usize, (&String, &f32))| {
                let mut entry = named(text, *log_prob);
                let tops = piece.top_log_probs.get(i).into_iter().flatten();
                let top = |top: &TokenLogProb| named(&token_text(processor, top.id), top.log_prob);
                entry["top_logprobs"] = tops.map(top).collect();
                entry
            };
            let content: Vec<Value> = texts.iter().zip(&piece.log_probs).enumerate().map(entry).collect();
            return json!({ "content": content, "refusal": null });
        }
        let mut offsets = Vec::with_capacity(texts.len());
        for text in &texts {
            offsets.push(*offset);
            *offset += text.chars().count();
        }
        let tops = match self.top_log_probs {
            true => piece.top_log_probs.iter().map(|tops| by_text(tops, processor)).collect(),
            false => Value::Null,
        };
        json!({ "tokens": texts, "token_logprobs": piece.log_probs, "top_logprobs": tops, "text_offset": offsets })
    }

    fn focus(&self, piece: &TextPiece, processor: &Processor, choice: &mut Map<String, Value>) {
        if self.focus {
            let entry = |(id, focus): (&u32, &f32)| json!({ "token": token_text(processor, *id), "focus": focus });
            let all: Vec<Value> = piece.ids.iter().zip(&piece.focus).map(entry).collect();
            choice.insert("visual_focus".into(), all.into());
        }
    }

    /// The whole reply, of pieces that were joined: one a choice.
    pub(crate) fn whole(&self, pieces: &[TextPiece], processor: &Processor) -> Value {
        let choice = |piece: &TextPiece| {
            let mut choice = Map::new();
            choice.insert("index".into(), piece.choice.into());
            match self.is_chat {
                true => {
                    let message = json!({ "role": "assistant", "content": piece.text, "refusal": null });
                    choice.insert("message".into(), message);
                }
                false => _ = choice.insert("text".into(), piece.text.clone().into()),
            }
            choice.insert("logprobs".into(), self.log_probs(piece, processor, &mut 0));
            choice.insert("finish_reason".into(), reason(piece.finish));
            self.focus(piece, processor, &mut choice);
            Value::Object(choice)
        };
        let mut reply = self.object(if self.is_chat { "chat.completion" } else { "text_completion" });
        reply.insert("choices".into(), pieces.iter().map(choice).collect());
        reply.insert("usage".into(), self.usage(pieces.iter().map(|piece| piece.ids.len()).sum()));
        Value::Object(reply)
    }
}

/// A reply in parts: the events of a stream.
#[derive(Debug)]
pub(crate) struct ReplyStream {
    head: ReplyHead,
    /// Where the text of each choice's next token begins, in characters.
    offsets: Vec<usize>,
    tokens: usize,
}

/// One event of a stream.
pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

impl ReplyStream {
    pub(crate) fn new(head: ReplyHead) -> Self {
        Self { offsets: vec![0; head.choices], tokens: 0, head }
    }

    fn part(&self, choices: Vec<Value>) -> Map<String, Value> {
        let mut part = self.head.object(if self.head.is_chat { "chat.completion.chunk" } else { "text_completion" });
        part.insert("choices".into(), choices.into());
        if self.head.include_usage {
            part.insert("usage".into(), Value::Null);
        }
        part
    }

    /// What comes before any text: who speaks.
    pub(crate) fn begin(&self) -> String {
        let role = |index| {
            let delta = json!({ "role": "assistant", "content": "" });
            let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            event(&Value::Object(self.part(vec![choice])))
        };
        if self.head.is_chat { (0..self.head.choices).map(role).collect() } else { String::new() }
    }

    /// The event of one piece.
    pub(crate) fn piece(&mut self, piece: &TextPiece, processor: &Processor) -> String {
        self.tokens += piece.ids.len();
        let mut choice = Map::new();
        choice.insert("index".into(), piece.choice.into());
        match self.head.is_chat {
            true => _ = choice.insert("delta".into(), json!({ "content": piece.text })),
            false => _ = choice.insert("text".into(), piece.text.clone().into()),
        }
        let mut unknown = 0;
        let offset = self.offsets.get_mut(piece.choice).unwrap_or(&mut unknown);
        choice.insert("logprobs".into(), self.head.log_probs(piece, processor, offset));
        choice.insert("finish_reason".into(), reason(piece.finish));
        self.head.focus(piece, processor, &mut choice);
        event(&Value::Object(self.part(vec![Value::Object(choice)])))
    }

    /// What comes last.
    pub(crate) fn end(&self) -> String {
        let mut out = String::new();
        if self.head.include_usage {
            let mut part = self.part(vec![]);
            part.insert("usage".into(), self.head.usage(self.tokens));
            out += &event(&Value::Object(part));
        }
        out + "data: [DONE]\n\n"
    }
}
