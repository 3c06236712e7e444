//! Words, signs and times in all their spellings.

use super::check;

#[test]
fn verdicts_figures_and_times() {
    check(&[
        ("no", "No", true),
        ("No", "no.", true),
        ("No", "on", false),
        ("yes", r"\text{Yes}", true),
        (r"AB \parallel CD", "AB//CD", true),
        (r"AB \parallel CD", "AC//BD", false),
        (r"\triangle ABC \cong \triangle DEF", "△ABC≌△DEF", true),
        (r"\triangle ABC \sim \triangle DEF", "△ABC∽△DEF", true),
        ("3, 4", r"3\text{ cm and }4\text{ cm}", true),
        ("3, 4", r"3\text{ cm and }5\text{ cm}", false),
        ("2:30 pm", "2:30 PM", true),
        ("2:30 p.m.", "2:30 PM", true),
        ("2:30 p.m.", "2:30", true),
        ("2:30 p.m.", r"2:30\text{ PM}", true),
        ("2:30 p.m.", "14:30", true),
        ("2:30 p.m.", "2:30 a.m.", false),
        ("2:30", "2:31 pm", false),
        ("12:05 am", "0:05", true),
        ("5 pm", "5:00 PM", true),
        ("3:4", "6:8", true),
    ]);
}

#[test]
fn full_width_signs() {
    check(&[
        ("m>2", "m＞2", true),
        ("2<m<4", "2＜m＜4", true),
        ("-2", "﹣2", true),
        ("-2", "－2", true),
        ("2+x", "2＋x", true),
        ("[1,2]", "［1，2］", true),
        (r"\{1,2\}", "｛1，2｝", true),
        ("4", "４", true),
        ("A", "Ａ", true),
        ("a/b", "a／b", true),
        ("x_1=1,x_2=3", "x₁=1，x₂=3", true),
        ("(2,3)", "P(2,3)", true),
        ("(2,3)", "P(3,2)", false),
    ]);
}
