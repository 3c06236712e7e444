//! The answer between tags.

use std::sync::LazyLock;

use regex::Regex;

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?i)<\s*(/?)\s*answer\s*>").expect("the pattern is valid, as the tests show"));

/// The content of the last complete `<answer>...</answer>`, without surrounding blanks; `None` when there is none.
///
/// It may span lines, and the tags may hold blanks (`< answer >`) and be in any case. Of tags within tags the inner
/// pair counts; a tag that is not closed is passed over. (R1-V's own rule takes the first pair, and only on one line.)
///
/// ```
/// use answer::extract::extract_answer_tag;
/// assert_eq!(extract_answer_tag("<answer>\n12\n</answer>"), Some("12"));
/// assert_eq!(extract_answer_tag("<answer>1</answer> no, <answer>2</answer> <answer>3"), Some("2"));
/// ```
pub fn extract_answer_tag(text: &str) -> Option<&str> {
    let mut found = None;
    let mut open: Option<usize> = None;
    for tag in TAG.captures_iter(text) {
        let whole = tag.get(0)?;
        if tag.get(1).is_some_and(|slash| slash.is_empty()) {
            open = Some(whole.end());
        } else if let Some(from) = open.take() {
            found = Some(text[from..whole.start()].trim());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::extract_answer_tag;

    #[test]
    fn the_last_complete_pair_counts() {
        for (text, answer) in [
            ("<answer> 5 </answer>", Some("5")),
            ("<answer>\n12\n</answer>", Some("12")),
            ("<answer>\n\n 1,\n 2\n</answer>\n", Some("1,\n 2")),
            ("<answer> 5 </answer><answer>6</answer>", Some("6")),
            ("<answer>\n5</answer> <answer>6</answer>", Some("6")),
            ("< answer >5< / answer >", Some("5")),
            ("<Answer>5</ANSWER>", Some("5")),
            ("<answer>a <answer>5</answer></answer>", Some("5")),
            ("I write <answer> tags </think> <answer>12</answer>", Some("12")),
            ("<answer>1</answer> <answer>2", Some("1")),
            ("5</answer> <answer>6</answer>", Some("6")),
            ("<answer>5", None),
            ("5</answer>", None),
            ("<answers>5</answers>", None),
            ("<answer></answer>", Some("")),
            ("", None),
        ] {
            assert_eq!(extract_answer_tag(text), answer, "{text:?}");
        }
    }
}
