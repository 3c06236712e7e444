//! What is said of a letter right behind it: that it is right, or that it is not.

/// How many words behind a letter are searched for a judgement on it.
const NEAR: usize = 6;

/// Words with which a judgement in English begins.
#[rustfmt::skip]
const VERBS: &[&str] = &[
    "is", "are", "was", "were", "isn't", "aren't", "wasn't", "cannot", "can't", "can", "could", "must", "should",
    "would", "does", "doesn't", "do",
    "don't", "has", "fails", "fail", "seems", "looks", "appears", "being",
];
/// What is said of the right one.
const RIGHT: &[&str] =
    &["correct", "right", "true", "answer", "answers", "best", "choice", "option", "valid", "accurate"];
/// What is said of a wrong one.
#[rustfmt::skip]
const WRONG: &[&str] = &[
    "not", "cannot", "neither", "never", "except", "incorrect", "incorrectly", "wrong", "false", "untrue", "invalid",
    "inaccurate", "eliminated",
    "mistake", "mistaken", "distractor", "trap", "tempting", "far",
    "ruled", "excluded", "discarded", "rejected", "dismissed", "impossible", "fails", "fail", "out",
];
/// What leaves it open.
const OPEN: &[&str] =
    &["if", "unless", "only", "partly", "partially", "may", "might", "could", "also", "almost", "nearly"];

/// Whether a word denies what follows it.
pub(super) fn is_negation(word: &str) -> bool {
    matches!(
        word,
        "not" | "cannot" | "neither" | "nor" | "never" | "except" | "incorrect" | "wrong" | "false" | "without"
    ) || word.ends_with("n't")
        || word.ends_with("n’t")
}

/// `is correct` is true, `is not correct` and `is wrong` are false; `None` where nothing is said, or it is left open.
pub(super) fn judgement(rest: &str) -> Option<bool> {
    let rest = rest.trim_start();
    if let Some(verdict) = chinese(rest) {
        return Some(verdict);
    }
    let (mut right, mut open) = (None, false);
    for (at, word) in rest.split_whitespace().take(NEAR + 1).enumerate() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_ascii_lowercase();
        if at == 0 && !VERBS.contains(&bare.as_str()) {
            return None;
        }
        if is_negation(&bare) || WRONG.contains(&bare.as_str()) {
            return Some(false);
        }
        open |= OPEN.contains(&bare.as_str()) && right.is_none();
        // `is larger than the right one` judges by another word.
        if RIGHT.contains(&bare.as_str()) {
            right = Some(true);
            break;
        } else if right.is_none() && !is_link(&bare) {
            break;
        }
        if word.ends_with(['.', ',', ';', '!', '?', ':']) {
            break;
        }
    }
    right.filter(|_| !open)
}

/// Words between the verb and what is said.
fn is_link(word: &str) -> bool {
    VERBS.contains(&word)
        || OPEN.contains(&word)
        || matches!(
            word,
            "the"
                | "a"
                | "an"
                | "be"
                | "indeed"
                | "clearly"
                | "therefore"
                | "thus"
                | "then"
                | "our"
                | "my"
                | "most"
                | "definitely"
                | "certainly"
                | "both"
                | "all"
                | "final"
                | "single"
                | "to"
                | "by"
                | "have"
                | "been"
                | ""
                | "also"
                | "common"
        )
}

fn chinese(rest: &str) -> Option<bool> {
    let mut rest = rest;
    for word in ["选项", "说法", "项", "显然", "才", "是", "都", "均", "也", "的", "为", "最"] {
        rest = rest.strip_prefix(word).unwrap_or(rest).trim_start();
    }
    if rest.starts_with(['不', '错', '误', '非', '未'])
        || ["排除", "无法", "没有"].iter().any(|word| rest.starts_with(word))
    {
        return Some(false);
    }
    let right = ["正确", "符合", "成立", "答案", "合适"].iter().any(|word| rest.starts_with(word));
    // `对` is right only when nothing follows: `对应` is something else.
    let alone = rest.strip_prefix('对').is_some_and(|after| {
        let after = after.trim_start_matches(['的', '了']);
        after.is_empty() || after.starts_with(['，', '。', ',', '.', '；', ';', '！', '\n', ' '])
    });
    (right || alone).then_some(true)
}
