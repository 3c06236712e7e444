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

/// Whether the words of `given` are those of `truth`, or a sentence that ends in them after `is` or a colon.
pub(super) fn same(given: &str, truth: &str) -> bool {
    if given.is_empty() || truth.is_empty() {
        return false;
    }
    if given == truth || synonym(given) == synonym(truth) {
        return true;
    }
    // `the answer is evelyn`: the copula keeps `not evelyn` out.
    given.strip_suffix(truth).is_some_and(|rest| {
        let rest = rest.trim_end();
        [" is", " is the", " is a", " is an", " are", ":"].iter().any(|end| rest.ends_with(end)) || rest == "is"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(folded("  The right~triangle. "), "right triangle");
        assert_eq!(folded("A"), "a");
        assert!(same("the fastest runner is evelyn", "evelyn"));
        assert!(!same("not evelyn", "evelyn"));
        assert!(!same("eve", "evelyn"));
        assert!(same("no solution", "none"));
        assert!(!same("", ""));
    }
}
