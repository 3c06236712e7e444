//! Texts with the right number in them that say something else.

use super::check;

#[test]
fn what_is_no_answer() {
    let five: Vec<(&str, &str, bool)> = [
        r"\neq 5",
        "≠5",
        ">5",
        "<5",
        "≤5",
        r"\ge 5",
        "not 5",
        "at least 5",
        "more than 5",
        "fewer than 5",
        "不是5",
        "大于5",
        "minus 5",
        "negative 5",
        "4 and 5",
        r"4\quad 5",
        "4~5",
        "half of 5",
        "5 million",
        "5万",
        "30°5'",
        "square root of 5",
        "5 or 7",
    ]
    .into_iter()
    .map(|given| ("5", given, false))
    .collect();
    check(&five);
    check(&[
        ("-5", "negative 5", true),
        ("-5", "负5", true),
        ("5000000", "5 million", true),
        ("50000", "5万", true),
        ("3 million dollars", "3000000", true),
        ("11/2", "1 1/2", false),
        ("1 1/2", "11/2", false),
        ("12", "1 2", false),
        ("x=3,y=4", "4,3", false),
        ("x=3,y=4", "3, 4", true),
        ("x=3,y=4", "y=4, x=3", true),
        ("3,4", "x=4,y=3", false),
        ("x_1=3,x_2=4", "4, 3", true),
        ("3:00 AM", "3:00 PM", false),
        ("0:3", "0:4", false),
        ("0:3", "0:3", true),
        ("12", "The answer is 12.", true),
        ("12", "There are 12 chairs", true),
        ("A. 35 cm", "A", true),
        ("A. 35 cm", "B", false),
        // What only looks like a hedge.
        ("5千克", "答案是5千克。", true),
        ("12", "The half-life is 12 days", true),
        ("x>3", "不等式的解集是x>3。", true),
        ("x>3", "答案是x>3", true),
        ("4", "不等式的解集是x>3，最小整数解是4。", true),
    ]);
}
