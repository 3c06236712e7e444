//! Stop strings in a text that grows: found wherever tokens end, and never shown in part.

use std::sync::Arc;

/// Most stop strings of a request: four times as many as OpenAI takes.
pub(crate) const MOST_STOPS: usize = 16;
/// Most bytes of one: what may be part of a stop string is held back and searched again with each token.
pub(crate) const LONGEST_STOP: usize = 256;

/// Cuts a text that comes in pieces before the first stop string that it completes.
#[derive(Debug)]
pub(crate) struct StopFilter {
    stops: Arc<[String]>,
    /// The end of the text, which may be the beginning of a stop string.
    held: String,
    hit: bool,
}

impl StopFilter {
    pub(crate) fn new(stops: Arc<[String]>) -> Self {
        Self { stops, held: String::new(), hit: false }
    }

    /// Whether a stop string has come: nothing follows.
    pub(crate) fn hit(&self) -> bool {
        self.hit
    }

    /// Adds text; what of it is certain to be shown. Where it ends is the end of the stop string that is complete
    /// first, so that the same text gives the same, in whatever pieces it comes.
    pub(crate) fn push(&mut self, text: &str) -> String {
        if self.hit {
            return String::new();
        }
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at)));
        if let Some((_, at)) = first.min() {
            self.hit = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let kept = self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// The rest, when no token follows.
    pub(crate) fn finish(&mut self) -> String {
        match self.hit {
            true => String::new(),
            false => std::mem::take(&mut self.held),
        }
    }
}

/// Bytes at the end of `text` that are the beginning of `stop`, and not all of it.
fn begun(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(at, _)| at).filter(|&at| at > 0 && text.ends_with(&stop[..at]));
    ends.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that is shown, and whether a stop string came, for pieces of `size` characters.
    fn shown(text: &str, stops: &[&str], size: usize) -> (String, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|s| s.to_string()).collect());
        let characters: Vec<char> = text.chars().collect();
        let mut out = String::new();
        for piece in characters.chunks(size) {
            out += &filter.push(&piece.iter().collect::<String>());
            // Nothing that could still be cut is shown.
            assert!(text.starts_with(&out), "{out:?} of {text:?}");
        }
        out += &filter.finish();
        (out, filter.hit())
    }

    #[test]
    fn a_text_ends_before_its_first_stop_string_in_whatever_pieces_it_comes() {
        for (text, stops, expected, hit) in [
            ("one two three", &["two"][..], "one ", true),
            ("one two three", &["four"], "one two three", false),
            ("one two thr", &["three"], "one two thr", false),
            ("aab", &["ab"], "a", true),
            ("aaab", &["aab"], "a", true),
            ("xabcd", &["abcd", "bc"], "xa", true),
            ("xabcy", &["abcd", "zz"], "xabcy", false),
            ("naïve €5", &["€5", "ïz"], "naïve ", true),
            ("abab", &["abc", "bab"], "a", true),
            ("stop", &["stop"], "", true),
            ("", &["a"], "", false),
            ("a\n\nb", &["\n\n"], "a", true),
        ] {
            for size in 1..=text.chars().count().max(1) {
                assert_eq!(shown(text, stops, size), (expected.to_owned(), hit), "{text:?} {stops:?} by {size}");
            }
        }
    }

    /// What may become a stop string waits, and no more than that.
    #[test]
    fn only_what_may_become_a_stop_string_is_held_back() {
        let mut filter = StopFilter::new(["<end>".to_owned()].into());
        assert_eq!(filter.push("a<e"), "a");
        assert_eq!(filter.push("x"), "<ex");
        assert_eq!(filter.push("b<end"), "b");
        assert_eq!(filter.push(">c"), "");
        assert!(filter.hit());
        assert_eq!((filter.push("more"), filter.finish()), (String::new(), String::new()));
    }
}
