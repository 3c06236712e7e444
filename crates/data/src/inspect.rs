//! What is in a data set: counts, lengths, picture sizes, and the rows that would be set aside.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::dataset::Dataset;
use crate::error::BadRow;
use crate::image;
use crate::prefetch::Prefetcher;
use crate::processor::Processor;
use crate::prompt::{FormatPrompt, count_prompt_tokens};
use crate::sample::Sample;

/// How prompts are built when their length is to be known.
#[derive(Debug)]
pub struct PromptSettings {
    /// Tokenizer and image settings.
    pub processor: Processor,
    /// Around the problem.
    pub format: FormatPrompt,
    /// System message.
    pub system: Option<String>,
    /// Longer prompts are set aside, in tokens.
    pub max_prompt_length: Option<usize>,
}

/// Numbers with their distribution.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    values: Vec<u64>,
}

impl Distribution {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        self.values.push(value);
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// The value below which a share `q` of the values lies (nearest rank); 0 when there are none.
    pub fn quantile(&mut self, q: f64) -> u64 {
        self.values.sort_unstable();
        let rank = (q * self.values.len() as f64).ceil() as usize;
        self.values.get(rank.saturating_sub(1)).or(self.values.last()).copied().unwrap_or(0)
    }

    /// Up to ten buckets of one round width: `(lowest, highest, count)`.
    pub(crate) fn buckets(&self) -> Vec<(u64, u64, usize)> {
        let (Some(&low), Some(&high)) = (self.values.iter().min(), self.values.iter().max()) else {
            return Vec::new();
        };
        // The narrowest of 1, 2, 5, 10, 20, 50, ... that makes at most ten buckets.
        let mut width = 1u64;
        for step in [2, 5, 10].into_iter().cycle() {
            if high / width - low / width < 10 {
                break;
            }
            width = match step {
                2 => width.saturating_mul(2),
                5 => width / 2 * 5,
                _ => width.saturating_mul(2),
            };
        }
        let first = low / width;
        let mut counts = vec![0usize; (high / width - first) as usize + 1];
        for value in &self.values {
            counts[(value / width - first) as usize] += 1;
        }
        let bucket = |(k, n): (usize, usize)| {
            let start = (first + k as u64) * width;
            (start, start.saturating_add(width - 1), n)
        };
        counts.into_iter().enumerate().map(bucket).collect()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.clone();
        let [min, half, p95, max] = [0.0, 0.5, 0.95, 1.0].map(|q| sorted.quantile(q));
        writeln!(f, "min {min}, median {half}, 95% {p95}, max {max}")?;
        let buckets = self.buckets();
        let most = buckets.iter().map(|b| b.2).max().unwrap_or(1);
        for (low, high, n) in buckets {
            let bar = "#".repeat((n * 40).div_ceil(most));
            writeln!(f, "  {low:>9} - {high:<9} {n:>8} {bar}")?;
        }
        Ok(())
    }
}

/// What [`inspect`] found.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Rows looked at.
    pub rows: usize,
    /// Rows without a picture.
    pub text_only: usize,
    /// Rows by number of pictures.
    pub pictures_per_row: BTreeMap<usize, usize>,
    /// Rows by task, where there are tasks.
    pub tasks: BTreeMap<String, usize>,
    /// Rows with a response to imitate.
    pub solutions: usize,
    /// Characters of the problems.
    pub problem_characters: Distribution,
    /// Prompt lengths in tokens; empty without [`PromptSettings`].
    pub prompt_tokens: Distribution,
    /// Wider side of each picture in pixels.
    pub picture_sides: Distribution,
    /// Bytes of each encoded picture.
    pub picture_bytes: Distribution,
    /// Rows of the data set that share their id with another, and are named by their number instead.
    pub repeated_ids: usize,
    /// Rows that would be set aside, and why.
    pub set_aside: Vec<BadRow>,
}

/// One row's share of an [`Inspection`].
struct RowFindings {
    pictures: usize,
    task: Option<String>,
    solution: bool,
    characters: u64,
    tokens: Option<u64>,
    sides: Vec<u64>,
    bytes: Vec<u64>,
    bad: Option<BadRow>,
}

/// Looks at the first `rows` rows; no pixel is decoded. `progress` is called with the rows done.
pub fn inspect(
    dataset: &Arc<Dataset>,
    rows: usize,
    settings: Option<Arc<PromptSettings>>,
    mut progress: impl FnMut(usize),
) -> Inspection {
    let rows = rows.min(dataset.len());
    let mut out = Inspection { repeated_ids: dataset.rows_with_repeated_ids(), ..Inspection::default() };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let look = move |row: Result<Sample, BadRow>| row.map(|sample| look(&sample, settings.as_deref()));
    for (_, row) in Prefetcher::new(dataset.clone(), 0..rows, workers, workers * 8, look) {
        out.rows += 1;
        progress(out.rows);
        let row = match row {
            Ok(row) => row,
            Err(bad) => {
                out.set_aside.push(bad);
                continue;
            }
        };
        out.text_only += usize::from(row.pictures == 0);
        *out.pictures_per_row.entry(row.pictures).or_default() += 1;
        if let Some(task) = row.task {
            *out.tasks.entry(task).or_default() += 1;
        }
        out.solutions += usize::from(row.solution);
        out.problem_characters.add(row.characters);
        row.tokens.into_iter().for_each(|n| out.prompt_tokens.add(n));
        row.sides.into_iter().for_each(|n| out.picture_sides.add(n));
        row.bytes.into_iter().for_each(|n| out.picture_bytes.add(n));
        out.set_aside.extend(row.bad);
    }
    out
}

