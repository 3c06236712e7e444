//! Answers in words.

/// Lower case, single blanks, no punctuation at the ends, no article in front.
pub(super) fn folded(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| c.is_whitespace() || c == '~')
        .map(|word| {
            word.trim_matches(|c: char| {
                matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '*' | '`' | '“' | '”')
            })
        })
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let words = match words.split_first() {
        Some((first, rest)) if matches!(first.as_str(), "a" | "an" | "the") && !rest.is_empty() => rest,
        _ => &words,
    };
    words.join(" ")
}

/// Words that mean the same set or verdict.
pub(super) fn synonym(folded: &str) -> &str {
    match folded {
        "all real numbers" | "all reals" | "real numbers" | "any real number" | "all real number" => "ℝ",
        "no solution" | "no solutions" | "no real solution" | "no real solutions" | "empty set" | "none" | "无解" => {
            "∅"
        }
        "true" => "yes",
        "false" => "no",
        "does not exist" | "doesn't exist" | "undefined" => "dne",
        other => other,
    }
}

/// Whether the words of `given` are those of `truth`, or mean the same.
pub(super) fn same(given: &str, truth: &str) -> bool {
    !given.is_empty() && !truth.is_empty() && (given == truth || synonym(given) == synonym(truth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(folded("  The right~triangle. "), "right triangle");
        assert_eq!(folded("A"), "a");
        assert!(!same("not evelyn", "evelyn"));
        assert!(!same("eve", "evelyn"));
        assert!(same("no solution", "none"));
        assert!(!same("", ""));
    }
}
