//! Sums of rows and columns combined, and where a response to such a problem reads its digits off the picture.
//!
//! A digit that is written for the first time can only come from the picture; one of a cell that an earlier line went
//! through can be copied. With `fresh=N` no line comes twice, and at least `N` of a hundred digits of the late half are
//! written for the first time. Six whole lines of a 3 x 3 grid cannot do half: they read 18 digits off nine cells, and
//! however they are ordered the late nine have two fresh ones. Rows and columns of 5 x 3 can.

use std::fmt::Write;
use std::ops::RangeInclusive;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::digits::{self, Split};
use super::spec::{Digits, ToySpec};
use super::tasks::{Direction, Grid, ToyProblem, distractor, running_sum};
use crate::parts::SolutionPart;

/// A row or a column in a question, with its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Term {
    direction: Direction,
    /// From zero.
    number: usize,
    /// Added, or subtracted.
    plus: bool,
}

impl Term {
    fn name(self) -> String {
        format!("{} {}", self.direction.name(), self.number + 1)
    }
}

/// A digit that a response reads off the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadDigit {
    /// Its byte in the text of the response.
    pub at: usize,
    /// The term of the question that asks for it, from 0.
    pub term: usize,
    /// The cell of the grid that it stands in, row by row from 0.
    pub cell: usize,
    /// No term before went through this cell: the text does not have this digit yet.
    pub fresh: bool,
    /// What the response writes.
    pub written: u8,
    /// What the picture of the problem shows, 0 to 9.
    pub shown: u8,
}

/// The lines of a problem, in the order in which they are read, over its grid.
#[derive(Debug, Clone, PartialEq)]
pub struct GridReading {
    grid: Grid,
    terms: Vec<Term>,
}

impl GridReading {
    /// Terms of the question.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// The cells that each term reads.
    fn cells(&self) -> Vec<Vec<usize>> {
        self.terms.iter().map(|t| self.grid.cells_of(t.direction, t.number)).collect()
    }

    /// Which of the digits are fresh, term by term.
    fn fresh(&self) -> Vec<Vec<bool>> {
        let mut seen = vec![false; self.grid.cells.len()];
        let first = |cells: Vec<usize>| {
            let fresh: Vec<bool> = cells.iter().map(|&cell| !seen[cell]).collect();
            cells.into_iter().for_each(|cell| seen[cell] = true);
            fresh
        };
        self.cells().into_iter().map(first).collect()
    }

    /// Which cells the last `terms` terms read.
    fn read_by_last(&self, terms: usize) -> Vec<bool> {
        let mut read = vec![false; self.grid.cells.len()];
        self.cells().into_iter().rev().take(terms).flatten().for_each(|cell| read[cell] = true);
        read
    }

    /// Share of the late half of the digits that are fresh; the middle one of an odd number is late.
    fn late_fresh(&self) -> f64 {
        let all: Vec<bool> = self.fresh().concat();
        let late = &all[all.len() / 2..];
        late.iter().filter(|fresh| **fresh).count() as f64 / late.len().max(1) as f64
    }

    /// `row 1 + col 2`
    fn question(&self) -> String {
        let mut question = String::new();
        for (t, term) in self.terms.iter().enumerate() {
            let sign = match (t, term.plus) {
                (0, _) => "",
                (_, true) => " + ",
                (_, false) => " - ",
            };
            let _ = write!(question, "{sign}{}", term.name());
        }
        question
    }

    /// The thoughts of a response in which term `t` reads `values[t]`, and the result.
    fn worked(&self, values: &[Vec<i64>]) -> (String, i64) {
        let mut thoughts = Vec::new();
        let mut total = 0;
        for (t, (term, values)) in self.terms.iter().zip(values).enumerate() {
            let (steps, sum) = running_sum(values);
            thoughts.push(format!("{}: {steps}", term.name()));
            let (sign, next) = if term.plus { ('+', total + sum) } else { ('-', total - sum) };
            if t > 0 {
                thoughts.push(format!("{total}{sign}{sum}={next}"));
            }
            total = next;
        }
        (thoughts.join(", "), total)
    }

    fn values(&self, grid: &Grid) -> Vec<Vec<i64>> {
        let values = grid.values();
        self.cells().iter().map(|cells| cells.iter().map(|&cell| values[cell]).collect()).collect()
    }

