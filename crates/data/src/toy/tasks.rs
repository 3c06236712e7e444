//! What is asked about the pictures, and how a good response reasons about it.

use std::fmt::Write;
use std::ops::RangeInclusive;

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::digits;
use super::draw::{self, COLOURS, MAX_BAR, Placed, SHAPES};
use super::multistep::{GridReading, multistep};
use super::spec::ToySpec;

/// A toy task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToyTask {
    /// Read all digits.
    Read,
    /// Add all digits.
    Sum,
    /// Which row or column has the larger sum.
    Compare,
    /// Count shapes of a colour, of a form, or both.
    Count,
    /// Read values off a bar chart.
    Chart,
    /// Combine sums of rows and columns, past irrelevant sentences.
    Multistep,
}

/// All tasks.
pub const TASKS: [ToyTask; 6] =
    [ToyTask::Read, ToyTask::Sum, ToyTask::Compare, ToyTask::Count, ToyTask::Chart, ToyTask::Multistep];

impl ToyTask {
    /// Its name in specs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Sum => "sum",
            Self::Compare => "compare",
            Self::Count => "count",
            Self::Chart => "chart",
            Self::Multistep => "multistep",
        }
    }

    pub(super) fn default_grid(self) -> (RangeInclusive<usize>, RangeInclusive<usize>) {
        match self {
            Self::Read | Self::Sum | Self::Compare => (2..=2, 2..=2),
            Self::Count => (2..=3, 2..=3),
            Self::Chart => (1..=1, 3..=5),
            Self::Multistep => (3..=3, 3..=3),
        }
    }
}

/// A problem with its picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ToyProblem {
    /// With `<image>` in front, if there is a picture.
    pub problem: String,
    /// Ground truth.
    pub answer: String,
    /// A response to imitate, with `<think>` tags and `\boxed{}`; with the box alone where the spec asks for direct
    /// answers.
    pub solution: String,
    /// The picture; none where the text gives what it would show.
    pub png: Option<Vec<u8>>,
    /// What is read off the picture, and in which order; `multistep` problems with a picture have it.
    pub reading: Option<GridReading>,
}

impl ToyProblem {
    pub(super) fn new(question: &str, thoughts: &str, answer: impl ToString, png: Vec<u8>) -> Self {
        let problem = Self::without_picture(question, thoughts, answer);
        Self { problem: format!("<image>{question}"), png: Some(png), ..problem }
    }

    pub(super) fn without_picture(question: &str, thoughts: &str, answer: impl ToString) -> Self {
        let answer = answer.to_string();
        Self {
            problem: question.to_owned(),
            solution: format!("<think>{thoughts}</think>\\boxed{{{answer}}}"),
            answer,
            png: None,
            reading: None,
        }
    }
}

pub(super) fn make(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let mut problem = match spec.task {
        ToyTask::Read => read(spec, rng),
        ToyTask::Sum => sum(spec, rng),
        ToyTask::Compare => compare(spec, rng),
        ToyTask::Count => count(spec, rng),
        ToyTask::Chart => chart(spec, rng),
        ToyTask::Multistep => multistep(spec, rng),
    };
    // Drawn last: the same problems, whatever the share.
    if spec.direct > 0 && rng.random_range(0..100) < spec.direct {
        problem.solution = format!("\\boxed{{{}}}", problem.answer);
    }
    problem
}

/// A grid of digits: which ones, and their values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    pub cells: Vec<usize>,
    pub cols: usize,
}

impl Grid {
    pub(super) fn new(spec: &ToySpec, rng: &mut impl Rng) -> Self {
        let rows = rng.random_range(spec.rows.clone());
        let cols = rng.random_range(spec.cols.clone());
        Self { cells: (0..rows * cols).map(|_| spec.split.pick(rng)).collect(), cols }
    }

    pub(super) fn rows(&self) -> usize {
        self.cells.len() / self.cols
    }

