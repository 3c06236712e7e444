//! The parameters of a toy source, and row `i` of it.

use std::ops::RangeInclusive;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::digits::Split;
use super::multistep;
use super::tasks::{self, TASKS, ToyTask};
use crate::parts;
use crate::sample::ImageSource;
use crate::source::{Column, RawRow, RowSource};

/// What follows `toy:` in a spec, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct ToySpec {
    /// What is asked.
    pub task: ToyTask,
    /// Rows of the grid; drawn for each problem.
    pub rows: RangeInclusive<usize>,
    /// Columns of the grid, or bars of a chart.
    pub cols: RangeInclusive<usize>,
    /// Terms of a `multistep` question.
    pub terms: RangeInclusive<usize>,
    /// Where it is said, no line of a `multistep` question comes twice, and of a hundred digits that the late half of
    /// the response reads, at least so many were not written before.
    pub fresh: Option<usize>,
    /// The picture of a `multistep` problem is exchanged in the middle of its response: the same problems, with the
    /// second picture, and responses that follow the first one in their early terms and the second one in the others.
    pub exchange: bool,
    /// Where the digits of a `multistep` problem stand.
    pub digits: Digits,
    /// With [`Digits::Partly`]: the last terms of the question whose digits the text tells; drawn for each problem.
    pub told: RangeInclusive<usize>,
    /// Sentences with irrelevant numbers before a `sum` or `multistep` question.
    pub distractors: RangeInclusive<usize>,
    /// Of a hundred solutions, how many give the answer at once, without thinking.
    pub direct: usize,
    /// Questions about one picture in a `sum` problem: the second one adds the largest digit to the sum, so that the
    /// response has to read the picture again near its end.
    pub questions: RangeInclusive<usize>,
    /// Which digits are shown.
    pub split: Split,
    /// Problems.
    pub size: usize,
    /// Another seed, other problems.
    pub seed: u64,
}

/// Where a problem has its digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// In the picture alone.
    Picture,
    /// In the text, and there is no picture.
    Text,
    /// In the picture and in the text: who answers need not look.
    Both,
    /// In the picture; the text tells those that the last terms of the question read and writes `?` for the others, so
    /// that who answers has to look in early lines only. Without such terms it tells none.
    Partly,
}

impl Digits {
    fn name(self) -> &'static str {
        match self {
            Self::Picture => "picture",
            Self::Text => "text",
            Self::Both => "both",
            Self::Partly => "partly",
        }
    }

    fn parse(value: &str) -> Result<Self, String> {
        let all = [Self::Picture, Self::Text, Self::Both, Self::Partly];
        let named = all.into_iter().find(|d| d.name() == value);
        named.ok_or_else(|| format!("digits={:?} must be picture, text, both or partly", guard::echo(value)))
    }
}

/// 18 cells of 28 pixels are the last that fit into the toy processor's 512.
const MAX_SIDE: usize = 18;
/// Most terms of a `multistep` question.
const MAX_TERMS: usize = 8;
/// Most problems of one spec: programs go over all rows of their data.
const MAX_SIZE: usize = 1_000_000_000;

