use super::grade_answer;

#[test]
fn each_step_decides() {
    for (given, truth, right) in [
        // Strings after the first normalisation, after the second, then values.
        (r"\dfrac12", r"\frac{1}{2}", true),
        ("5 cm", "5", true),
        (r"\sqrt{12}", r"2\sqrt{3}", true),
        ("2/4", "1/2", false),
        ("2.0", "2", true),
        ("2.0/1", "2", false),
        ("(1,2)", "(1, 2)", true),
        ("(1,2]", "(1,2)", false),
        ("(1,2)", "1,2", false),
        ("0.1*3", "0.3", false),
        ("1.811", r"\frac{1811}{1000}", true),
        ("x(x+1)", "x^2+x", true),
        ("x^{12}", "x^12", true),
        ("x*x^11", "x^12", false),
        ("x+y+z", "z+y+x", false),
        ("", "", true),
        ("", "5", false),
        ("5", "", false),
        (r"\sqrt", r"\sqrt", true),
        ("None", "N", false),
    ] {
        assert_eq!(grade_answer(given, truth), right, "{given} | {truth}");
    }
}

/// Unclosed arguments were read again at every level, twice as often each; macros without braces went as deep as the
/// stack.
#[test]
fn nesting_ends_within_bounds() {
    for piece in [
        r"\frac{",
        r"\frac{1",
        r"\xleftarrow[",
        r"\hspace{\frac{",
        r"\overline{\frac{",
        r"\begin{array}{\frac{",
        r"\vspace",
        r"\begin{pmatrix}",
        r"\begin{",
        r"\[",
        "{",
        "a",
        "ab",
    ] {
        for times in [20, 60, 200, (1 << 16) / piece.len() - 1] {
            let text = piece.repeat(times);
            let start = std::time::Instant::now();
            assert!(!grade_answer(&text, "1"), "{piece}");
            // Far above the bound, for slow machines; it was minutes.
            assert!(start.elapsed().as_secs() < 2, "{piece} {times}: {:?}", start.elapsed());
        }
    }
}