fn look(sample: &Sample, settings: Option<&PromptSettings>) -> RowFindings {
    let bad = |reason: String| BadRow { id: sample.id.clone(), index: sample.index, reason };
    let mut row = RowFindings {
        pictures: sample.images.len(),
        task: sample.task.clone(),
        solution: sample.solution.is_some(),
        characters: sample.problem.chars().count() as u64,
        tokens: None,
        sides: Vec::new(),
        bytes: Vec::new(),
        bad: None,
    };
    for (k, picture) in sample.images.iter().enumerate() {
        match picture.load().and_then(|bytes| Ok((bytes.len(), image::header_size(&bytes)?))) {
            Ok((bytes, (w, h))) => {
                row.sides.push(w.max(h).into());
                row.bytes.push(bytes as u64);
            }
            Err(e) => row.bad = row.bad.or_else(|| Some(bad(format!("image {}: {e}", k + 1)))),
        }
    }
    match settings {
        Some(s) => match count_prompt_tokens(sample, &s.format, &s.processor, s.system.as_deref()) {
            Ok(n) => {
                row.tokens = Some(n as u64);
                if let Some(limit) = s.max_prompt_length.filter(|limit| n > *limit) {
                    row.bad = Some(bad(format!("the prompt has {n} tokens, more than max_prompt_length {limit}")));
                }
            }
            Err(e) => row.bad = Some(e),
        },
        // Without a tokenizer: what can be said about the row itself.
        None => {
            if let (None, Err(e)) = (&row.bad, crate::prompt::check_row(sample)) {
                row.bad = Some(e);
            }
        }
    }
    row
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows: {} ({} text only, {} with a solution)", self.rows, self.text_only, self.solutions)?;
        if self.pictures_per_row.len() > 1 || self.pictures_per_row.keys().any(|k| *k > 1) {
            let counts: Vec<String> = self.pictures_per_row.iter().map(|(k, n)| format!("{k}: {n}")).collect();
            writeln!(f, "rows by number of pictures: {}", counts.join(", "))?;
        }
        if !self.tasks.is_empty() {
            let counts: Vec<String> = self.tasks.iter().map(|(k, n)| format!("{k}: {n}")).collect();
            writeln!(f, "rows by task: {}", counts.join(", "))?;
        }
        for (name, histogram) in [
            ("problem length in characters", &self.problem_characters),
            ("prompt length in tokens, pictures included", &self.prompt_tokens),
            ("wider side of a picture in pixels", &self.picture_sides),
            ("encoded picture in bytes", &self.picture_bytes),
        ] {
            if histogram.count() > 0 {
                write!(f, "{name}: {histogram}")?;
            }
        }
        if self.repeated_ids > 0 {
            writeln!(f, "rows that share their id, named by number instead: {}", self.repeated_ids)?;
        }
        writeln!(f, "set aside: {} of {}", self.set_aside.len(), self.rows)?;
        const SHOWN: usize = 20;
        for bad in self.set_aside.iter().take(SHOWN) {
            writeln!(f, "  {bad}")?;
        }
        if self.set_aside.len() > SHOWN {
            writeln!(f, "  and {} more", self.set_aside.len() - SHOWN)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_by_hand() {
        let mut h = Distribution::default();
        (1..=100).for_each(|v| h.add(v));
        assert_eq!([0.0, 0.5, 0.95, 1.0].map(|q| h.quantile(q)), [1, 50, 95, 100]);
        // 1..=100 in buckets of 20: 0-19 holds 19 values, 100-119 holds one.
        let buckets = h.buckets();
        assert_eq!(buckets.first(), Some(&(0, 19, 19)));
        assert_eq!(buckets.last(), Some(&(100, 119, 1)));
        assert_eq!(buckets.iter().map(|b| b.2).sum::<usize>(), 100);
        let mut one = Distribution::default();
        one.add(7);
        assert_eq!(one.buckets(), [(7, 7, 1)]);
        assert!(Distribution::default().buckets().is_empty());
        let mut wide = Distribution::default();
        [0, u64::MAX].into_iter().for_each(|v| wide.add(v));
        assert!(wide.buckets().len() <= 10);
    }
}
