//! Answers as models write them: a value with words around it that leave it as it is, and words that do not.

use super::check;

#[rustfmt::skip]
const RIGHT: &[(&str, &[&str])] = &[
    ("7", &[
        "7", "7.", "7.0", "+7", "$7$", r"\(7\)", r"\[7\]", "**7**", "x = 7", "$x = 7$", "x=7.", "7 cm", "7cm",
        r"7\text{ cm}", r"7\,\mathrm{cm}", "7 apples", "7 red apples",
        "$7", r"\$7", "7 dollars", "the value is 7.", "The answer is 7", "The answer is 7.", "The answer is: 7",
        "The final answer is $7$.", "Answer: 7", "**Answer:** 7",
        "Final Answer: 7", "So the answer is 7.", "Therefore, the answer is 7.", "Thus, x = 7.", "Hence $x=7$",
        "there are 7 of them", "There are 7 apples.", "There are 7 apples in total.",
        "3 + 4 = 7", "2*3+1=7", "S = 1/2 * 2 * 7 = 7", "7 (cm)", "7（个）", "7个", "7个苹果", "7 people", "7 students",
        "7 units", "7 square units", "It is 7.", "It's 7.",
        "x equals 7", "x is equal to 7", "The length of AB is 7 cm.", "The sum of the numbers is 7.",
        "The total number of apples is 7.", "the number of sides is 7",
        "We get 7.", "We get x = 7.", "We have x = 7", "She has 7 apples left.", "John bought 7 books.",
        "It takes 7 hours.", "The train travels 7 km.", "It costs 7 dollars.",
        "exactly 7", "7, because 3 + 4 = 7", "7 since 14/2 = 7", "The answer is 7 because 8 is too large.",
        "The answer is 7, not 8.", "7 rather than 8", "It is not 6, it is 7.",
        "Adding up we get 7", "The area of triangle ABC is 7.", "the radius is 7 cm", "7 is the answer",
        "7 is correct", "So 7 is our answer.", "7 is the number of apples",
        "The answer is 7. I hope it is correct.", "The largest possible value is 7.",
        "The minimum value of the function is 7.", "12 is too large, so the answer is 7.", "the degree is 7",
        "The smallest integer greater than 6.5 is 7.", "The distance between A and B is 7.", "7 ways to arrange them",
        "3 hours is too short, so it takes 7 hours.", "The answer must be 7.",
        "答案是7", "答案是7。", "答案：7", "答案为 $7$。", "所以答案是7。", "因此x=7", "一共有7个苹果。", "共7个", "还剩7个", "解得x=7", "x的值为7",
        "面积是7平方厘米", "7厘米", "7米", "不是6，而是7",
        "最大值为7", "有5行，所以一共有7把椅子。", "7，因为3+4=7", "小明有7本书", "故答案为7", "答：一共有7人。", "∴x=7",
        "Since 3 + 4 = 7, the answer is 7.", "The volume is 7 cubic meters.", "3+4 equals 7", "周长为7厘米", "7名学生",
        "7 birds remain", "7 birds remain.", "12 - 5 = 7 birds remain.", "7 students passed.", "7 people are needed.",
        "7 cookies were eaten.", "There are 5 rows, so 7 chairs remain.", "2x = 14, so x = 7",
        "结果为7。", "x=7（cm）", "不同的排法有7种",
    ]),
    ("1/2", &[
        r"\frac12", "0.5", "50%", r"The probability is $\frac{1}{2}$.", "the probability is 1/2", "1/2 of the cake",
        "概率是1/2", "1:2", "½",
    ]),
    ("9, 10", &[
        "The answers are 9 and 10.", "9 and 10", "x = 9 or x = 10", "the solutions are 9 and 10", "10, 9",
        "the two numbers are 9 and 10.", "答案是9和10", "The roots are 9 and 10",
    ]),
    ("1, 3", &[
        "the roots are 1 and 3", "x=1或x=3", "The solutions are $x=1$ and $x=3$.", "The values of x are 1 and 3",
        "两根分别为1和3",
    ]),
    ("1", &["3 + -2", "3+-2", "3 - 2", "-2 - -3", "1 cake", "there is 1 answer"]),
    ("14-i", &["14 + -i", "14-i"]),
    ("3.14", &[
        "about 3.14", "approximately 3.14", "The area is approximately 3.14 cm^2", "大约3.14", r"\approx 3.14", "≈3.14",
    ]),
    ("2", &["∛8", "³√8", "∜16", "√4", r"\sqrt[3]{8}", "2⁻¹ × 4", "C_2^1", "A_2^2"]),
    ("10", &["C_5^2", "C_{5}^{2}", r"\mathrm{C}_5^2", "C^2_5", r"\binom52", "C_5^3"]),
    ("20", &["A_5^2", "P_5^2", "A_{5}^{2}"]),
    ("①③④", &["④③①", "①、③、④", "①,③,④", "①③和④", "正确的是①③④", "①③④正确", r"\text{①③④}", "$①③④$", "⑴⑶⑷", "正确的命题是①③④。"]),
    ("②①③", &["②①③", "②→①→③"]),
    ("H2O", &["H₂O", "H_2O", r"\mathrm{H_2O}", "H_{2}O"]),
    ("1010_2", &["(1010)_2", "1010₂", "1010_{2}", "(1010)_{2}", "1010_{(2)}", "1010_{(2)}."]),
    ("5!", &["120"]),
    ("Evelyn", &["The answer is Evelyn.", "Evelyn", "The fastest runner is Evelyn"]),
    ("60", &["5 dozen", "60 min"]),
    ("x>5", &["The solution is $x > 5$.", "Therefore $x>5$ is the solution.", "x>5"]),
];

