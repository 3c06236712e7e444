//! Where in a longer text the answer stands.

use super::names::is_ideograph;

/// Largest distance, in bytes, between two boxes that are one answer together.
const MAX_GAP: usize = 60;
/// Most boxes that are one answer together.
const MAX_BOXES: usize = 24;

/// The content of the last `\boxed{}`, with those before it when only `and`, `or`, commas or signs stand between them; and
/// what follows the last box.
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

/// Whether the answer is set apart from what is around it: dollars, or words that announce it.
pub(super) fn is_marked(text: &str) -> bool {
    last_formula(text).is_some()
        || text.contains("答案")
        || text.to_ascii_lowercase().contains("answer")
        || text.chars().any(is_ideograph)
}

/// What a sentence may give as its answer, best first.
pub(super) fn from_sentence(text: &str) -> Vec<String> {
    let text = match text.find("I hope it is correct") {
        Some(end) => text[..end].trim_end_matches([' ', '.']),
        None => text,
    };
    let mut found = Vec::new();
    let lower = text.to_ascii_lowercase();
    let anchor = ["final answer", "answer"].iter().find_map(|word| lower.rfind(word).map(|at| at + word.len()));
    if let Some(anchor) = anchor {
        let tail = &text[anchor..];
        let line = tail.lines().find(|line| line.chars().any(char::is_alphanumeric)).unwrap_or(tail);
        // `is` and the colon come before the answer itself.
        let after = [" is:", " is ", ":"].iter().filter_map(|word| line.rfind(word).map(|at| at + word.len())).max();
        if let Some(after) = after {
            let answer = sentence(&line[after..]);
            found.push(answer.to_owned());
            found.extend(formula(answer));
            found.extend(last_number(answer));
        }
        found.extend(formula(tail));
        found.extend(last_number(sentence(line)));
    }
    if text.contains("答案不") {
        return Vec::new();
    }
    if let Some(answer) = chinese(text) {
        found.push(answer.to_owned());
        found.extend(formula(answer));
        found.extend(last_number(answer));
    }
    // Whichever stands last.
    let (formula, number) = (formula(text), last_number(text));
    let number_after =
        last_formula(text).is_none_or(|(_, _, stop)| text[stop..].contains(|c: char| c.is_ascii_digit()));
    if number_after {
        found.extend(number);
        found.extend(formula);
    } else {
        found.extend(formula);
        found.extend(number);
    }
    found
}

/// What follows the last `答案是`, or a `解集是` that nothing but the set follows.
fn chinese(text: &str) -> Option<&str> {
    let after_last = |word: &str| {
        let after = &text[text.rfind(word)? + word.len()..];
        let answer = after.trim_start().trim_start_matches(['是', '为', '应', '：', ':']);
        let end = answer.find(['。', '\n']).unwrap_or(answer.len());
        (answer.len() < after.len()).then(|| answer[..end].trim())
    };
    after_last("答案").or_else(|| after_last("解集").filter(|answer| !answer.contains(is_ideograph)))
}

/// Up to the full stop that ends a sentence.
fn sentence(text: &str) -> &str {
    let end = text.match_indices('.').find(|(at, _)| text[at + 1..].chars().next().is_none_or(char::is_whitespace));
    text[..end.map_or(text.len(), |(at, _)| at)].trim()
}

/// The last formula between dollars or \( \), \[ \]; several that `and`, `or` or commas join are taken together.
fn formula(text: &str) -> Option<String> {
    let mut contents: Vec<String> = Vec::new();
    let mut end = text.len();
    while contents.len() < MAX_BOXES {
        let Some((start, inside, stop)) = last_formula(&text[..end]) else { break };
        let after = &text[stop..];
        if !contents.is_empty() && !joins_formulas(&text[stop..end]) {
            break;
        }
        contents.push(with_percent(inside, after));
        end = start;
    }
    contents.reverse();
    (!contents.is_empty()).then(|| contents.join(" , "))
}

fn joins_formulas(gap: &str) -> bool {
    gap.len() < 16
        && matches!(gap.trim_matches(|c: char| c.is_whitespace() || c == ','), "" | "and" | "or" | "和" | "或")
        && !gap.trim().is_empty()
}

/// Begin, content and end of the last formula.
fn last_formula(text: &str) -> Option<(usize, &str, usize)> {
    let mut best: Option<(usize, &str, usize)> = None;
    let mut consider = |start: usize, inside_from: usize, inside_to: usize, stop: usize| {
        if inside_from < inside_to && best.is_none_or(|(_, _, other)| stop > other) {
            best = Some((start, text[inside_from..inside_to].trim(), stop));
        }
    };
    for (open, close) in [(r"\(", r"\)"), (r"\[", r"\]")] {
        if let Some(to) = text.rfind(close)
            && let Some(from) = text[..to].rfind(open)
        {
            consider(from, from + 2, to, to + 2);
        }
    }
    let mut ends = text.rmatch_indices('$').map(|(at, _)| at).filter(|&at| !text[..at].ends_with('\\'));
    if let Some(to) = ends.next() {
        let doubled = text[..to].ends_with('$');
        let to = if doubled { to - 1 } else { to };
        if let Some(from) = ends.find(|&at| at + 1 < to) {
            let start = if doubled && text[..from].ends_with('$') { from - 1 } else { from };
            consider(start, from + 1, to, if doubled { to + 2 } else { to + 1 });
        }
    }
    best
}

/// The last number or plain arithmetic that stands free, with its percent sign.
fn last_number(text: &str) -> Option<String> {
    let part =
        |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '/' | '+' | '-' | '*' | '^' | '(' | ')' | '×' | '÷');
    let mut end = text.len();
    loop {
        let last = text[..end].rfind(|c: char| c.is_ascii_digit())?;
        let from =
            text[..=last].rfind(|c| !part(c)).map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
        // The first digit or sign of the run; AB12 is a name, but Chinese needs no blank between a word and a number.
        let free = text[..from].chars().next_back().is_none_or(|c| is_ideograph(c) || !c.is_alphanumeric() && c != '_');
        if free {
            let run = text[from..=last].trim_start_matches([',', '.', ')', '*', '/', '^', '+']);
            let run = if run.is_empty() { &text[last..=last] } else { run };
            let run = if text[..offset(text, run)].ends_with('.') && !run.contains('.') {
                &text[offset(text, run) - 1..=last]
            } else {
                run
            };
            return Some(with_percent(run, &text[last + 1..]));
        }
        end = from;
        if end == 0 {
            return None;
        }
    }
}
