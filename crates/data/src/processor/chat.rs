//! A conversation as chat templates see it.

use super::Content;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// As chat templates name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatMessage {
    /// Whose it is.
    pub role: Role,
    /// Texts and pictures in their order.
    pub content: Vec<Content>,
}

impl ChatMessage {
    /// Bytes of its texts.
    pub(super) fn text_bytes(&self) -> usize {
        let bytes = self.content.iter().map(|part| match part {
            Content::Text(text) => text.len(),
            Content::Image(_) => 0,
        });
        bytes.sum()
    }

    /// With neighbouring texts joined: two harmless halves can make one special token.
    pub(super) fn joined(&self) -> Self {
        let mut content: Vec<Content> = Vec::with_capacity(self.content.len());
        for part in &self.content {
            match (content.last_mut(), part) {
                (Some(Content::Text(last)), Content::Text(text)) => last.push_str(text),
                _ => content.push(part.clone()),
            }
        }
        Self { role: self.role, content }
    }
}

/// The conversation of one question, with a system message before it if given.
pub(super) fn one_question(system: Option<&str>, content: &[Content]) -> Vec<ChatMessage> {
    let system = system.map(|text| ChatMessage { role: Role::System, content: vec![Content::Text(text.to_owned())] });
    system.into_iter().chain([ChatMessage { role: Role::User, content: content.to_vec() }]).collect()
}
