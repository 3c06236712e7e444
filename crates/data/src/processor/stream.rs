//! Text that grows token by token, never showing half a character.

use super::Processor;
use crate::error::DataError;

/// Decodes ids one at a time. See [`Processor::stream`].
#[derive(Debug)]
pub struct StreamDecoder<'a> {
    processor: &'a Processor,
    /// Ids that still matter: a few that are already shown, for the tokenizer's context, and those that are not.
    ids: Vec<u32>,
    /// Ids of `ids` that are already shown.
    shown: usize,
}

/// Ids kept before the first one that is not shown; decoders look back at most one token (a leading space, a byte).
const CONTEXT: usize = 4;
/// A character has at most four bytes, so more undecodable tokens than this are not going to become one.
const MAX_PENDING: usize = 8;

impl<'a> StreamDecoder<'a> {
    pub(super) fn new(processor: &'a Processor) -> Self {
        Self { processor, ids: Vec::new(), shown: 0 }
    }

    /// Adds a token; returns the text that it completes, often empty while a character is incomplete.
    ///
    /// # Errors
    /// A failing tokenizer.
    pub fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.ids.push(id);
        self.advance(self.ids.len() - self.shown >= MAX_PENDING)
    }

    /// The rest, with a replacement character where the response ends inside a character.
    ///
    /// # Errors
    /// A failing tokenizer.
    pub fn finish(&mut self) -> Result<String, DataError> {
        self.advance(true)
    }

    fn advance(&mut self, force: bool) -> Result<String, DataError> {
        let before = self.processor.decode(&self.ids[..self.shown], true)?;
        let after = self.processor.decode(&self.ids, true)?;
        // U+FFFD at the end is a character whose bytes have not all come.
        if !force && after.ends_with('\u{FFFD}') {
            return Ok(String::new());
        }
        let text = after.strip_prefix(before.as_str()).unwrap_or(&after).to_owned();
        if force {
            // What is shown now may end in half a character, which is no context for what follows.
            self.ids.clear();
            self.shown = 0;
            return Ok(text);
        }
        let keep = self.ids.len().saturating_sub(CONTEXT);
        // The context must begin at a character, else its first bytes decode to something else than they did.
        let keep = (0..=keep)
            .rev()
            .find(|&k| !self.processor.decode(&self.ids[k..], true).is_ok_and(|t| t.starts_with('\u{FFFD}')))
            .unwrap_or(0);
        self.ids.drain(..keep);
        self.shown = self.ids.len();
        Ok(text)
    }
}