    /// The digits that `response` reads off the picture, in order: those of its first terms, up to where it no longer
    /// has the form of a solution. In `row 2: 5+9=14, 14+8=22` they are 5, 9 and 8.
    pub fn locate(&self, response: &str) -> Vec<ReadDigit> {
        let shown = self.grid.values();
        let mut found = Vec::new();
        let mut from = 0;
        for (term, (cells, fresh)) in self.cells().iter().zip(self.fresh()).enumerate() {
            let name = format!("{}: ", self.terms[term].name());
            let Some(start) = response[from..].find(&name).map(|at| from + at + name.len()) else { break };
            let places = places(&response[start..], cells.len());
            for (k, at) in places.iter().enumerate() {
                let at = start + at;
                let written = response.as_bytes()[at] - b'0';
                let (cell, fresh) = (cells[k], fresh[k]);
                found.push(ReadDigit { at, term, cell, fresh, written, shown: shown[cell] as u8 });
            }
            if places.len() < cells.len() {
                break;
            }
            from = start;
        }
        found
    }

    /// The digits of a worked response as `data::parts` names the parts of one.
    pub(super) fn parts(&self, solution: &str) -> Vec<SolutionPart> {
        let part = |digit: ReadDigit| {
            let was = (digit.written != digit.shown).then(|| digit.shown.to_string());
            SolutionPart { at: digit.at, fresh: digit.fresh, was }
        };
        self.locate(solution).into_iter().map(part).collect()
    }

    /// The first term that follows the second picture where pictures are exchanged: the middle one.
    pub fn exchange(&self) -> usize {
        self.terms.len() / 2
    }
}

/// The problem with its picture exchanged for another one of digits of `split`, every cell of which shows another
/// digit. The response is right by the first picture in its early terms and by the second one in the others, sums
/// included; what the reading says is shown is the first picture's.
pub(super) fn exchanged(first: ToyProblem, split: Split, rng: &mut impl Rng) -> ToyProblem {
    let Some(reading) = &first.reading else { return first };
    let differs = |&old: &usize| loop {
        let new = split.pick(rng);
        if digits::label(new) != digits::label(old) {
            return new;
        }
    };
    let second = Grid { cells: reading.grid.cells.iter().map(differs).collect(), cols: reading.grid.cols };
    let (early, late) = (reading.values(&reading.grid), reading.values(&second));
    let mixed = [&early[..reading.exchange()], &late[reading.exchange()..]].concat();
    let (thoughts, answer) = reading.worked(&mixed);
    let problem = ToyProblem::new("", &thoughts, answer, second.png());
    ToyProblem { problem: first.problem, reading: first.reading, ..problem }
}

/// Where the `count` terms of a running sum stand in a text that begins with it: `5+9=14, 14+8=22` has 0, 2 and 11.
/// Fewer where the text has another form.
fn places(text: &str, count: usize) -> Vec<usize> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let single = |at: usize| digit(at) && !digit(at + 1);
    let mut places = Vec::new();
    if count == 0 || !single(0) {
        return places;
    }
    places.push(0);
    let mut at = 0;
    for _ in 1..count {
        // The running total, then `+` and the next digit.
        while digit(at) {
            at += 1;
        }
        if bytes.get(at) != Some(&b'+') || !single(at + 1) {
            break;
        }
        places.push(at + 1);
        let Some(next) = text[at + 1..].find(", ") else { break };
        at += 1 + next + 2;
    }
    places
}

/// How many late digits can be fresh at best, and how many there are, where lines of a grid that has enough of them are
/// read in these directions; the middle digit of an odd number is late.
fn best(directions: &[Direction], rows: usize, cols: usize) -> (usize, usize) {
    let (mut used, mut lines) = ((0, 0), Vec::new());
    for direction in directions {
        let (length, crossed) = match direction {
            Direction::Row => (cols, used.1),
            Direction::Col => (rows, used.0),
        };
        match direction {
            Direction::Row => used.0 += 1,
            Direction::Col => used.1 += 1,
        }
        lines.push((length, length - crossed));
    }
    let total: usize = lines.iter().map(|line| line.0).sum();
    let (mut end, mut fresh) = (0, 0);
    for (length, of_line) in lines {
        end += length;
        fresh += of_line.min(end.saturating_sub(total / 2));
    }
    (fresh, total - total / 2)
}