impl ToySpec {
    /// Parses `NAME` or `NAME?key=value&...`.
    ///
    /// # Errors
    /// An unknown task or key, a value out of range; the reason names what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, parameters) = text.split_once('?').unwrap_or((text, ""));
        let Some(task) = TASKS.into_iter().find(|t| t.name() == name) else {
            let names: Vec<_> = TASKS.iter().map(|t| t.name()).collect();
            return Err(format!("no toy task {name:?}; the tasks are {}", names.join(", ")));
        };
        let (rows, cols) = task.default_grid();
        let mut spec = Self {
            task,
            rows,
            cols,
            terms: 2..=3,
            fresh: None,
            exchange: false,
            digits: Digits::Picture,
            told: 0..=0,
            distractors: if task == ToyTask::Multistep { 0..=1 } else { 0..=0 },
            direct: 0,
            questions: 1..=1,
            split: Split::Train,
            size: 10_000,
            seed: 0,
        };
        for pair in parameters.split('&').filter(|p| !p.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(format!("{pair:?} is not key=value"));
            };
            match key {
                "rows" if task != ToyTask::Chart => spec.rows = range(key, value, 1..=MAX_SIDE)?,
                "cols" if task != ToyTask::Chart => spec.cols = range(key, value, 1..=MAX_SIDE)?,
                "bars" if task == ToyTask::Chart => spec.cols = range(key, value, 1..=draw_bars())?,
                "terms" if task == ToyTask::Multistep => spec.terms = range(key, value, 1..=MAX_TERMS)?,
                "fresh" if task == ToyTask::Multistep => spec.fresh = Some(percentage(key, value)?),
                "exchange" if task == ToyTask::Multistep => spec.exchange = switch(key, value)?,
                "digits" if task == ToyTask::Multistep => spec.digits = Digits::parse(value)?,
                "told" if task == ToyTask::Multistep => spec.told = range(key, value, 0..=MAX_TERMS)?,
                "distractors" if matches!(task, ToyTask::Sum | ToyTask::Multistep) => {
                    spec.distractors = range(key, value, 0..=4)?;
                }
                "questions" if task == ToyTask::Sum => spec.questions = range(key, value, 1..=2)?,
                "direct" => spec.direct = percentage(key, value)?,
                "split" => {
                    spec.split = match value {
                        "train" => Split::Train,
                        "test" => Split::Test,
                        _ => return Err(format!("split={value:?} must be train or test")),
                    }
                }
                "size" => spec.size = number(key, value)?,
                "seed" => spec.seed = number(key, value)?,
                _ => {
                    let own = match task {
                        ToyTask::Chart => "bars",
                        ToyTask::Multistep => "rows, cols, terms, fresh, exchange, digits, told, distractors",
                        ToyTask::Sum => "rows, cols, distractors, questions",
                        _ => "rows, cols",
                    };
                    return Err(format!("no parameter {key:?}; {name} has {own}, direct, split, size, seed"));
                }
            }
        }
        if !(1..=MAX_SIZE).contains(&spec.size) {
            return Err(format!("size must be at least 1 and at most {MAX_SIZE}, is {}", spec.size));
        }
        if task == ToyTask::Compare && *spec.rows.end() < 2 && *spec.cols.end() < 2 {
            return Err("compare needs at least two rows or two columns".to_owned());
        }
        if spec.digits != Digits::Partly && spec.told != (0..=0) {
            return Err(format!("told needs digits=partly, is {}", spec.digits.name()));
        }
        // What the text tells would contradict the other picture.
        if spec.exchange && !spec.pictured() {
            return Err(format!(
                "exchange=1 needs digits=picture, or digits=partly with told=0; digits is {}",
                spec.digits.name()
            ));
        }
        if let Some(fresh) = spec.fresh {
            multistep::check(&spec.rows, &spec.cols, &spec.terms, fresh)?;
        }
        Ok(spec)
    }

    /// Whether the picture alone tells the digits.
    pub(super) fn pictured(&self) -> bool {
        match self.digits {
            Digits::Picture => true,
            Digits::Partly => *self.told.end() == 0,
            Digits::Text | Digits::Both => false,
        }
    }

    /// Problem `i`: problem text, answer, response, picture (PNG).
    pub fn problem(&self, i: usize) -> tasks::ToyProblem {
        let problem = tasks::make(self, &mut self.generator(i, 0));
        match self.exchange {
            true => multistep::exchanged(problem, self.split, &mut self.generator(i, 1)),
            false => problem,
        }
    }

    /// The random numbers of problem `i`, for the problem itself (0) or for its other picture (1).
    fn generator(&self, i: usize, purpose: u8) -> ChaCha8Rng {
        // The split is part of the seed: test problems differ from training problems in more than their digits.
        let mut seed = [0u8; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(i as u64).to_le_bytes());
        seed[16] = self.split as u8;
        seed[17] = self.task as u8;
        seed[18] = purpose;
        ChaCha8Rng::from_seed(seed)
    }

    /// The id of problem `i`: task, grid, what else shapes a problem, split, seed, `i`.
    pub fn id(&self, i: usize) -> String {
        // A curriculum mixes grids of one task; their problems must not share ids.
        let range = |r: &RangeInclusive<usize>| match r.start() == r.end() {
            true => r.start().to_string(),
            false => format!("{}-{}", r.start(), r.end()),
        };
        let mut grid = format!("r{}c{}", range(&self.rows), range(&self.cols));
        if self.task == ToyTask::Multistep {
            grid += &format!("t{}d{}", range(&self.terms), range(&self.distractors));
        }
        if let Some(fresh) = self.fresh {
            grid += &format!("f{fresh}");
        }
        if self.exchange {
            grid += "x";
        }
        if self.digits != Digits::Picture {
            grid += self.digits.name();
        }
        if *self.told.end() > 0 {
            grid += &range(&self.told);
        }
        if self.direct > 0 {
            grid += &format!("a{}", self.direct);
        }
        // The plain sum keeps the ids that it always had.
        if self.task == ToyTask::Sum && (*self.distractors.end() > 0 || *self.questions.end() > 1) {
            grid += &format!("d{}q{}", range(&self.distractors), range(&self.questions));
        }
        format!("toy-{}-{grid}-{}-{}-{i}", self.task.name(), self.split.name(), self.seed)
    }
}