    pub(super) fn values(&self) -> Vec<i64> {
        self.cells.iter().map(|&i| digits::label(i).into()).collect()
    }

    /// Values of a row or a column, counted from zero.
    fn line(&self, line: Direction, k: usize) -> Vec<i64> {
        let values = self.values();
        self.cells_of(line, k).into_iter().map(|cell| values[cell]).collect()
    }

    /// Cells of a row or a column, counted from zero, in the order in which they are read.
    pub(super) fn cells_of(&self, line: Direction, k: usize) -> Vec<usize> {
        match line {
            Direction::Row => (k * self.cols..(k + 1) * self.cols).collect(),
            Direction::Col => (k..self.cells.len()).step_by(self.cols).collect(),
        }
    }

    pub(super) fn png(&self) -> Vec<u8> {
        draw::digit_grid(&self.cells, self.cols)
    }
}

/// Rows are read from left to right, columns from top to bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Row,
    Col,
}

impl Direction {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Col => "col",
        }
    }
}

/// `5+9=14, 14+8=22`, or the number itself where there is only one; and the total.
pub(super) fn running_sum(values: &[i64]) -> (String, i64) {
    let mut total = values.first().copied().unwrap_or(0);
    if values.len() < 2 {
        return (total.to_string(), total);
    }
    let mut steps = Vec::with_capacity(values.len() - 1);
    for v in &values[1..] {
        steps.push(format!("{total}+{v}={}", total + v));
        total += v;
    }
    (steps.join(", "), total)
}

fn read(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let grid = Grid::new(spec, rng);
    let rows: Vec<String> =
        grid.values().chunks(grid.cols).map(|row| row.iter().map(i64::to_string).collect()).collect();
    ToyProblem::new("read?", &rows.join(", "), rows.concat(), grid.png())
}

fn sum(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let grid = Grid::new(spec, rng);
    // A range of one value draws nothing, so that the plain sum keeps its problems.
    let draw = |range: &RangeInclusive<usize>, rng: &mut _| match range.start() == range.end() {
        true => *range.start(),
        false => Rng::random_range(rng, range.clone()),
    };
    let (count, questions) = (draw(&spec.distractors, rng), draw(&spec.questions, rng));
    let text: String = (0..count).map(|_| distractor(rng)).collect();
    let values = grid.values();
    let (mut thoughts, mut total) = running_sum(&values);
    if questions == 1 {
        return ToyProblem::new(&format!("{text}sum?"), &thoughts, total, grid.png());
    }
    let (digits, largest): (String, i64) =
        (values.iter().map(i64::to_string).collect(), values.iter().copied().max().unwrap_or(0));
    let _ = write!(thoughts, ", largest of {digits} is {largest}, {total}+{largest}={}", total + largest);
    total += largest;
    ToyProblem::new(&format!("{text}sum + largest?"), &thoughts, total, grid.png())
}

fn compare(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    loop {
        let grid = Grid::new(spec, rng);
        let mut lines = Vec::new();
        if grid.rows() > 1 {
            lines.push((Direction::Row, grid.rows()));
        }
        if grid.cols > 1 {
            lines.push((Direction::Col, grid.cols));
        }
        let Some(&(line, n)) = lines.choose(rng) else {
            continue;
        };
        let sums: Vec<(String, i64)> = (0..n).map(|k| running_sum(&grid.line(line, k))).collect();
        let best = sums.iter().map(|s| s.1).max().unwrap_or(0);
        let mut winners = (0..n).filter(|&k| sums[k].1 == best);
        // A tie has no answer; another grid is drawn.
        let (Some(winner), None) = (winners.next(), winners.next()) else {
            continue;
        };
        let thoughts: Vec<String> = sums.iter().enumerate().map(|(k, (s, _))| format!("{}: {s}", k + 1)).collect();
        return ToyProblem::new(&format!("larger {}?", line.name()), &thoughts.join(", "), winner + 1, grid.png());
    }
}