/// The orders of rows and columns, `terms` of them and none twice, in which `fresh` of a hundred late digits can be
/// fresh.
fn orders(rows: usize, cols: usize, terms: usize, fresh: usize) -> Vec<Vec<Direction>> {
    let direction = |bits: usize, t: usize| if bits >> t & 1 == 1 { Direction::Col } else { Direction::Row };
    (0..1usize << terms)
        .map(|bits| (0..terms).map(|t| direction(bits, t)).collect::<Vec<_>>())
        .filter(|order| {
            let columns = order.iter().filter(|d| **d == Direction::Col).count();
            let enough = || {
                let (found, late) = best(order, rows, cols);
                found * 100 >= fresh * late
            };
            columns <= cols && terms - columns <= rows && enough()
        })
        .collect()
}

/// Whether each grid and number of terms of the ranges has an order of lines with enough fresh digits.
///
/// # Errors
/// The first that has none, with what it has.
pub(super) fn check(
    rows: &RangeInclusive<usize>,
    cols: &RangeInclusive<usize>,
    terms: &RangeInclusive<usize>,
    fresh: usize,
) -> Result<(), String> {
    for (rows, cols) in rows.clone().flat_map(|r| cols.clone().map(move |c| (r, c))) {
        let none = |terms: &usize| orders(rows, cols, *terms, fresh).is_empty();
        if let Some(terms) = terms.clone().find(none) {
            let most = orders(rows, cols, terms, 0).iter().map(|o| best(o, rows, cols)).max_by_key(|b| b.0);
            return Err(match most {
                None => format!("fresh: a grid of {rows} x {cols} has no {terms} lines, none twice"),
                Some((found, late)) => format!(
                    "fresh={fresh}: of the late {late} digits of {terms} lines of a {rows} x {cols} grid at most \
                     {found} are written for the first time"
                ),
            });
        }
    }
    Ok(())
}

/// Lines of the grid, none twice, with at least `fresh` of a hundred late digits written for the first time.
fn distinct(grid: Grid, terms: usize, fresh: usize, rng: &mut impl Rng) -> GridReading {
    let orders = orders(grid.rows(), grid.cols, terms, fresh);
    loop {
        let (mut rows, mut cols): (Vec<usize>, Vec<usize>) = ((0..grid.rows()).collect(), (0..grid.cols).collect());
        rows.shuffle(rng);
        cols.shuffle(rng);
        let order = orders.choose(rng).cloned().unwrap_or_default();
        let mut next = |direction| match direction {
            Direction::Row => rows.pop(),
            Direction::Col => cols.pop(),
        };
        let lines = order.into_iter().map(|direction| (direction, next(direction).unwrap_or(0)));
        let term = |(t, (direction, number))| Term { direction, number, plus: t == 0 || rng.random_bool(0.7) };
        let reading = GridReading { grid: grid.clone(), terms: lines.enumerate().map(term).collect() };
        if reading.late_fresh() * 100.0 >= fresh as f64 {
            return reading;
        }
    }
}

pub(super) fn multistep(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let grid = Grid::new(spec, rng);
    let terms = rng.random_range(spec.terms.clone());
    let mut question = String::new();
    for _ in 0..rng.random_range(spec.distractors.clone()) {
        question += &distractor(rng);
    }
    let reading = match spec.fresh {
        Some(fresh) => distinct(grid, terms, fresh, rng),
        None => {
            let term = |t| {
                let (direction, n) = match rng.random_bool(0.5) {
                    true => (Direction::Row, grid.rows()),
                    false => (Direction::Col, grid.cols),
                };
                Term { direction, number: rng.random_range(0..n), plus: t == 0 || rng.random_bool(0.7) }
            };
            GridReading { terms: (0..terms).map(term).collect(), grid }
        }
    };
    let (thoughts, answer) = reading.worked(&reading.values(&reading.grid));
    question += &reading.question();
    question.push('?');
    let told = match spec.digits {
        Digits::Picture => None,
        Digits::Text | Digits::Both => Some(vec![true; reading.grid.cells.len()]),
        // Drawn last: the same problems, whatever is told.
        Digits::Partly => Some(reading.read_by_last(rng.random_range(spec.told.clone()))),
    };
    if let Some(told) = told {
        question = format!("{}. {question}", in_words(&reading.grid, &told));
    }
    if spec.digits == Digits::Text {
        return ToyProblem::without_picture(&question, &thoughts, answer);
    }
    let problem = ToyProblem::new(&question, &thoughts, answer, reading.grid.png());
    ToyProblem { reading: spec.pictured().then_some(reading), ..problem }
}

