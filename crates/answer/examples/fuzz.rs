//! Throws random and adversarial answers at the graders, looking for panics, and for grades that take longer than 20
//! ms.
//!
//! `cargo run --release -p reward --example fuzz -- [inputs] [first seed]`; 10 million inputs by default. Every input
//! is made from its seed alone, so a seed that is reported can be run again: `fuzz 1 <seed>`. Ends with 1 when anything
//! was found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use answer::{Grader, Request, RewardConfig, RewardType, Scorer, audit, extract, math, mathruler, simple};

/// The longest that one grade may take.
const LIMIT: Duration = Duration::from_millis(20);

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }
}

#[rustfmt::skip]
const PIECES: &[&str] = &[
    "0", "1", "2", "3", "7", "9", "10", "12", "360", "2004", "1.5", ".5", "3.", "1,000", "1.234,5", "1 000", "1e6", "1e-400", "00", "99999999999999999999",
    "x", "y", "n", "a", "b", "e", "i", "f", "A", "B", "xy", "abc", "pi", "sin", "cos", "ln", "log", "sqrt", "and", "or", "cm", "percent", "yes", "None",
    "+", "-", "*", "/", "^", "_", "=", "<", ">", "<=", "!=", "!", "%", "$", ",", ";", ":", "|", "'", "&", "~", ".", " ", "  ", "\n", "\t", "(", ")", "[", "]", "{", "}", "**", "??",
    r"\frac", r"\frac{", r"\frac12", r"\dfrac{1}{2}", r"\sqrt", r"\sqrt{", r"\sqrt[3]{", r"\sqrt[", r"\left(", r"\right)", r"\{", r"\}", r"\pi", r"\infty", r"\pm", r"\mp", r"\cdot",
    r"\times", r"\div", r"\le", r"\ge", r"\ne", r"\approx", r"\in", r"\cup", r"\cap", r"\setminus", r"\mathbb{R}", r"\emptyset", r"\circ", r"^\circ", r"^{\circ}", r"\%", r"\text{",
    r"\text{ cm}", r"\text{and}", r"\mathrm{", r"\mathbf{", r"\sin", r"\cos", r"\tan", r"\arctan", r"\ln", r"\log", r"\log_2", r"\binom", r"\sum_{k=1}^n", r"\int", r"\lfloor", r"\rfloor",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\begin{cases}", r"\end{cases}", r"\begin{array}{cc}", r"\end{array}", r"\\", r"\boxed{", r"\overline{", r"\vec{", r"\alpha", r"\quad", r"\,", r"\!", "\\",
    "²", "½", "√", "π", "°", "∞", "≤", "×", "÷", "−", "中", "é", "\u{301}", "\u{200b}", "𝐱", "１", "٣", "İ", "<think>", "</think>", "<answer>", "</answer>", "Answer:", "the answer is ", "final answer is ",
    "或", "和", "答案是", "选", "C", " or ", " and ", "not", "option ", " is correct", " N", " V", " m", "m²", "km/h", r"\mathrm{~m}", r"\mathrm{s}", r"\Omega", "x_1=1", "x_2=3", "x<1", "x>3", r"\left\{\begin{array}{l}", r"\right.",
    "because ", " is ", " at least ", " or more", " the ", "There are ", " apples", "it's ", " not ", "which is ", "so ", "**Answer:** ", "**", "①", "③", "C_5^2", "A_n^2", "∛", "³√", "H₂O", "(1010)_2", "⁻¹", "因为", "不是", "至少", "左右",
    "所以", "个", "，", "。", "(cm)", "+-", " about ", "Wait, ", "rather than ", "I choose ", "B", "D", "<Answer>", "< / answer >", "...", "?", "approximately ",
];

/// Texts that grow by repetition: what a parser may recurse or backtrack on.
#[rustfmt::skip]
const PATTERNS: &[(&str, &str, &str)] = &[
    ("A, ", "B", ""), ("A ", "B", ""), ("A/", "B", ""), ("A A,", "", ""), ("answer A, ", "", ""), ("option A is wrong ", "", ""), ("answer:B=", "", ""), ("answer ((", "A", ""), (r"\text{", "A", ""), ("}", "A", ""), ("答案", "A", ""), ("x<1 or ", "x>3", ""), ("x>1, ", "x<3", ""), ("x_1=1,", "x_2=2", ""), ("x=1, ", "2", ""),
    ("(1,2) or ", "(3,4)", ""), ("5 m ", "", ""), ("5 m + ", "5 m", ""), (r"\pi m ", "", ""), (r"\pi \mathrm{~m} ", "x", ""), (r"\mathrm{~m} / ", "5", ""), ("5 N/", "C", ""), ("5 km/", "h", ""), ("m^2", "", ""), (r"\text{km}^9", "", ""), ("或", "1", ""), ("1或", "2", ""), ("以", "或", ""), (r"\left\{\begin{array}{l}", "x=1", r"\end{array}\right."), (r"\left\{\begin{array}{l}", "x=1", ""),
    ("because ", "7", ""), ("因为", "7", ""), ("所以", "7", ""), ("is ", "7", ""), ("the answer is 7, ", "7", ""), ("not ", "7", ""), ("it's 7 ", "7", ""), ("so 7 ", "", ""), ("有7个，", "7", ""), ("是", "7", ""), ("Answer:", "7", ""),
    ("I choose A. ", "B", ""), ("option A because ", "B", ""), ("A is correct ", "B", ""), ("the answer ", "is B", ""), ("选A，", "B", ""), ("不是", "A", ""), ("①", "②", ""), ("+-", "1", ""), ("- ", "1", ""), ("⁻", "1", ""), ("³√", "8", ""), ("C_5", "^2", ""),
    ("**", "7", ""), ("`", "7", ""), ("<answer>", "7", "</answer>"), ("答案：", "", ""), ("Answer *", "", ""), ("\\text{at least }", "7", ""), ("7 apples ", "", ""), ("red ", "7", ""), ("(cm)", "", ""), ("Na", "2", ""), ("(", "H2O", ")2"),
    ("(", "1", ")"), ("[", "1", "]"), ("{", "1", "}"), (r"\{", "1", r"\}"), ("-", "1", ""), ("", "1", "!"), ("", "1", "%"), ("2^", "2", ""), ("2^{", "2", "}"), ("2**", "2", ""), (r"\sqrt{", "2", "}"), (r"\sqrt", "2", ""),
    (r"\frac{1}{1+", "x", "}"), (r"\frac{", "1", "}{2}"), (r"\frac", "1", ""), ("1+", "1", ""), ("x+", "1", ""), ("(x+1)", "", ""), ("(x+y+z+1)", "", ""), ("1,", "2", ""), ("1;", "2", ""), ("(1,2),", "(1,2)", ""), ("x=", "1", ""), ("1<", "x", ""),
    (r"\sin(", "x", ")"), (r"\ln ", "2", ""), (r"\sin ", "x", ""), ("|", "x", "|"), (r"\pm", "1", ""), (r"1\pm", "1", ""), (r"\cup", "", ""), (r"(1,2)\cup", "(3,4)", ""), (r"\text{", "a", "}"), (r"\mathbf{", "1", "}"), (r"\boxed{", "1", "}"),
    (r"\begin{pmatrix}", "1", r"\end{pmatrix}"), ("1&", "1", ""), (r"1\\", "1", ""), ("9", "9", ""), ("9*", "9", ""), ("a", "a", ""), ("ab", "", ""), ("x_", "1", ""), ("x_{", "1", "}"), ("x'", "", ""), ("$", "1", "$"), (r"\left(", "1", r"\right)"),
    (r"\sqrt{1+", "x", "}"), (r"\sqrt{2+", "2", "}"), (r"\sqrt{2}+", "1", ""), ("2^{x+", "1", "}"), ("x^2y^3", "", ""), ("1/", "x", ""), ("1/(1+", "x", ")"), (r"\sqrt[3]{", "2", "}"), (r"\vec{", "a", "}"), (r"\overline{", "3", "}"), ("0.", "3", ""), ("1,000", "", ""), (",000", "", ""),
    (" and ", "1", ""), ("answer", ":", ""), ("<answer>", "", ""), ("\n", "", ""), (" ", "", ""), ("\\", "", ""), (r"\\", "", ""), ("^", "", ""), ("_", "", ""), ("°", "", ""), ("²", "", ""), ("degree", "", ""), ("es", "", ""), ("^\\circ", "", ""), (r"\begin{cases}", "1", ""), ("f(", "x", ")"), (r"\sum", "x", ""), ("1 ", "1", ""), ("3:", "4", ""), ("5!+", "1", ""), (r"\binom{5}{2}+", "1", ""), ("1.5.", "", ""), ("e^{", "x", "}"), (r"e^{\pi}+", "1", ""), (r"\log_{2}", "3", ""), ("\\text{ ", "", ""), ("=", "", ""), (r"\max(", "1,2", ")"), ("sin", "x", ""), ("sqrt(", "2", ")"), ("(((x+1)^40)^40)^40", "", ""), ("(x+y+z)^40", "", ""), ("100000!+", "1", ""), ("2^{10000}+", "1", ""), (r"\sqrt{10007}+\sqrt{10009}+", "1", ""), (r"\sin(1)\cos(2)e^{3}\ln(5)+", "1", ""),
    (r"\begin{", "", ""), (r"\begin{array}", "1", ""), (r"\sqrt[", "2", "]{3}"), (r"\frac{1}{2+", "1", "}"), (r"\frac{1", "", ""), (r"\xleftarrow[", "", ""), (r"\hspace{\frac{", "", ""), ("1.5*", "2", ""), ("1.5.1.5", "1", ""), ("9**", "9", ""), ("1/3+", "1", ""), ("1/7-x+", "1", ""), (r"\frac{9}{7}+", "1", ""), ("0.123456789012345+", "1", ""), ("1e-300*", "1", ""), ("x*y*", "1", ""), ("((x+1)/", "x", ")"), ("(1+1/", "3", ")"), ("1.1/(1.1+", "1.1", ")"), ("5!*", "1", ""), ("400!*", "1", ""), ("sqrt(1+", "x", ")"), ("x/(x+1)+", "1", ""), ("sqrt(2)*", "1", ""), ("sqrt(x)+", "1", ""), ("(1.5)^9*", "1", ""), ("(x+1)^9*", "1", ""), ("^\\circ ^", "", ""), ("million", "", ""), (" or ", "1", ""), ("1 2 ", "3", ""), ("\\hat", "a", ""), (r"\mathbb", "R", ""), (r"\not{", "a", "}"), (r"\end{", "", ""), ("& ", "1", ""), (r"\text{a} ", "", ""), (r"\{1,2\}\cup", "", ""), ("x<", "1", ""), ("1<x and ", "2", ""), (r"\pm\sqrt{2},", "1", ""), ("10 cm ", "", ""), ("the answer is ", "5", ""), (r"$1$, ", "", ""), ("A) 1 B) 2 ", "", ""), ("1e9^", "9", ""), ("x^9^", "9", ""), ("ln(", "x", ")"), (r"\log_{x}{", "2", "}"), (r"\boxed{1} ", "", ""), ("1..", "2", ""), ("1'", "", ""), ("|x|", "", ""), (r"\lfloor ", "x", r"\rfloor"),
];

fn soup(random: &mut Random, most: usize) -> String {
    let length = 1 + random.below(most);
    (0..length).map(|_| random.pick(PIECES)).collect()
}

fn grown(random: &mut Random, bytes: usize) -> String {
    let (before, middle, after) = PATTERNS[random.below(PATTERNS.len())];
    let unit = before.len() + after.len();
    let times = (bytes / unit.max(1)).max(1);
    let mut text = before.repeat(times) + middle + &after.repeat(times);
    if random.below(4) == 0 {
        text.push_str(random.pick(PIECES));
    }
    text
}

fn noise(random: &mut Random, most: usize) -> String {
    let length = random.below(most);
    (0..length)
        .map(|_| {
            let code = if random.below(3) == 0 { random.next() as u32 % 0x11_0000 } else { random.next() as u32 % 128 };
            char::from_u32(code).unwrap_or('?')
        })
        .collect()
}

fn input(random: &mut Random) -> String {
    match random.below(1000) {
        0 => grown(random, 1 << 16),
        1..=5 => grown(random, 1 << 12),
        6 => soup(random, 8000),
        7..=60 => grown(random, 200),
        61..=120 => soup(random, 60),
        121..=200 => noise(random, 40),
        _ => soup(random, 9),
    }
}

/// A second answer: another input, or the first one a little changed, so that comparisons go deep.
fn relative(random: &mut Random, first: &str) -> String {
    match random.below(6) {
        0 => format!("{first}+0"),
        1 => format!("({first})"),
        2 => format!("2*({first})/2"),
        3 => {
            let chars: Vec<char> = first.chars().collect();
            let drop = random.below(chars.len().max(1));
            chars.iter().enumerate().filter(|&(at, _)| at != drop).map(|(_, c)| c).collect()
        }
        _ => input(random),
    }
}

/// The other graders, and the rules that take a response apart.
fn grade_otherwise(given: &str, truth: &str) {
    simple::multiple_choice(given, truth);
    simple::numeric(given, truth, 1e-4);
    simple::exact(given, truth);
    extract::extract_boxed(given);
    audit::compare(given, truth);
    for reward_type in [RewardType::Math, RewardType::R1v, RewardType::Dapo] {
        let config = RewardConfig { reward_type, grader: Grader::Math, ..RewardConfig::default() };
        let reward = Scorer::new(&config).expect("the default configuration is valid");
        reward.score_one(&Request { response: given, ground_truth: truth, response_length: 0, id: "", row: None });
    }
}

/// Counts of times, eight bins to a factor of two.
struct Times([AtomicU64; 320]);

impl Times {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn add(&self, time: Duration) {
        let bin = 8.0 * (time.as_nanos().max(1) as f64).log2();
        self.0[(bin as usize).min(319)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time, in microseconds, that this share of all grades stays below.
    fn quantile(&self, share: f64) -> f64 {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let wanted = counts.iter().sum::<u64>() as f64 * share;
        let mut below = 0;
        let reached = counts.iter().position(|count| {
            below += count;
            below as f64 >= wanted
        });
        2f64.powf((reached.unwrap_or(0) + 1) as f64 / 8.0) / 1000.0
    }
}

/// Processor time of this thread, so that other work on the machine does not count; elsewhere than on Unix, time
/// passed.
#[cfg(unix)]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn now() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

fn timed(work: impl Fn()) -> Duration {
    let start = now();
    work();
    now() - start
}

/// What is timed.
type Grading<'a> = dyn Fn() -> bool + 'a;

/// Each grader alone, on one pair of answers.
fn graders<'a>(given: &'a str, truth: &'a str) -> [(&'static str, Box<Grading<'a>>); 5] {
    [
        ("math", Box::new(|| math::equal(given, truth))),
        ("mathruler", Box::new(|| mathruler::grade_answer(given, truth))),
        ("multiple_choice", Box::new(|| simple::multiple_choice(given, truth))),
        ("numeric", Box::new(|| simple::numeric(given, truth, 1e-4))),
        (
            "extract",
            Box::new(|| extract::extract_answer_line(given).is_some() | extract::extract_answer_tag(given).is_some()),
        ),
    ]
}

/// What the command line asks for: how many inputs, and the seed of the first.
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap_or(0));
    let count = arguments.next().unwrap_or(10_000_000);
    let first = arguments.next().unwrap_or(0);
    let next = AtomicU64::new(first);
    let found = AtomicU64::new(0);
    let slowest = AtomicU64::new(0);
    let (math_times, mathruler_times) = (Times::new(), Times::new());
    let start = Instant::now();
    std::panic::set_hook(Box::new(|_| {}));
    let worker = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= first + count {
            return;
        }
        let mut random = Random(seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ 0x1234_5678);
        let truth = input(&mut random);
        let given = relative(&mut random, &truth);
        let report = |what: &str| {
            found.fetch_add(1, Ordering::Relaxed);
            let cut = |text: &str| text.chars().take(120).collect::<String>();
            println!(
                "seed {seed}: {what}: given {:?} ({} bytes), truth {:?} ({} bytes)",
                cut(&given),
                given.len(),
                cut(&truth),
                truth.len()
            );
        };
        let begun = now();
        let all = || {
            math_times.add(timed(|| {
                math::equal(&given, &truth);
            }));
            mathruler_times.add(timed(|| {
                mathruler::grade_answer(&given, &truth);
            }));
            grade_otherwise(&given, &truth);
        };
        if catch_unwind(AssertUnwindSafe(all)).is_err() {
            report("panic");
            continue;
        }
        if now() - begun < LIMIT / 2 {
            continue;
        }
        // The machine may have been busy: the best of several runs counts, for each grader alone.
        let best = |work: &Grading| {
            (0..5)
                .map(|_| {
                    timed(|| {
                        std::hint::black_box(work());
                    })
                })
                .min()
                .unwrap_or_default()
        };
        for (name, work) in graders(&given, &truth) {
            let time = best(&*work);
            slowest.fetch_max(time.as_micros() as u64, Ordering::Relaxed);
            if time > LIMIT {
                report(&format!("{name} took {time:?}"));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(worker);
        }
    });
    let found = found.into_inner();
    println!(
        "{count} inputs from seed {first} in {:.0?}: {found} findings; slowest grade seen {:.1} ms",
        start.elapsed(),
        slowest.into_inner() as f64 / 1000.0
    );
    for (name, times) in [("math", math_times), ("mathruler", mathruler_times)] {
        let [half, most, nearly_all] = [0.5, 0.99, 0.9999].map(|share| times.quantile(share));
        println!("{name}: median {half:.1} us, 99% below {most:.0} us, 99.99% below {nearly_all:.0} us");
    }
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
