//! The answer behind its label: `Answer: 5`, `**Answer:** 5`, `答案：5`.

/// What may stand around a label and its answer and means nothing: emphasis, headings, code.
const MARKUP: [char; 4] = ['*', '_', '`', '#'];
/// Names of the answer, in lower case; the first is that of DAPO's prompt.
const NAMES: [&str; 2] = ["answer", "答案"];

/// What follows the last `Answer:` up to the end of its line, without surrounding blanks and emphasis.
///
/// The word may be in any case, bold, in a heading or in a LaTeX font, with the colon inside or outside (`**Answer:**
/// 5`, `**Answer**: 5`, `### Final Answer: 5`, `\textbf{Answer:} 5`, `Answer: **5**`), or Chinese (`**答案：**5`). The
/// answer may stand on the next line. `None` when there is no such label with something behind it.
pub fn extract_answer_line(text: &str) -> Option<&str> {
    names(text).into_iter().rev().find_map(|end| behind(&text[end..]))
}

/// Where the names of an answer end, in their order.
fn names(text: &str) -> Vec<usize> {
    let [english, chinese] = NAMES;
    let latin = text.as_bytes().windows(english.len()).enumerate();
    let latin =
        latin.filter(|(_, word)| word.eq_ignore_ascii_case(english.as_bytes())).map(|(at, _)| at + english.len());
    let mut ends: Vec<usize> = latin.chain(text.match_indices(chinese).map(|(at, _)| at + chinese.len())).collect();
    ends.sort_unstable();
    ends
}

/// The answer behind a name, when a colon follows it.
fn behind(rest: &str) -> Option<&str> {
    let blank = |c: char| c.is_whitespace() || MARKUP.contains(&c);
    // `\textbf{Answer}: 5` and `\textbf{Answer: }5`
    let (label, mut rest) = match rest.trim_start_matches(|c| blank(c) || c == '}') {
        after if after.starts_with([':', '：']) => (&rest[..rest.len() - after.len()], after),
        _ => return None,
    };
    rest = rest.trim_start_matches([':', '：']);
    if !label.contains('}') {
        let after = rest.trim_start_matches(blank);
        rest = after.strip_prefix('}').unwrap_or(rest);
    }
    let line = rest.trim_start_matches(blank).lines().next().unwrap_or("");
    let answer = without_emphasis(line.trim());
    (!answer.is_empty()).then_some(answer)
}

/// Without emphasis behind it; `\mathbb{R}^*` keeps its star.
fn without_emphasis(line: &str) -> &str {
    let mut line = line;
    loop {
        let before = line.len();
        line = line.trim_end();
        for sign in ["**", "__", "`", "*"] {
            if let Some(rest) = line.strip_suffix(sign)
                && !rest.ends_with(['^', '_', '\\'])
            {
                line = rest;
            }
        }
        if line.len() == before {
            return line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::extract_answer_line;

    #[test]
    fn labels_in_all_their_fonts() {
        for text in [
            "Answer: 5",
            "so\nAnswer:5",
            "**Answer:** 5",
            "**Answer**: 5",
            "**Answer: 5**",
            "Answer: **5**",
            "__Answer:__ 5",
            "*Answer:* 5",
            "### Final Answer: 5",
            "### **Final Answer:**\n\n5",
            "**Final Answer**\n: 5",
            "`Answer:` `5`",
            "Answer:\n 5",
            "ANSWER: 5\nAnswer:   ",
            r"\textbf{Answer:} 5",
            r"\textbf{Answer}: 5",
            r"\text{Answer: }5",
            "Answer：5",
            "**答案：**5",
            "答案: 5",
            "**最终答案**：5",
            "Answer: 4\n答案：5",
            "答案：4\nAnswer: 5",
        ] {
            assert_eq!(extract_answer_line(text), Some("5"), "{text:?}");
        }
        assert_eq!(extract_answer_line("Answer: 1\nthe answer : $2$ \nbye"), Some("$2$"));
        assert_eq!(extract_answer_line(r"Answer: \mathbb{R}^*"), Some(r"\mathbb{R}^*"));
        assert_eq!(extract_answer_line("Answer: x**2"), Some("x**2"));
        for text in ["Answer 7", "Answer:", "**Answer:**", "the answer is 7", "答案", "é答", ""] {
            assert_eq!(extract_answer_line(text), None, "{text:?}");
        }
    }
}