/// The digits of a grid in words, its rows numbered, `?` for what is not `told`: `1: 59, 2: ?8`.
fn in_words(grid: &Grid, told: &[bool]) -> String {
    let digit = |(value, told): (i64, &bool)| if *told { value.to_string() } else { "?".to_owned() };
    let digits: Vec<String> = grid.values().into_iter().zip(told).map(digit).collect();
    let row = |(k, row): (usize, &[String])| format!("{}: {}", k + 1, row.concat());
    digits.chunks(grid.cols).enumerate().map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "multistep?rows=5&cols=3&terms=5-6&fresh=55&distractors=0";

    fn spec(text: &str) -> ToySpec {
        ToySpec::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// Tokens of a response: a character each, but for the words of the tokenizer; the end token comes on top.
    fn tokens(solution: &str) -> usize {
        let words = [("<think>", "<"), ("</think>", ">"), ("\\boxed{", "{")];
        words.into_iter().fold(solution.to_owned(), |text, (word, one)| text.replace(word, one)).len() + 1
    }

    /// Every digit is what its cell shows, fresh ones are the first of their cell, no line comes twice, and of the late
    /// ones at least as many are fresh as the spec says: counted from the text and the question alone.
    #[test]
    fn more_than_half_of_the_late_digits_are_fresh_and_lengths_are_those_of_the_study() {
        for split in ["train", "test"] {
            let spec = spec(&format!("{LONG}&split={split}"));
            let mut lengths = Vec::new();
            for i in 0..1500 {
                let problem = spec.problem(i);
                let reading = problem.reading.as_ref().unwrap();
                let digits = reading.locate(&problem.solution);
                let question = problem.problem.trim_start_matches("<image>").trim_end_matches('?');
                let lines: Vec<&str> = question.split(['+', '-']).map(str::trim).collect();
                assert!((5..=6).contains(&lines.len()) && lines.len() == reading.terms());
                let mut seen = std::collections::BTreeSet::new();
                assert!(lines.iter().all(|line| seen.insert(*line)), "{question}");
                let mut cells = Vec::new();
                for line in &lines {
                    let (kind, number) = line.split_once(' ').unwrap();
                    let k = number.parse::<usize>().unwrap() - 1;
                    match kind {
                        "row" => cells.extend((0..3).map(|c| k * 3 + c)),
                        _ => cells.extend((0..5).map(|r| r * 3 + k)),
                    }
                }
                assert_eq!(digits.iter().map(|d| d.cell).collect::<Vec<_>>(), cells, "{question}");
                let late = &cells[cells.len() / 2..];
                let is_fresh = |k: usize| !cells[..k].contains(&cells[k]);
                let fresh = (cells.len() / 2..cells.len()).filter(|&k| is_fresh(k)).count();
                assert!(100 * fresh >= 55 * late.len(), "{fresh} of {}: {question}", late.len());
                for (k, digit) in digits.iter().enumerate() {
                    assert_eq!(digit.fresh, is_fresh(k));
                    assert_eq!(digit.written, digit.shown);
                    assert_eq!(problem.solution.as_bytes()[digit.at], b'0' + digit.shown);
                    assert_eq!(digits::label(reading.grid.cells[digit.cell]), digit.shown);
                }
                lengths.push(tokens(&problem.solution));
            }
            let (low, high) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
            let short = lengths.iter().filter(|tokens| **tokens < 150).count();
            assert!(*low >= 135 && *high <= 250 && short < 10, "{low} to {high}, {short} short ones");
        }
    }

    #[test]
    fn what_no_grid_can_do_is_refused() {
        let refused = |text: &str| ToySpec::parse(text).unwrap_err();
        let six = refused("multistep?rows=3&cols=3&terms=6&fresh=50");
        assert!(six.contains("late 9 digits of 6 lines of a 3 x 3 grid at most 2"), "{six}");
        // Five lines can, just: half of the late digits are fresh, and never more.
        let five = spec("multistep?rows=3&cols=3&terms=5&fresh=50");
        assert!((0..50).all(|i| five.problem(i).reading.unwrap().late_fresh() == 0.5));
        assert!(refused("multistep?rows=2&cols=2&terms=5&fresh=0").contains("has no 5 lines"));
        assert!(refused("multistep?fresh=101").contains("0 to 100"));
        assert!(refused("sum?fresh=50").contains("no parameter"));
        assert_eq!(spec(LONG).id(7), "toy-multistep-r5c3t5-6d0f55-train-0-7");
        assert!(
            refused("multistep?exchange=2").contains("0 or 1") && refused("sum?exchange=1").contains("no parameter")
        );
    }

    /// The early terms are as they were, the late ones follow the second picture, in which every cell is another digit;
    /// sums and the answer are right for what is written.
    #[test]
    fn an_exchanged_picture_differs_in_every_late_digit() {
        let (spec, other) = (spec(LONG), spec(&format!("{LONG}&exchange=1")));
        for i in 0..300 {
            let (problem, exchanged) = (spec.problem(i), other.problem(i));
            let reading = problem.reading.as_ref().unwrap();
            assert_eq!((&exchanged.problem, exchanged.reading.as_ref()), (&problem.problem, Some(reading)));
            assert_ne!(exchanged.png, problem.png);
            let digits = reading.locate(&exchanged.solution);
            let before = reading.locate(&problem.solution);
            assert_eq!(digits.len(), before.len());
            let mut second = std::collections::BTreeMap::new();
            for (old, new) in before.iter().zip(&digits) {
                assert_eq!((old.cell, old.fresh, old.shown), (new.cell, new.fresh, new.shown));
                match new.term < reading.exchange() {
                    true => assert_eq!(new.written, old.shown),
                    false => {
                        assert_ne!(new.written, old.shown);
                        assert_eq!(*second.entry(new.cell).or_insert(new.written), new.written);
                    }
                }
            }
            let common = digits.iter().find(|d| d.term == reading.exchange()).unwrap().at;
            assert_eq!(exchanged.solution[..common], problem.solution[..common]);
            assert!(exchanged.solution.ends_with(&format!("</think>\\boxed{{{}}}", exchanged.answer)));
            // As a column of a data set.
            let parts = reading.parts(&exchanged.solution);
            assert_eq!(parts.iter().map(|p| p.at).collect::<Vec<_>>(), digits.iter().map(|d| d.at).collect::<Vec<_>>());
            assert!(parts.iter().zip(&digits).all(|(p, d)| p.was.is_some() == (d.term >= reading.exchange())));
            assert!(reading.parts(&problem.solution).iter().all(|p| p.was.is_none()));
        }
    }

    #[test]
    fn a_response_is_located_as_far_as_it_has_the_form() {
        let problem = spec(LONG).problem(0);
        let reading = problem.reading.unwrap();
        let whole = reading.locate(&problem.solution);
        for cut in 0..problem.solution.len() {
            let found = reading.locate(&problem.solution[..cut]);
            // A digit at the very end of a text may be the first of two.
            assert_eq!(found, whole[..found.len()], "{cut}");
            assert!(found.len() + 1 >= whole.iter().filter(|d| d.at < cut).count(), "{cut}");
        }
        // A wrong digit is located as what it is; what it leads to stays located.
        let first = whole[0];
        let mut wrong = problem.solution.clone().into_bytes();
        wrong[first.at] = b'0' + (first.shown + 1) % 10;
        let found = reading.locate(&String::from_utf8(wrong).unwrap());
        assert_eq!((found.len(), found[0].written), (whole.len(), (first.shown + 1) % 10));
        assert!(reading.locate("no idea").is_empty());
        assert_eq!(places("5+9=14, 14+8=22", 3), [0, 2, 11]);
        assert_eq!(places("5+9=14; 14+8=22", 3), [0, 2]);
        assert_eq!((places("7", 1), places("71", 1), places("5+12=17", 2)), (vec![0], vec![], vec![0]));
    }
}
