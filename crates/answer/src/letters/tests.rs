use crate::simple::{choice_letter, multiple_choice};

#[test]
fn one_letter() {
    for given in [
        "B",
        "b",
        "(B)",
        "B.",
        "B)",
        "[B]",
        r"\text{B}",
        r"\text{B.}",
        r"$\text{(B)}$",
        r"\textbf{(B)}",
        "**B**",
        "B. 35 cm",
        "(b) west",
        "B: west",
        "B - west",
        "(B) -5",
        "The answer is B.",
        "the correct option is (b)",
        r"\(B\)",
        "Answer: B",
        "Answer:B",
        "B 35",
        r"\boxed{B}.",
        r"\textbf{(B)}\ 35",
        "B is correct",
        "B is the correct answer.",
        "B, not C",
        "(B) is right, not (C)",
        "B, because a cat is one",
        "B, a cat",
        "The answer is B, because option C is wrong.",
        "Option B",
        "Option B, not option C",
        "B．",
        "选B",
        "故选：B．",
        "答案：B",
        "答案是B。",
        "B、45°",
        "选项B正确",
    ] {
        assert!(multiple_choice(given, "B"), "{given}");
        assert!(!multiple_choice(given, "C"), "{given}");
    }
    assert!(multiple_choice("A is correct", "A"));
    assert!(multiple_choice("A, B and C lie on a line, so the answer is D.", "D"));
    for given in
        ["", "Bob", "A cat", "I think so", "None", "12", "the answer is a cat", "é", "()", "C's", "B_1", "(((("]
    {
        assert_eq!(choice_letter(given), None, "{given}");
    }
    // The single-letter rule of other graders, "truth contained in the answer", makes `None` right for N, O and E.
    assert!(!multiple_choice("None", "N"));
    assert!(!multiple_choice("", ""));
}

#[test]
fn no_letter_is_picked() {
    for given in [
        "B, C",
        "B or C",
        "B and C",
        "B/C",
        "B & C",
        "(B) and (C)",
        "(B) or (C) fits",
        r"\text{B} \text{ or } \text{C}",
        "$B$ or $C$",
        "B C",
        "BC",
        "B、C",
        "B或C",
        "The answer is B or C.",
        "The answer is either B or C",
        "the answer is not B",
        "The answer isn't B",
        "B is wrong",
        "B is not correct",
        "Option B is incorrect",
        r"B = 2\pi r",
        "B + 1",
        "B - 3",
        r"B \cdot 2",
        "(B) = 5",
        "the answer is B + 2",
        "不选B",
        "选项B错误",
    ] {
        assert_eq!(choice_letter(given), None, "{given}");
        assert!(!multiple_choice(given, "B"), "{given}");
    }
}

#[test]
fn sets_of_letters() {
    for given in ["A, C", "AC", "A and C", "C, A", "(A) and (C)", "A,C.", "The answer is A and C.", "选AC", "a, c"] {
        assert!(multiple_choice(given, "A, C"), "{given}");
        assert!(multiple_choice(given, "AC"), "{given}");
        for truth in ["A", "C", "A, B", "ABC"] {
            assert!(!multiple_choice(given, truth), "{given} {truth}");
        }
    }
    for given in ["A", "C", "A, B", "ABC", "A, B, C"] {
        assert!(!multiple_choice(given, "A, C"), "{given}");
    }
}