#[rustfmt::skip]
const WRONG: &[(&str, &[&str])] = &[
    ("7", &[
        "not 7", "The answer isn't 7.", "The answer is not 7", "The answer can't be 7.", "It cannot be 7",
        "It isn't 7", "x is not 7", "x ≠ 7", "7 is wrong", "7 is incorrect", "7 is not correct",
        "7 is not the answer", "7 isn't right", "7 is false", "neither 7", "neither 7 nor 8", "never 7", "no, not 7",
        "7 at least", "at least 7", "at most 7", "7 at most", "7 or more", "7 or less",
        "7 or fewer", "7+", "7 plus", "7 and up", "no more than 7", "no less than 7", "not more than 7",
        "more than 7", "less than 7", "fewer than 7", "greater than 7", "over 7", "under 7", "above 7",
        "below 7", "up to 7", "as many as 7", "7 minimum", "7 maximum", "7 max", "7 tops", "7 upwards",
        "a minimum of 7", "a maximum of 7", "an upper bound is 7", "7 is an upper bound", "x > 7", "x ≥ 7",
        r"\ge 7", r"\geq 7", "≥7", "<7", r"7 \text{ or more}", r"\text{at least }7", "7 or none", "7 or undefined",
        "7 or 8", "either 7 or 8", "6 or 7", "7 or nothing", "7 or something", "7 or so",
        "7 and 8", "7, 8", "6 to 7", "from 6 to 7", "between 6 and 7", "between 7 and 8", "6-7", "7-8", "6~7",
        "7 to 9", "anything but 7", "all except 7", "all but 7", "everything except 7", "except 7",
        "any number but 7", "approximately 7", "about 7", "around 7", "roughly 7", "nearly 7", "almost 7",
        "close to 7", "7ish", "7-ish", "7 approximately", "maybe 7", "perhaps 7", "possibly 7", "probably 7",
        "7 maybe", "7?", "Is it 7?", "It might be 7", "It could be 7", "It may be 7.", "The answer may be 7",
        "7, I guess", "my guess is 7", "7 is one of the answers", "one of the answers is 7",
        "One solution is 7", "another answer is 7", "a possible answer is 7", "7 is a possible value",
        "7 is a solution", "7, etc.", "7, ...and so on", "7, for example", "e.g. 7", "for example 7",
        "7 if x is even", "if x > 0, 7", "7 unless x = 0", "7 but not sure", "7 (rejected)", "7 (extraneous)",
        "7 (not valid)", "7 (at least)", "half of 7", "twice 7", "7 squared", "7 thirds", "7 hundred",
        "The answer is 7. No wait, that is wrong.", "The answer is 7. Actually, it's 8.", "The answer is 7 or more",
        "The answer is at least 7.", "The answer is more than 7", "the answer exceeds 7",
        "x approaches 7", "it is not true that the answer is 7", "the wrong answer is 7", "I doubt it is 7",
        "There are at least 7 apples", "There are more than 7 apples", "There are no 7 apples",
        "7 or more apples", "7 apples or more", "7 apples at least", "at least 7 apples", "7 wrong answers",
        "no answer, 7", "Wrong answer: 7", "Not the answer: 7", "the answer is half of 7",
        "不是7", "不等于7", "答案不是7", "至少7", "至少7个", "最多7个", "7以上", "7以下", "7左右", "大约7", "约7", "7个左右", "7个以上", "超过7", "不到7",
        "7或8", "7或更多", "7或无解", "6到7", "6至7", "6到7之间", "介于6和7之间",
        "可能是7", "也许是7", "除7以外", "除了7", "7不对", "7是错的", "7错误", "7不正确", "大于7", "小于7", "不小于7", "7之一", "7是其中一个解", "7多个",
        "将近7", "接近7", "7等", "7，8", "答案不可能是7", "如果x>0，则7",
        "答案是7或8", "答案是7以上", "答案大于7", "7万", "7，不对", "非7", "没有7", "无7", "7 as an upper bound", "7 as a maximum",
        "一个解是7", "其中一个是7", "7等等", "7～8", "7及以上", "cannot exceed 7", "7 ± 1", "7 (or 8)", "7 in some cases", "x=7（舍去）",
        "不一定是7", "7的倍数",
        "reject x = 7", "discard x = 7", "if x = 7", "It is doubtful that it is 7.", "Is the answer 7", "min 7", "max 7",
        "give or take 7", "7 times as many", "7 birds rejected", "7不是答案", "难道是7", "很难说是7", "恐怕是7", "上界是7", "下界为7",
    ]),
    ("9, 10", &[
        "The answers are 9 or 11.", "9", "9 to 10", "between 9 and 10", "9, 10, or 11", "9 and 10 are wrong",
        "neither 9 nor 10",
    ]),
    ("Evelyn", &[
        "not Evelyn", "The answer is not Evelyn", "Evelyn or John", "maybe Evelyn", "Evelyn is wrong",
        "anyone but Evelyn", "One of the winners is Evelyn",
    ]),
    ("①③④", &["①③", "①②③④", "①③或④", "①③④错误", "不是①③④", "134"]),
    ("②①③", &["①②③"]),
    ("H2O", &["HO2", "H2O2", "H₂O₂", "OH2"]),
    ("1010_2", &["10", "1010", "1010_3", "(1011)_2"]),
    ("10", &["C_5^1", "C_6^2", "A_5^2"]),
    ("2, 3, 5", &["2, 3, 5, ...", "2, 3, 5, …", r"2, 3, 5, \ldots"]),
    ("3.14", &["about 3.15", "at least 3.14", "3.14 or more"]),
    ("x>5", &["x<5", "x>5 or x<0", "not x>5", "x≥5"]),
];

fn table(cases: &[(&'static str, &[&'static str])], verdict: bool) -> Vec<(&'static str, &'static str, bool)> {
    cases.iter().flat_map(|(truth, given)| given.iter().map(|given| (*truth, *given, verdict))).collect()
}

#[test]
fn words_that_leave_a_value_as_it_is() {
    check(&table(RIGHT, true));
}

#[test]
fn words_that_turn_a_value_into_something_else() {
    check(&table(WRONG, false));
}