fn count(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let rows = rng.random_range(spec.rows.clone());
    let cols = rng.random_range(spec.cols.clone());
    // Few colours and shapes in one picture, so that counts above one are common.
    let mut palette: Vec<usize> = (0..COLOURS.len()).collect();
    palette.shuffle(rng);
    palette.truncate(2);
    let mut shapes = SHAPES;
    shapes.shuffle(rng);
    let shapes = &shapes[..2];
    let cells: Vec<Option<Placed>> = (0..rows * cols)
        .map(|_| {
            rng.random_bool(0.85).then(|| Placed {
                shape: shapes[rng.random_range(0..2)],
                colour: palette[rng.random_range(0..2)],
                radius: rng.random_range(7.0..10.5),
                offset: (rng.random_range(-2.0..2.0), rng.random_range(-2.0..2.0)),
            })
        })
        .collect();
    let colour = palette[0];
    let shape = shapes[0];
    let (question, by_colour, by_shape) = match rng.random_range(0..3) {
        0 => (COLOURS[colour].name.to_owned(), true, false),
        1 => (shape.plural().to_owned(), false, true),
        _ => (format!("{} {}", COLOURS[colour].name, shape.plural()), true, true),
    };
    let counts = |cell: &Option<Placed>| {
        cell.is_some_and(|p| (!by_colour || p.colour == colour) && (!by_shape || p.shape == shape))
    };
    let by_row: Vec<i64> = cells.chunks(cols).map(|row| row.iter().filter(|c| counts(c)).count() as i64).collect();
    let (steps, total) = running_sum(&by_row);
    let mut thoughts = String::new();
    for (k, n) in by_row.iter().enumerate() {
        let _ = write!(thoughts, "{}: {n}, ", k + 1);
    }
    // One row needs no sum.
    let thoughts = if by_row.len() > 1 { thoughts + &steps } else { thoughts.trim_end_matches(", ").to_owned() };
    ToyProblem::new(&format!("{question}?"), &thoughts, total, draw::shape_grid(&cells, cols))
}

fn chart(spec: &ToySpec, rng: &mut impl Rng) -> ToyProblem {
    let n = rng.random_range(spec.cols.clone());
    let mut colours: Vec<usize> = (0..COLOURS.len()).collect();
    colours.shuffle(rng);
    let bars: Vec<(usize, u32)> = colours[..n].iter().map(|&c| (c, rng.random_range(1..=MAX_BAR))).collect();
    let png = draw::bar_chart(&bars);
    let say = |k: usize| format!("{} {}", COLOURS[bars[k].0].name, bars[k].1);
    let name = |k: usize| COLOURS[bars[k].0].name;
    let value = |k: usize| i64::from(bars[k].1);
    let a = rng.random_range(0..n);
    match rng.random_range(0..if n > 1 { 4 } else { 1 }) {
        0 => ToyProblem::new(&format!("{}?", name(a)), &say(a), value(a), png),
        1 => {
            let all: Vec<String> = (0..n).map(say).collect();
            let best = bars.iter().map(|b| b.1).max().unwrap_or(0);
            ToyProblem::new("max?", &all.join(", "), best, png)
        }
        kind => {
            let b = (a + rng.random_range(1..n)) % n;
            let (sign, result) = if kind == 2 { ('+', value(a) + value(b)) } else { ('-', value(a) - value(b)) };
            let thoughts = format!("{}, {}, {}{sign}{}={result}", say(a), say(b), value(a), value(b));
            ToyProblem::new(&format!("{}{sign}{}?", name(a), name(b)), &thoughts, result, png)
        }
    }
}

pub(super) fn distractor(rng: &mut impl Rng) -> String {
    const WHO: [&str; 4] = ["tom", "ann", "sam", "eva"];
    const WHAT: [&str; 4] = ["cats", "books", "pens", "cups"];
    format!("{} has {} {}. ", WHO[rng.random_range(0..4)], rng.random_range(2..10), WHAT[rng.random_range(0..4)])
}