/// Truth and texts that state it, whatever else they name.
#[rustfmt::skip]
const STATED: &[(&str, &[&str])] = &[
    ("B", &[
        "The answer is B because it is longer than option C.",
        "The answer is B. Compared with choice A, it is larger.", "The answer is B rather than option C.",
        "The answer is B, unlike A.", "B is correct. Option C is shorter.", "I choose B over option C.",
        "I would go with B since choice D is too small.",
        "Option B is the correct one, as option A ignores the height.", "So the answer is (B), not option (D).",
        r"\boxed{B} since option A is too long",
        r"The options A and C fail, so \boxed{B}.", "Answer: B (option C is a distractor)",
        "**Answer: B** because option A is false",
        "The answer is A. Wait, no, the answer is B.", "At first I thought the answer was A, but it is B.",
        "The answer is not A but B.",
        "The correct answer is not A, it's B.", "The correct choice would be option B, given that option A equals 3.",
        "If option A were right, x would be 2. The answer is B.",
        "Since option A is wrong and C is too large, the answer must be B.",
        "A is wrong. C is wrong. D is wrong. B is correct.",
        "Statement A is correct but incomplete; the answer is B.", "Answer: B\nOption A would need a right angle.",
        "The answer to the question about option A is B.",
        "Option A is larger than option C. Therefore, B.", "The best answer is B; option D comes close.",
        "My final answer is B. Option C was tempting.",
        "Although option C looks right, I pick B.", "Eliminate A and C. The answer is B",
        "This corresponds to option B, whereas option A is its mirror image.",
        "The answer is B. Had the angle been 30°, the answer would be C.",
        "The answer is B. If it were longer, the answer would be C.",
        "You might be tempted to choose C, but B is correct.", "The answer is B. Choosing C would be a mistake.",
        "The answer is B. In contrast, the answer to the previous question was C.",
        "I don't think C is right, so the answer is B.", "I have no doubt that the answer is B.",
        "故答案为B。若半径加倍，则答案为C。", "答案选B，C项是常见错误。", "所以，正确的选项是B。选项C的面积更大。", "【答案】B\n【解析】C项错误。",
        "答案：(B)，(C)是外角。", "排除法：A不对，C不对，D不对，所以是B。",
        "答案是B，因为选项C不对", "答案是B。与选项A相比，它更大", "选B，不选C", "因为选项A不对，所以选B", "答案不是A，而是B", "正确答案为B，选项D是干扰项",
        "排除A和C，故选B", "答案：B。选项A错误", "**答案：B**", "故选：B", "本题选B，选项A不符合题意", "选项A错误，选项B正确", "A不正确，B正确",
        "答案是A。等等，不对，答案是B。", "由于选项C太大，答案应为B", "正确的是B，而不是C", "正确选项是B", "正确答案是B，A项错误，C项错误",
        r"The answer is $\boxed{B}$.", "A) 3 is wrong, but the answer is B) 4", "选项B是正确的，选项C不正确",
    ]),
    ("A", &[
        "A is correct because option B is not", "The answer is A: a cat is longer than option B.",
        "I pick A. I think C is wrong.",
    ]),
    ("C", &["The answer is B. Wait, C is correct.", "Let me check. Option A: no. Option B: no. It must be C."]),
    ("AJ", &["The answer is A and J", "AJ", "A, J", "选AJ"]),
    ("AC", &["A and C are correct, B is wrong", "The answers are A and C, not B.", "A正确。B错误。C正确。"]),
];

#[test]
fn a_stated_letter_counts_before_those_that_are_only_named() {
    let mut wrong = Vec::new();
    for (truth, texts) in STATED {
        for text in *texts {
            let others = ["A", "B", "C", "D"].iter().filter(|other| *other != truth);
            if !multiple_choice(text, truth) || others.clone().any(|other| multiple_choice(text, other)) {
                wrong.push(format!("{text:?} picks {:#b}, not {truth}", super::choice_letters(text)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_denies_or_leaves_open_states_nothing() {
    let mut picked = Vec::new();
    for text in [
        "The answer is not B",
        "The answer isn't B.",
        "The answer cannot be B.",
        "B is wrong",
        "B is incorrect, and so is C",
        "Option B is not the answer",
        "I would not choose B",
        "I don't pick B",
        "rule out B",
        "Everything except B",
        "neither B nor C",
        "The answer is B or C",
        "The answer is either B or C",
        "Either B or C is correct",
        "B or C is correct",
        "It could be B",
        "The answer might be B",
        "The answer may be B.",
        "The answer is B. No, B is wrong.",
        "Option B or option C",
        "Options A, B, C and D are given",
        "unlike B",
        "排除B",
        "不选B",
        "答案不是B",
        "B不对",
        "B错误",
        "选项B不正确",
        "选B或C",
        "答案是B或者C",
        "答案可能是B",
        "并非B",
        "I don't think B is right.",
        "I don't believe the answer is B.",
        "It is unlikely that the answer is B.",
        "I doubt the answer is B.",
        "There is no way it's B.",
        "The answer would be B if x were negative.",
        "If x were 3, the answer would be B.",
        "B is far from correct.",
        "B is a distractor.",
        "B is tempting, but wrong.",
        "Is the answer B?",
        "我不认为答案是B。",
        "可能选B，也可能选C。",
        "选B还是选C呢？",
        "难道选B？",
        "A. 3 cm\nB. 4 cm\nC. 5 cm",
    ] {
        let picks = ["A", "B", "C", "D"].iter().any(|truth| multiple_choice(text, truth));
        picked.extend(picks.then_some(text));
    }
    assert!(picked.is_empty(), "{picked:#?}");
}

/// `grade` hung on a response of boxes that are never closed.
#[test]
fn many_brackets_are_read_once() {
    let begun = std::time::Instant::now();
    for opener in [r"\boxed{", r"\text{", "(", "**", "$", " "] {
        assert_eq!(choice_letter(&(opener.repeat(50_000) + "so B")), Some('B'), "{opener}");
        assert_eq!(choice_letter(&opener.repeat(50_000)), None, "{opener}");
    }
    // Seconds where the work is the length, minutes where it is its square.
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}
