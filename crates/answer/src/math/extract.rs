//! Where in a longer text the answer stands.

/// Largest distance, in bytes, between two boxes that are one answer together.
const MAX_GAP: usize = 60;
/// Most boxes that are one answer together.
const MAX_BOXES: usize = 24;

/// The content of the last `\boxed{}`, with those before it when only `and`, `or`, commas or signs stand between them;
/// and what follows the last box.
pub(super) fn boxed(text: &str) -> Option<(String, &str)> {
    let mut contents = Vec::new();
    let mut end = text.len();
    let mut behind = "";
    while contents.len() < MAX_BOXES {
        let Some(start) = text[..end].rfind(r"\boxed") else { break };
        let inside = text[start + r"\boxed".len()..].trim_start();
        let Some(inside) = inside.strip_prefix('{') else {
            if contents.is_empty() {
                // \boxed 5
                return inside.split_whitespace().next().map(|word| (word.trim_matches('$').to_owned(), ""));
            }
            break;
        };
        let content = match closed(inside) {
            Some(content) => content,
            // An unclosed box goes to the end of its line.
            None if contents.is_empty() => inside.lines().next().unwrap_or(""),
            None => break,
        };
        let after = &text[offset(text, inside) + content.len()..];
        let after = after.strip_prefix('}').unwrap_or(after);
        if !contents.is_empty() {
            // A box around the box is none beside it.
            match text.get(offset(text, after)..end) {
                Some(gap) if joins(gap) => {}
                _ => break,
            }
        }
        if contents.is_empty() {
            behind = after;
        }
        contents.push(with_percent(content, after));
        end = start;
    }
    contents.reverse();
    (!contents.is_empty()).then(|| (contents.join(" , "), behind))
}

/// The text from `final answer is` on, when it has that and something after it.
pub(super) fn announced(text: &str) -> Option<&str> {
    const WORDS: &str = "final answer is";
    let at = text.to_ascii_lowercase().rfind(WORDS)?;
    text[at + WORDS.len()..].contains(|c: char| c.is_alphanumeric()).then(|| &text[at..])
}

/// Where `part`, a slice of `text`, begins in it.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

/// What stands before the brace that closes the group that has been opened.
fn closed(text: &str) -> Option<&str> {
    let mut depth = 0usize;
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(&text[..at]),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// A percent sign, or the word, right behind an answer belongs to it.
fn with_percent(content: &str, after: &str) -> String {
    let after = after.trim_start_matches(['$', ' ', '\\', ')', '.']);
    let percent = ["%", "percent", "pct"].iter().any(|word| after.starts_with(word));
    if percent && !content.contains('%') { format!("{content}\\%") } else { content.to_owned() }
}

fn joins(gap: &str) -> bool {
    if gap.len() > MAX_GAP || gap.contains('.') || gap.contains("\n\n") {
        return false;
    }
    // Commands such as \quad and \text are no words, and neither are the names of what is equated.
    let mut spoken = gap
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| word.len() > 1 && !matches!(*word, "quad" | "qquad" | "text" | "mbox" | "left" | "right"));
    matches!(spoken.next_back(), None | Some("and" | "or"))
}
