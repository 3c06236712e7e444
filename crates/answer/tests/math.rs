//! What the `math` grader must call the same, and what it must not. One table a subject: truth, answer, verdict.

use answer::math::equal;

#[path = "math/answers.rs"]
mod answers;
#[path = "math/field.rs"]
mod field;
#[path = "math/no_answers.rs"]
mod no_answers;
#[path = "math/spellings.rs"]
mod spellings;
#[path = "math/units.rs"]
mod units;

fn check(cases: &[(&str, &str, bool)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter(|(truth, given, right)| equal(given, truth) != *right)
        .map(|(truth, given, right)| format!("truth {truth:?}, answer {given:?} should be {right}"))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn numbers_in_all_notations() {
    check(&[
        ("1234.5", "1,234.5", true),
        ("1234.5", "1.234,5", true),
        ("1234567", "1 234 567", true),
        ("1234567", "1{,}234{,}567", true),
        ("1234567", r"1,\!234,\!567", true),
        ("1234567", r"1\,234\,567", true),
        ("1234567", "1.234.567", true),
        ("3.75", "3,75", true),
        ("1.2", "1,2", false),
        ("12345", "12, 345", false),
        ("7", "7.0", true),
        ("7", "07", true),
        ("7", "+7", true),
        ("-7", "−7", true),
        ("7", "-7", false),
        (".5", "1/2", true),
        ("3.5", r"3\frac{1}{2}", true),
        ("3.5", "3 1/2", true),
        ("-3.5", r"-3\frac12", true),
        ("3.5", "3½", true),
        ("1/3", r"0.\overline{3}", true),
        ("41/330", r"0.1\overline{24}", true),
        ("1/3", "0.333333", false),
        ("1/3", "0.3333333333333333", false),
        ("3.14159", r"\pi", false),
        ("602000", "6.02e5", true),
        ("602000", r"6.02 \times 10^5", true),
        ("602000", r"6.02\cdot10^{5}", true),
        ("0.25", "25%", true),
        ("25%", "25", true),
        (r"25\%", "0.25", true),
        ("25", r"25\%", true),
        ("25%", "2.5", false),
        ("$5", "5", true),
        (r"\$5.50", "5.5", true),
        ("5", "5 dollars", true),
        ("004", "4", true),
        ("204_5", "204_{5}", true),
        ("204_5", "204_6", false),
        ("204_5", "203_5", false),
        ("1e400", "1e401", false),
        ("12:00", "12:00", true),
        ("12:00", "1:00", false),
        ("3:4", "6:8", true),
        ("3:4", r"\frac34", true),
        ("3:4", "4:3", false),
        ("2:3:4", "4:6:8", true),
    ]);
}

#[test]
fn never_equal_by_rounding() {
    check(&[
        (r"\frac{1}{2004!}", r"\frac{1}{2006!}", false),
        (r"\frac{1}{2004!}", r"\frac{1}{2004!}", true),
        (r"\frac{2005}{2005!}", r"\frac{1}{2004!}", true),
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", false),
        (r"10^{-50}", "0", false),
        (r"10^{-50}\pi", "0", false),
        (r"\sqrt{10^{40}+1}", "10^{20}", false),
        (r"\pi", r"\frac{355}{113}", false),
        (r"e^{\pi\sqrt{163}}", "262537412640768744", false),
        (r"\sqrt{2}+\sqrt{3}", r"\pi", false),
        (r"\sin(10^{-60})", "10^{-60}", false),
        ("2^{1000}", "2^{1000}+1", false),
        (r"\ln(1+10^{-30})", "10^{-30}", false),
        (r"\sqrt{1000001}-\sqrt{1000000}", "0.0005", false),
    ]);
}

#[test]
fn roots_and_powers() {
    check(&[
        (r"\sqrt{8}", r"2\sqrt{2}", true),
        (r"\sqrt{8}", "2√2", true),
        (r"\sqrt{8}", "2*sqrt(2)", true),
        (r"\sqrt{8}", "8^{1/2}", true),
        (r"\sqrt{8}", "8^{0.5}", true),
        (r"\sqrt8", r"\sqrt{8}", true),
        (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}", true),
        (r"\frac{1}{\sqrt{2}+1}", r"\sqrt{2}-1", true),
        (r"\frac{1}{\sqrt{3}+\sqrt{2}+1}", r"\frac{\sqrt{2}+2-\sqrt{6}}{4}", true),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", true),
        (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{3}", false),
        (r"\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5}", "1", true),
        (r"\sqrt[3]{-8}", "-2", true),
        (r"\sqrt[3]{16}", r"2\sqrt[3]{2}", true),
        (r"\sqrt[4]{4}", r"\sqrt2", true),
        ("2^{10}", "1024", true),
        ("2^10", "1024", true),
        ("2**10", "1024", true),
        ("2^{-1}", "1/2", true),
        ("8^{2/3}", "4", true),
        (r"\left(\frac{2}{3}\right)^3", "8/27", true),
        ("2^{3^2}", "512", true),
        ("-2^2", "-4", true),
        ("(-2)^2", "4", true),
        (r"2^{n+1}", r"2\cdot 2^n", true),
        (r"4^n", r"2^{2n}", true),
        (r"2^{n+1}", r"2^n+1", false),
        (r"\sqrt{x^2}", "|x|", true),
        (r"\sqrt{x^2}", "x", false),
        (r"x\sqrt{x}", "x^{3/2}", true),
        (r"5!", "120", true),
        (r"\binom{5}{2}", "10", true),
        (r"\frac{n!}{(n-1)!}", "n", true),
        (r"\lfloor 3.7 \rfloor", "3", true),
        (r"\lceil \pi \rceil", "4", true),
        (r"i^2", "-1", true),
        (r"(1+i)^2", "2i", true),
        (r"\frac{1}{1+i}", r"\frac{1-i}{2}", true),
        (r"3+4i", "4i+3", true),
        (r"3+4i", "3-4i", false),
        (r"\sqrt{-4}", "2i", true),
    ]);
}

#[test]
fn algebra() {
    check(&[
        ("(x+1)^2", "x^2+2x+1", true),
        ("(x+1)(x-1)", "x^2-1", true),
        ("x(x+1)", "x^2+x", true),
        ("2xy", "2yx", true),
        ("2ab+c", "c+2ba", true),
        (r"\frac{x^2-1}{x-1}", "x+1", true),
        (r"\frac{1}{x}+\frac{1}{y}", r"\frac{x+y}{xy}", true),
        (r"\frac{1}{x+1}-\frac{1}{x+2}", r"\frac{1}{(x+1)(x+2)}", true),
        (r"\frac{a}{b}", r"\frac{b}{a}", false),
        (r"x^2+1", r"x^2-1", false),
        (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac27", true),
        (r"a^2-b^2", r"(a-b)(a+b)", true),
        (r"(x+1)^{100}", r"(x+1)^{100}", true),
        (r"(x+1)^{100}", r"(x+1)^{101}", false),
        (r"\frac{x^3+y^3}{x+y}", "x^2-xy+y^2", true),
        (r"x_1+x_2", "x_2+x_1", true),
        (r"x_1+x_2", "x_1+x_3", false),
        (r"a_{n+1}", "a_{n+1}", true),
        (r"\alpha\beta", r"\beta \alpha", true),
        (r"f(x)", "f(y)", false),
        (r"|x-1|", "|1-x|", true),
        (r"|2x|", "2|x|", true),
        (r"\max(3,5)", "5", true),
        (r"\gcd(12,18)", "6", true),
        (r"\pi r^2", r"r^2\pi", true),
        (r"2pir", r"2\pi r", true),
    ]);
}

#[test]
fn transcendental() {
    check(&[
        (r"\sin^2 x+\cos^2 x", "1", true),
        (r"\tan^2 y + 1", r"\sec^2(y)", true),
        (r"\sin 2x", r"2\sin x\cos x", true),
        (r"\sin 2x", r"2\sin x", false),
        (r"\cos 2x", r"1-2\sin^2 x", true),
        (r"\sin(x+y)", r"\sin x\cos y+\cos x\sin y", true),
        (r"\sin 30^\circ", r"\frac12", true),
        (r"\sin 30", r"\frac12", false),
        (r"\sin\frac{\pi}{12}", r"\frac{\sqrt6-\sqrt2}{4}", true),
        (r"\cos 36^\circ", r"\frac{1+\sqrt5}{4}", true),
        (r"\cos\frac{2\pi}{7}+\cos\frac{4\pi}{7}+\cos\frac{6\pi}{7}", r"-\frac12", true),
        (r"\tan 15^{\circ}", r"2-\sqrt3", true),
        (r"\arctan 1", r"\frac{\pi}{4}", true),
        (r"\arcsin\frac12", r"\frac{\pi}{6}", true),
        (r"\sin^{-1} 1", r"\pi/2", true),
        (r"\arctan\frac12+\arctan\frac13", r"\frac\pi4", true),
        (r"\ln 8", r"3\ln 2", true),
        (r"\ln 6", r"\ln2+\ln3", true),
        (r"\log_2 8", "3", true),
        (r"\log_{4} 8", r"\frac32", true),
        (r"\log 100", "2", true),
        (r"\lg 2+\lg 5", "1", true),
        (r"\frac{\ln 8}{\ln 2}", "3", true),
        (r"e^{\ln 5}", "5", true),
        (r"e^{2x}", "(e^x)^2", true),
        (r"\ln(x^2)", r"2\ln x", true),
        (r"2^{\log_2 7}", "7", true),
        (r"e^{i\pi}", "-1", true),
        (r"1-\frac{1}{e}", r"1+\frac1e", false),
        (r"\cosh x", r"\frac{e^x+e^{-x}}{2}", true),
        (r"\frac{\pi}{4}", r"\frac{1}{4}\pi", true),
        (r"\frac{\pi^2}{6}", r"\frac{\pi^2}{8}", false),
    ]);
}

#[test]
fn equations_and_inequalities() {
    check(&[
        ("x=5", "5", true),
        ("5", "x=5", true),
        ("5", "x = 2+3 = 5", true),
        ("x=5", "y=5", false),
        ("x=5", "x=6", false),
        ("x=5", "5=x", true),
        ("y=2x+1", "2x+1", true),
        ("y=2x+1", "2x-y+1=0", true),
        ("y=2x+1", "y=2x-1", false),
        ("y=2x+1", "2y=4x+2", true),
        ("x^2+y^2=4", r"\frac{x^2}{4}+\frac{y^2}{4}=1", true),
        ("x^2+y^2=4", "x^2+y^2=2", false),
        ("x^2+y^2=4", "4", false),
        ("0", "x^2-1=0", false),
        ("f(x)=x^2", "x^2", true),
        ("x<3", "3>x", true),
        ("x<3", "x>3", false),
        ("x<3", r"x\le3", false),
        (r"x\geq -2", r"-x\leq2", true),
        ("2x<6", "x<3", true),
        ("1<x<5", "5>x>1", true),
        ("1<x<5", r"1\le x<5", false),
        ("1<x<5", "(1,5)", true),
        ("(1,5)", "1<x<5", true),
        ("(1,5)", "|x-3|<2", false),
        (r"x\le 3", r"(-\infty,3]", true),
        (r"x\ne 0", r"(-\infty,0)\cup(0,\infty)", true),
        (r"1\le|z|\le\frac32", r"[-\frac32,-1]\cup[1,\frac32]", true),
        (r"x\neq 3", "x != 3", true),
        ("x >= 5", r"x \geqslant 5", true),
        (r"x=1\pm\sqrt2", r"1+\sqrt2, 1-\sqrt2", true),
        ("x=2 or x=3", "x=3 or x=2", true),
        ("x=2, y=3", "(2,3)", true),
        ("x=2, y=3", "y=3, x=2", true),
        ("x=2, y=3", "x=3, y=2", false),
        ("(x,y)=(2,3)", "(2,3)", true),
        (r"AB=4,CD=5", "4, 5", true),
        (r"\frac{AB}{CD}=\frac{1}{2}", "1/2", true),
    ]);
}

#[test]
fn sets_intervals_and_points() {
    check(&[
        ("(1,2)", "(1,2)", true),
        ("(1,2)", "(2,1)", false),
        ("(1,2)", "[1,2]", false),
        ("(1,2]", "(1,2]", true),
        ("(1,2)", "1,2", true),
        ("(0.5,2)", r"\left(\frac12, 2\right)", true),
        ("(1,2,3)", "(1,2,3)", true),
        ("(1,2,3)", "(3,2,1)", false),
        (r"\{1,2,3\}", r"\{3,2,1\}", true),
        (r"\{1,2,3\}", "1,2,3", true),
        (r"\{1,2,3\}", r"\{1,2\}", false),
        ("1,2,3", "3, 2 and 1", true),
        ("1,2,3", "1,2,4", false),
        (r"\{5\}", "5", true),
        (r"\{1,1,2\}", r"\{1,2\}", true),
        (r"[0,1)\cup(1,2]", r"(1,2]\cup[0,1)", true),
        (r"[0,1]\cup[1,2]", "[0,2]", true),
        (r"[0,1)\cup(1,2]", "[0,2]", false),
        (r"(-\infty,\infty)", r"\mathbb{R}", true),
        (r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)", true),
        (r"\mathbb{R}\setminus\{0,2\}", r"(-\infty,0)\cup(0,2)\cup(2,\infty)", true),
        (r"\{-1\}\cup[0,7)", r"[0,7)\cup\{-1\}", true),
        (r"\{1,2\}\cup\{3\}", r"\{1,2,3\}", true),
        (r"(0,3)\cap(1,5)", "(1,3)", true),
        (r"\emptyset", r"\varnothing", true),
        (r"\emptyset", r"\{\}", true),
        (r"\emptyset", "no solution", true),
        (r"x\in[2,3]", "[2,3]", true),
        (r"[\sqrt2,\pi)", r"\left[2^{1/2},\pi\right)", true),
        (r"(-\infty, 2)U(3, \infty)", r"(-\infty,2)\cup(3,+\infty)", true),
        (r"\{x\mid x<3\}", r"(-\infty,3)", true),
        ("(1,2),(3,4)", "(3,4), (1,2)", true),
        ("(1,2),(3,4)", "(2,1),(3,4)", false),
        ("(0;0),(1;-2)", "(1,-2),(0,0)", true),
        (r"\pm 3", "3, -3", true),
        (r"\pm 3", "3", false),
        (r"\pm 3", r"\{-3,3\}", true),
        (r"\frac{-1\pm\sqrt{13}}{4}", r"\frac{\sqrt{13}-1}{4}, -\frac{1+\sqrt{13}}{4}", true),
        (r"\{1\pm\sqrt5,-2\}", r"\{-2,1-\sqrt5,1+\sqrt5\}", true),
        (r"\langle 1,2\rangle", "(1,2)", true),
    ]);
}

#[test]
fn matrices() {
    check(&[
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1 & 2 \\ 3 & 4\end{bmatrix}", true),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1 & 2 \\ 3 & 5\end{bmatrix}", false),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", false),
        (r"\begin{pmatrix}0.5\\1\end{pmatrix}", r"\left[\begin{array}{c}\frac12\\1\end{array}\right]", true),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", true),
        (
            r"\begin{pmatrix}6&8\\10&12\end{pmatrix}",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}+\begin{pmatrix}5&6\\7&8\end{pmatrix}",
            true,
        ),
        (r"\begin{pmatrix}7&10\\15&22\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^2", true),
        (r"\begin{pmatrix}2&4\\6&8\end{pmatrix}", r"2\begin{pmatrix}1&2\\3&4\end{pmatrix}", true),
        (r"\begin{pmatrix}\sin^2x+\cos^2x\end{pmatrix}", "1", true),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", false),
    ]);
}

#[test]
fn units_and_degrees() {
    check(&[
        ("5", r"5\text{ cm}", true),
        (r"5\text{ cm}", "5", true),
        (r"5\text{ cm}", "5 cm", true),
        (r"5\text{ cm}", r"5\,\mathrm{cm}", true),
        (r"5\text{ cm}", r"5\text{ m}", false),
        (r"1\text{ m}", r"100\text{ cm}", true),
        (r"5 \text{ km}", "5000 m", true),
        ("3 kg", "3000 g", true),
        ("2 h", "120 min", true),
        ("5 km", "5 m", false),
        ("2 m", "2", true),
        (r"2\text{ hours}", r"120\text{ minutes}", true),
        (r"15\mbox{ cm}^2", r"15\text{ cm}^2", true),
        (r"15\text{ cm}^2", "15", true),
        (r"2\sqrt3\text{ cm}", r"2\sqrt{3}", true),
        (r"12\pi\text{ square units}", r"12\pi", true),
        ("60^\\circ", "60", true),
        ("60^{\\circ}", "60°", true),
        ("60", "60 degrees", true),
        ("60 degrees", r"60^\circ", true),
        ("30 mph", "30", true),
        ("125", r"125\textnormal{ miles}", true),
        ("3.5", "3.5 m/s", true),
        ("12", "12 apples", true),
        ("0.06", r"0.06 \text{ yuan}", true),
        (r"\frac{1}{3}", r"\frac{1}{3} \textbf{meters}", true),
        ("AB", "BA", true),
    ]);
}

#[test]
fn words_and_choices() {
    check(&[
        ("A", "A", true),
        ("A", "(A)", true),
        ("A", r"\text{(A)}", true),
        ("A", "A. 35 cm", true),
        ("A", "B", false),
        ("A", r"\textbf{(A)}\ 35", true),
        (r"\text{C}", r"\boxed{\text{(C)}}", true),
        ("N", "None", false),
        ("B", "The answer is (B)", true),
        ("A", "A is correct", true),
        ("B", "B, C", false),
        ("B", "B or C", false),
        ("B", "B and D", false),
        ("A", "(A) and (C)", false),
        ("C", "the answer is not C", false),
        ("C", r"C = 2\pi r", false),
        ("B", "B．", true),
        ("B", "选B", true),
        ("B", "答案：B", true),
        ("B", "不选B", false),
        ("B", "B或C", false),
        ("D", "D、45°", true),
        ("Yes", "yes", true),
        ("yes", "no", false),
        (r"\text{Evelyn}", "Evelyn", true),
        ("Evelyn", "The answer is Evelyn.", true),
        ("Evelyn", "Not Evelyn", false),
        (r"\text{right triangle}", "a right triangle", true),
        ("odd", r"\text{odd}", true),
        ("odd", "even", false),
        ("east", "West", false),
        (r"\angle ABC", r"\angle ABC", true),
        (r"\triangle ABC", r"\triangle ABD", false),
        ("AB", "BA", true),
        ("undefined", "does not exist", true),
        ("x", "X", false),
    ]);
}

#[test]
fn sentences() {
    check(&[
        ("12", "The answer is 12.", true),
        ("12", "There are 5 rows, so there are 12 chairs.", true),
        ("5", "There are 5 rows, so there are 12 chairs.", false),
        ("12", r"Adding up we get \boxed{12}.", true),
        ("12", r"First \boxed{5}, but in the end it is \boxed{12}.", true),
        ("5", r"First \boxed{5}. But in the end it is \boxed{12}.", false),
        ("1, 2", r"\boxed{1} and \boxed{2}", true),
        (r"\frac{1}{2}", r"The probability is $\frac12$.", true),
        ("1000.99", "it costs about 1,000.99€", true),
        ("28%", "that is 28 percent", true),
        ("34", "Final Answer: The largest $n$ is 34.", true),
        ("2", "AZYUK2A", false),
        ("21, 16, 11", "$21,16$ or $11$", true),
        ("2", "", false),
        ("", "2", false),
        ("", "", false),
    ]);
}

#[test]
fn sets_by_and_and_or() {
    let both = [
        (r"(-\infty,1)\cup(3,\infty)", "x<1 or x>3"),
        (r"(-\infty,1)\cup(3,\infty)", "x<1或x>3"),
        (r"(-\infty,1)\cup(3,\infty)", "x<1, x>3"),
        (r"(-\infty,1)\cup(3,\infty)", r"x<1 \text{ or } x>3"),
        (r"(-\infty,1)\cup(3,\infty)", r"(-\infty,1) \text{ and } (3,\infty)"),
        (r"(-\infty,1]\cup\{3\}", r"x\le1 or x=3"),
        ("(1,3)", "x>1 and x<3"),
        ("1<x<3", "x>1 and x<3"),
        ("1<x<3", "x>1, x<3"),
        ("1<x<3", "x>1且x<3"),
        ("1<x<3", "x<3 and 1<x"),
        ("x<1 or x>3", "x>3 or x<1"),
        ("x_1=1,x_2=-3", "x=1 or x=-3"),
        ("x_1=1,x_2=-3", "x=1, -3"),
        ("x_1=1,x_2=-3", "1, -3"),
        ("x=1 or x=-3", "x=1, -3"),
        ("x=1 or x=-3", "x=1或x=-3"),
        (r"x_1=1,x_2=-1", r"x=\pm1"),
        (r"\left\{\begin{array}{l}x=1\\y=2\end{array}\right.", "x=1,y=2"),
        (r"\left\{\begin{array}{l}x=1\\y=2\end{array}\right.", "(1,2)"),
        (r"\left\{\begin{array}{l}x=1,\\y=2.\end{array}\right.", r"\begin{cases}x=1\\y=2\end{cases}"),
        (r"\left\{ \begin{aligned} x&=1\\ y&=2 \end{aligned} \right.", "y=2, x=1"),
        ("1,3", "1或3"),
        ("1,3", r"1\text{或}3"),
        ("1 or 3", "1或者3"),
        ("-1,2", "-1和2"),
        ("-1 and 2", "-1和2"),
        ("4cm, 6cm", "4cm或6cm"),
        ("4,6", "4厘米或6厘米"),
        ("x≥2,x<1", "x≥2或x<1"),
        ("x≥2 or x<1", "x≥2或x<1"),
        ("x≥2 and x<1", "x≥2或x<1"),
        ("甲和乙", "乙和甲"),
    ];
    let turned: Vec<_> = both.iter().flat_map(|&(a, b)| [(a, b, true), (b, a, true)]).collect();
    check(&turned);
    check(&[
        (r"(-\infty,1)\cup(3,\infty)", "x<1 or x>2", false),
        (r"(-\infty,1)\cup(3,\infty)", r"x\le1 or x>3", false),
        (r"(-\infty,1)\cup(3,\infty)", "x<1", false),
        (r"(-\infty,1)\cup(3,\infty)", "x<1 or y>3", false),
        (r"(-\infty,1)\cup(3,\infty)", "2x<2 or x>3", false),
        ("1<x<3", "x>1 or x<3", false),
        ("1<x<3", "y>1 and y<3", false),
        ("1<x<3", "x>1", false),
        (r"\mathbb{R}", "x>1 and x<3", false),
        ("x_1=1,x_2=-3", "x=1", false),
        ("x_1=1,x_2=-3", "x=1 or x=3", false),
        ("x_1=1,x_2=-3", "y=1 or y=-3", false),
        ("a_1=1,a_2=3", "a_1=3,a_2=1", false),
        (r"\left\{\begin{array}{l}x=1\\y=2\end{array}\right.", "x=2,y=1", false),
        (r"\left\{\begin{array}{l}x=1\\y=2\end{array}\right.", "x=1", false),
        ("1", "1或3", false),
        ("3", "1或3", false),
        ("1,3", "1和2", false),
    ]);
}

#[test]
fn chinese_sentences() {
    check(&[
        ("5", "答案是5。", true),
        ("5", "答案是 $5$。", true),
        ("5", "答案：5", true),
        (r"\sqrt5", r"因此答案是\sqrt5", true),
        (r"\sqrt5", r"因此，最终答案为$\sqrt{5}$。", true),
        ("5", r"x = 5 \text{ 米}", true),
        (r"x = 5 \text{ 米}", "5", true),
        ("12", "有5行，所以一共有12把椅子。", true),
        ("5", "有5行，所以一共有12把椅子。", false),
        ("5", "答案是6。", false),
        ("5", "答案不是5。", false),
        ("5", "The answer is not 5.", false),
        ("1,3", "答案是1或3。", true),
        ("1", "答案是1或3。", false),
    ]);
}

#[test]
fn hedges_and_neighbours() {
    check(&[
        ("(0,3)", "(0,3) or (1,2)", false),
        ("(0,3)", "(0,3) or (3,5)", false),
        ("x<3", "x<3 or x<5", false),
        ("x<5", "x<3 or x<5", false),
        ("x>3", "x>1, x>3", false),
        ("x>1", "x>1, x>3", false),
        (r"(1,2)\cup(3,4)", "(1,2), (3,4)", false),
        ("(1,2),(3,4)", r"(1,2)\cup(3,4)", false),
        ("x=1", "x=1 or x=-3", false),
        ("5", "5 or 6", false),
        ("5", "5或6", false),
        ("5", "答案是5或6。", false),
        ("5 cm", "5 cm or 5 kg", false),
        ("5 N", "5 N or 5 V", false),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left[\begin{array}{cc}1&2\\3&4\end{array}\right]", true),
        (
            r"f(x)=\begin{cases}x&x>0\\-x&x\le0\end{cases}",
            r"f(x)=\left\{\begin{array}{ll}x&x>0\\-x&x\le0\end{array}\right.",
            true,
        ),
    ]);
}