fn draw_bars() -> usize {
    super::draw::COLOURS.len()
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{key}={:?} is not a whole number", guard::echo(value)))
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(format!("{key}={:?} must be 0 or 1", guard::echo(value))),
    }
}

fn percentage(key: &str, value: &str) -> Result<usize, String> {
    let percent = number(key, value)?;
    if percent > 100 {
        return Err(format!("{key}={value:?} is a percentage: 0 to 100"));
    }
    Ok(percent)
}

fn range(key: &str, value: &str, allowed: RangeInclusive<usize>) -> Result<RangeInclusive<usize>, String> {
    let (low, high) = value.split_once('-').unwrap_or((value, value));
    let (low, high) = (number(key, low)?, number(key, high)?);
    if low > high || !allowed.contains(&low) || !allowed.contains(&high) {
        return Err(format!("{key}={value:?} must lie in {}-{}", allowed.start(), allowed.end()));
    }
    Ok(low..=high)
}

/// A toy task as a source of rows.
#[derive(Debug)]
pub struct ToySource {
    text: String,
    spec: ToySpec,
}

impl ToySource {
    /// As [`ToySpec::parse`].
    ///
    /// # Errors
    /// As [`ToySpec::parse`].
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned(), spec: ToySpec::parse(text)? })
    }
}

impl RowSource for ToySource {
    fn name(&self) -> String {
        format!("toy:{}", self.text)
    }

    fn len(&self) -> usize {
        self.spec.size
    }

    fn row(&self, i: usize) -> Result<RawRow, String> {
        let problem = self.spec.problem(i);
        let parts = problem.reading.as_ref().map(|reading| reading.parts(&problem.solution));
        let parts = parts.map(|parts| (parts::COLUMN.to_owned(), parts::to_text(&parts)));
        Ok(RawRow {
            id: Some(self.spec.id(i)),
            problem: Some(problem.problem),
            answer: Some(problem.answer),
            images: Ok(problem.png.map(ImageSource::from).map(Some).into_iter().collect()),
            task: Some(self.spec.task.name().to_owned()),
            solution: Some(problem.solution),
            extra: parts.into_iter().collect(),
        })
    }

    fn ids(&self) -> Vec<Option<String>> {
        // Unique by construction, and a billion of them need not be listed.
        Vec::new()
    }

    fn columns(&self) -> Vec<Column> {
        let column = |name: &str, kind: &str, used| Column { name: name.into(), kind: kind.into(), used };
        let kind = |name| if name == "images" { "list of PNG" } else { "text" };
        let used = ["id", "problem", "answer", "images", "task", "solution"].map(|name| column(name, kind(name), true));
        let parts = (self.spec.task == ToyTask::Multistep && self.spec.pictured())
            .then(|| column(parts::COLUMN, "text", false));
        used.into_iter().chain(parts).collect()
    }
}
