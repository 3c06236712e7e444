//! Finding the answer in a response, and checking the response's shape.

mod label;
mod tag;

use std::borrow::Cow;

pub use label::extract_answer_line;
pub use tag::extract_answer_tag;

/// The content of the last `\boxed{...}` with matched braces, without surrounding blanks.
///
/// Braces are counted as they stand, as mathruler does it. `None` when there is no box, or when the last box is not
/// closed.
///
/// ```
/// assert_eq!(answer::extract_boxed(r"so \boxed{1}, no, \boxed{\frac{1}{2}}."), Some(r"\frac{1}{2}"));
/// assert_eq!(answer::extract_boxed(r"\boxed{1} or \boxed{2"), None);
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
pub(crate) fn math_format(response: &str) -> bool {
    let Some(rest) = response.strip_prefix("<think>") else { return false };
    // Any choice of the parts will do, so the earliest ones are the ones to try.
    let Some(close) = rest.find("</think>") else { return false };
    let rest = &rest[close + "</think>".len()..];
    let Some(open) = rest.find(r"\boxed{") else { return false };
    rest[open..].contains('}')
}

/// Whether the response has [`math_format`] and its thought goes back to the picture: at least one `<back>...</back>`
/// with text in it, none inside another, and thought after the last one (arXiv 2507.03019 asks for the span; these
/// conditions are our reading).
///
/// The span stands within the thought, or between two: `<think>...</think> <back>...</back> <think>...</think>
/// \boxed{...}`, the authors' second form.
pub(crate) fn look_back_format(response: &str) -> bool {
    let response = &one_thought(response)[..];
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

/// The response with thoughts that only a `<back>` span parts written as one. A span that ends one thought and begins
/// no other is left as it is.
fn one_thought(response: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = response;
    while let Some((before, span)) = rest.split_once("</think>") {
        let joined = span.trim_start().strip_prefix("<back>").and_then(|span| {
            let (inside, next) = span.split_once("</back>")?;
            Some((inside, next.trim_start().strip_prefix("<think>")?))
        });
        let Some((inside, next)) = joined else { break };
        out.extend([before, "<back>", inside, "</back>"]);
        rest = next;
    }
    match out.is_empty() {
        true => Cow::Borrowed(response),
        false => Cow::Owned(out + rest),
    }
}

/// Whether the whole response is `<think>...</think><answer>...</answer>` with only blanks between the two.
pub(crate) fn r1v_format(response: &str) -> bool {
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

    /// The span between two thoughts, and what is neither form.
    #[test]
    fn a_look_back_between_two_thoughts() {
        for (response, good) in [
            (r"<think>5+9=14</think> <back>the first digit is 5</back> <think>so 14</think> \boxed{14}", true),
            (r"<think>5+9=14</think><back>5</back><think>so 14</think>\boxed{14}", true),
            (
                "<think>5+9</think>\n<back>5</back>\n<think>so</think>\n<back>9</back>\n<think>14</think>\n\\boxed{14}",
                true,
            ),
            (r"<think>5+9</think> <back>5</back> <think>and <back>9</back> make 14</think> \boxed{14}", true),
            // No thought after the span, none before it, an empty or an open span, a span in a span.
            (r"<think>5+9=14</think> <back>5</back> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5</back> <think> </think> \boxed{14}", false),
            (r"<back>5</back> <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back> </back> <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5 <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5 <back>9</back></back> <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5</think> <think>so</back> <think>14</think> \boxed{14}", false),
            // The span closes what it did not open; words stand between; the second thought does not end; there is no
            // answer after it.
            (r"<think>5+9=14</think> <back>5</back> so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> well, <back>5</back> <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5</back> then <think>so 14</think> \boxed{14}", false),
            (r"<think>5+9=14</think> <back>5</back> <think>so 14 \boxed{14}", false),
            (r"<think>\boxed{14}</think> <back>5</back> <think>so 14</think>", false),
            (r"<think>14</think> <back>5</back> <think>so</think> \boxed{14} <back>9</back> <think>", false),
        ] {
            assert_eq!(look_back_format(response), good, "{response}");
        }
        // As the reward reads it, with blanks around the tags.
        let spaced = "< think >5+9< / think >\n< back >5< / back >\n< think >so 14< / think >\n\\boxed{14}";
        assert!(look_back_format(&tighten_tags(spaced)));
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
