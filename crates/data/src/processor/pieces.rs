//! The texts of single tokens, which together are the response to the last character.

use super::Processor;
use crate::error::DataError;

/// The text that each of `ids` adds to `text`, which all of them decode to.
///
/// # Errors
/// A tokenizer that fails.
pub(super) fn of(ids: &[u32], text: &str, processor: &Processor) -> Result<Vec<String>, DataError> {
    let mut stream = processor.stream();
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect::<Result<_, _>>()?;
    let rest = stream.finish()?;
    if let Some(last) = pieces.last_mut() {
        last.push_str(&rest);
    }
    match pieces.concat() == text {
        true => Ok(pieces),
        // Bytes that are no text, more of them than the stream waits for.
        false => by_prefixes(ids, text, processor),
    }
}

/// The same by decoding each beginning of the response: slow, and right whatever the bytes.
fn by_prefixes(ids: &[u32], text: &str, processor: &Processor) -> Result<Vec<String>, DataError> {
    let mut pieces = Vec::with_capacity(ids.len());
    let mut shown = 0;
    for end in 1..=ids.len() {
        let known = match end == ids.len() {
            true => text.len(),
            false => common(&processor.decode(&ids[..end], true)?, text),
        };
        pieces.push(text.get(shown..known).unwrap_or_default().to_string());
        shown = shown.max(known);
    }
    Ok(pieces)
}

/// Bytes of the characters with which both texts begin, without a last one that stands for bytes that are no text: what
/// follows may change it.
fn common(beginning: &str, text: &str) -> usize {
    let same = std::iter::zip(beginning.chars(), text.chars()).take_while(|(a, b)| a == b);
    let bytes: usize = same.map(|(a, _)| a.len_utf8()).sum();
    text[..bytes].trim_end_matches('\u{FFFD}').len()
}
