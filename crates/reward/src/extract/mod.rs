//! Finding the answer in a response, and checking the response's shape.

mod label;
mod tag;

use std::borrow::Cow;

pub use label::extract_answer_line;
pub use tag::extract_answer_tag;

/// The content of the last `\boxed{...}` with matched braces, without surrounding blanks.
///
/// Braces are counted as they stand, as mathruler does it. `None` when there is no box, or when the last box is not closed.
///
/// ```
/// assert_eq!(reward::extract_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
/// assert_eq!(reward::extract_boxed(r"\boxed{1} or \boxed{2"), None);
/// ```
pub fn extract_boxed(text: &str) -> Option<&str> {
    const OPEN: &str = r"\boxed{";
    let content = &text[text.rfind(OPEN)? + OPEN.len()..];
    let mut depth = 0usize;
    for (at, byte) in content.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(content[..at].trim()),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Deletes the blanks around `<`, `>` and `/`, as EasyR1 does before it looks at a response:
/// Qwen2.5-VL-32B writes `< think >`.
pub fn tighten_tags(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '>', '/']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut after_tag_sign = false;
    for c in text.chars() {
        if matches!(c, '<' | '>' | '/') {
            out.truncate(out.trim_end().len());
            out.push(c);
            after_tag_sign = true;
        } else if !(after_tag_sign && c.is_whitespace()) {
            out.push(c);
            after_tag_sign = false;
        }
    }
    Cow::Owned(out)
}

/// Whether the whole response is `<think>...</think>...\boxed{...}...`, line breaks allowed anywhere.
pub fn math_format(response: &str) -> bool {
    let Some(rest) = response.strip_prefix("<think>") else { return false };
    // Any choice of the parts will do, so the earliest ones are the ones to try.
    let Some(close) = rest.find("</think>") else { return false };
    let rest = &rest[close + "</think>".len()..];
    let Some(open) = rest.find(r"\boxed{") else { return false };
    rest[open..].contains('}')
}

/// Whether the response has [`math_format`] and its thought goes back to the picture: at least one `<back>...</back>` with text in it,
/// none inside another, and thought after the last one (arXiv 2507.03019 asks for the span; these conditions are our reading).
pub fn look_back_format(response: &str) -> bool {
    if !math_format(response) {
        return false;
    }
    let Some((thought, after)) = response.split_once("</think>") else { return false };
    let (mut rest, mut spans) = (thought, 0);
    while let Some((before, span)) = rest.split_once("<back>") {
        let Some((inside, next)) = span.split_once("</back>") else { return false };
        if before.contains("</back>") || inside.contains("<back>") || inside.trim().is_empty() {
            return false;
        }
        (rest, spans) = (next, spans + 1);
    }
    let closed = !rest.contains("</back>") && !after.contains("<back>") && !after.contains("</back>");
    spans > 0 && closed && !rest.trim().is_empty()
}

/// Whether the whole response is `<think>...</think><answer>...</answer>` with only blanks between the two.
pub fn r1v_format(response: &str) -> bool {
    let Some(rest) = response.strip_prefix("<think>") else { return false };
    let Some(inner) = rest.strip_suffix("</answer>") else { return false };
    // The thought may itself contain a `</think>`: any one that is followed by the answer tag will do.
    let mut from = 0;
    while let Some(at) = inner[from..].find("</think>") {
        from += at + "</think>".len();
        if inner[from..].trim_start().starts_with("<answer>") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes() {
        assert_eq!(extract_boxed(r"\boxed{ 3 }"), Some("3"));
        assert_eq!(extract_boxed(r"\boxed{\text{a {b} c}} \boxed"), Some(r"\text{a {b} c}"));
        assert_eq!(extract_boxed(r"\boxed{}"), Some(""));
        assert_eq!(extract_boxed(r"\boxed{\boxed{7}}"), Some("7"));
        assert_eq!(extract_boxed("no box"), None);
        assert_eq!(extract_boxed(r"\boxed{é{ü}"), None);
    }

    #[test]
    fn a_look_back_is_a_span_within_the_thought() {
        for (response, good) in [
            (r"<think>5+9=14 <back>the first digit is 5</back> so 14</think>\boxed{14}", true),
            (r"<think><back>5</back> and <back>9</back> make 14</think> so \boxed{14}", true),
            (r"<think>5+9=14</think>\boxed{14}", false),
            (r"<think>14 <back>5</back></think>\boxed{14}", false),
            (r"<think>14 <back> </back> yes</think>\boxed{14}", false),
            (r"<think>14 <back>5 <back>9</back></back> yes</think>\boxed{14}", false),
            (r"<think>14 <back>5 yes</think>\boxed{14}", false),
            (r"<think>14 5</back> yes</think>\boxed{14}", false),
            (r"<think>14</think><back>5</back> yes \boxed{14}", false),
            (r"<think>14 <back>5</back> yes</think>14", false),
            ("", false),
        ] {
            assert_eq!(look_back_format(response), good, "{response}");
        }
    }

    #[test]
    fn formats() {
        assert_eq!(tighten_tags("< think > a / b < / think >\n\\boxed{1}"), "<think>a/b</think>\\boxed{1}");
        assert_eq!(tighten_tags("plain"), "plain");
        assert!(math_format("<think>\n</think> so \\boxed{1}."));
        assert!(!math_format(" <think></think>\\boxed{1}"));
        assert!(!math_format("<think>\\boxed{1}</think>"));
        assert!(!math_format("<think></think>\\boxed{1"));
        assert!(r1v_format("<think>a</think> b</think>\n <answer>\n1</answer>"));
        assert!(!r1v_format("<think>a</think>b<answer>1</answer>"));
        assert!(!r1v_format("<think>a</think><answer>1</answer> "));
        assert!(!r1v_format("<think>a</think><answer>"));
    }
}
