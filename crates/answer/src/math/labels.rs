//! Statements picked by their circled numbers: `①③④`.

/// Most numbers in an answer.
const MAX_LABELS: usize = 20;

/// Whether two answers pick the same numbered statements; `None` when one of them picks none. A truth out of order is
/// an order.
pub(super) fn same(truth: &str, given: &str) -> Option<bool> {
    if !truth.contains(|c| label(c).is_some()) {
        return None;
    }
    let (truth, mut given) = (read(truth)?, read(given)?);
    let ascending = truth.windows(2).all(|pair| pair[0] < pair[1]);
    if ascending {
        given.sort_unstable();
        given.dedup();
    }
    Some(truth == given)
}

/// The number in a circle, in brackets of one character, or on black.
fn label(c: char) -> Option<u32> {
    [('①', '⑳'), ('⑴', '⒇'), ('❶', '❿'), ('⓵', '⓾')]
        .into_iter()
        .find_map(|(first, last)| (first..=last).contains(&c).then(|| c as u32 - first as u32 + 1))
}

/// The numbers of an answer that says nothing else.
fn read(text: &str) -> Option<Vec<u32>> {
    let from = text.find(|c| label(c).is_some())?;
    let last = text.char_indices().rfind(|(_, c)| label(*c).is_some())?;
    let (lead, tail) = (text[..from].trim(), text[last.0 + last.1.len_utf8()..].trim());
    let lead = lead.trim_end_matches(['$', '{', '(', '*', ' ', '"']);
    let states = lead.is_empty()
        || lead.starts_with('\\') && lead.len() < 12
        || ["是", "为", "有", "选", "：", ":", "答案", "序号", " is", " are", "即"]
            .iter()
            .any(|word| lead.ends_with(word));
    let turned = |text: &str| {
        ["不", "错", "除", "非", "或", "not", "wrong", "false", "except", "n't"].iter().any(|word| text.contains(word))
    };
    let tail = tail.trim_matches(['$', '}', ')', '*', ' ', '.', '。', '．', '"']);
    let confirms =
        matches!(tail, "" | "正确" | "是正确的" | "都正确" | "成立" | "are correct" | "is correct" | "符合题意");
    if !states || !confirms || turned(lead) {
        return None;
    }
    let mut found = Vec::new();
    let mut rest = &text[from..last.0 + last.1.len_utf8()];
    while let Some(c) = rest.chars().next() {
        if let Some(number) = label(c) {
            found.push(number);
        } else if !(c.is_whitespace()
            || matches!(c, ',' | '，' | '、' | ';' | '；' | '和' | '与' | '→' | '-' | '>' | '&' | '$'))
        {
            rest = rest
                .strip_prefix("and")
                .or_else(|| rest.strip_prefix(r"\text"))
                .or_else(|| rest.strip_prefix(r"\quad"))?;
            continue;
        }
        rest = &rest[c.len_utf8()..];
    }
    (found.len() <= MAX_LABELS).then_some(found)
}
