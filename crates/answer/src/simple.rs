//! The plain graders: one letter, the same words, nearly the same number.

use crate::letters::choice_letters;
use crate::math;

/// Whether `given` picks the same letters as `ground_truth`.
///
/// A letter may stand alone (`B`, `(b)`, `B.`, `\text{B}`), lead its option (`B. 35 cm`, `(B) west`), or be named in a
/// sentence by `answer`, `option` or `choice` (`the answer is (B)`). Several (`A, C`, `AC`, `A and C`) equal only the
/// same several, in any order: a hedge is wrong. A truth that is no letter never matches.
pub fn multiple_choice(given: &str, ground_truth: &str) -> bool {
    let truth = choice_letters(ground_truth);
    truth != 0 && choice_letters(given) == truth
}

/// The letter that a multiple-choice answer picks, in upper case; `None` when it picks none or several.
pub fn choice_letter(text: &str) -> Option<char> {
    let letters = choice_letters(text);
    (letters.count_ones() == 1).then(|| char::from(b'A' + letters.trailing_zeros() as u8))
}

/// Takes `$`, `\boxed{}`, `\text{}`, `\mathrm{}` and `\textbf{}` off the outside of a text, as often as they are
/// nested.
pub(crate) fn unwrap_markup(text: &str) -> &str {
    let mut text = text.trim();
    // Each turn shortens the text; the bound keeps adversarial nesting cheap.
    for _ in 0..16 {
        let before = text;
        text = text.trim_matches(|c: char| c == '$' || c.is_whitespace());
        for open in [r"\boxed{", r"\text{", r"\textbf{", r"\mathrm{", r"\mathbf{", r"\(", r"\["] {
            let close = match open {
                r"\(" => r"\)",
                r"\[" => r"\]",
                _ => "}",
            };
            let unfinished = text.strip_suffix('.').unwrap_or(text);
            if let Some(inner) = unfinished.strip_prefix(open).and_then(|rest| rest.strip_suffix(close))
                && !inner.contains('}')
            {
                text = inner.trim();
            }
        }
        if text.len() == before.len() {
            break;
        }
    }
    text
}

/// Whether the two texts are the same after trimming and folding runs of blanks and letter case.
/// Two empty texts are not: an empty answer is never right.
pub fn exact(given: &str, ground_truth: &str) -> bool {
    let fold = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>().join(" ");
    let given = fold(given);
    !given.is_empty() && given == fold(ground_truth)
}

/// Whether `given` is within `tolerance` of `ground_truth`, relative to it: |given - truth| <= tolerance |truth| at
/// every size; where the truth is 0, |given| <= tolerance.
///
/// Both are read as [`parse_number`] reads them. Units convert (`1 m` is `100 cm`), and where one side has a percent
/// sign the other may leave it to the question. Anything that is no number is wrong.
pub fn numeric(given: &str, ground_truth: &str, tolerance: f64) -> bool {
    math::close(given, ground_truth, tolerance)
}

/// The number that a text states, read as the `math` grader reads it: `-3`, `1,000.5`, `2/3`, `\frac23`, `12%`
/// (0.12), `$4.50`, `3\times 10^8`, `6.02e23`, `45^\circ`, `\sqrt{2}`, `x = 5`, a unit behind it, `the total is 12`.
/// `None` for anything else, a sum that is left to be done (`3 + 4`) included, and for what f64 cannot hold.
pub fn parse_number(text: &str) -> Option<f64> {
    math::number(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_words() {
        assert!(exact(" New\tYork ", "new york"));
        assert!(!exact("New York", "newyork"));
        assert!(!exact("", " "));
    }

    #[test]
    fn numbers() {
        for (text, value) in [
            ("-3", -3.0),
            ("1,000.5", 1000.5),
            ("2/4", 0.5),
            ("12%", 0.12),
            (r"12\%", 0.12),
            ("$4.50$", 4.5),
            ("6.02e23", 6.02e23),
            ("5 cm", 5.0),
            ("7.", 7.0),
            (r"\text{8}", 8.0),
            ("−2", -2.0),
            (".5", 0.5),
            (r"\$3", 3.0),
            ("1e5", 1e5),
            (r"3\times 10^8", 3e8),
            (r"\frac12", 0.5),
            (r"-\dfrac{3}{4}", -0.75),
            (r"45^\circ", 45.0),
            ("45°", 45.0),
            ("１２", 12.0),
            (r"2\cdot10^{-3}", 0.002),
            ("3½", 3.5),
            ("x = 5", 5.0),
            ("the total is 12", 12.0),
            (r"1{,}234", 1234.0),
            ("10⁻³", 0.001),
        ] {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
        for text in ["", "x", "1/2/3/4", "1/0", "1/2/3", "3+4", "2x=1", "inf", "nan", "1e999", ",", "/", "--3"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
        assert!(numeric("3.1416", "3.14159", 1e-4));
        assert!(!numeric("3.15", "3.14159", 1e-4));
        assert!(numeric("0.00001", "0", 1e-4) && !numeric("0.001", "0", 1e-4));
        for (given, truth, right) in [
            ("3e-5", "6e-7", false),
            ("6.00001e-7", "6e-7", true),
            ("6.1e-7", "6e-7", false),
            ("-6e-7", "6e-7", false),
            ("1e300", "1.00001e300", true),
            ("1e300", "1.001e300", false),
            ("1e400", "1e400", true),
            ("0.333333", r"\frac13", true),
            ("0.333", "1/3", false),
            ("299792458", r"2.998\times10^8", true),
            ("12", "12%", true),
            ("0.12", "12%", true),
            ("1.2", "12%", false),
            ("100 cm", "1 m", true),
            ("1 cm", "1 m", false),
            (r"\sqrt{2}", "1.41421", true),
            ("about 3.1416", "3.14159", true),
            ("at least 5", "5", false),
            ("5 or more", "5", false),
            ("-5", "−5", true),
        ] {
            assert_eq!(numeric(given, truth, 1e-4), right, "{given} for {truth}");
        }
        // The tolerance is what is written, not the double next to it.
        assert!(numeric("0.309", "0.3", 0.03) && !numeric("0.3091", "0.3", 0.03));
    }
}
