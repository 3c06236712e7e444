//! How many tokens rows have, counted without their pixels, and which of them cost most.

use std::collections::{BTreeMap, BTreeSet};

use data::{Cursor, Prefetcher, Sample};
use serde::{Deserialize, Serialize};

use super::{Encoder, Prompts};
use crate::error::TrainError;

/// Places of an epoch that are looked at. Of a longer one the first so many: a limit, so that weights of a million end.
const LOOKED_AT: usize = 1 << 20;

/// What a row costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowSize {
    /// Row in its data set.
    pub row: usize,
    /// Tokens of the prompt, those of its pictures included.
    pub prompt: usize,
    /// Image tokens of all its pictures.
    pub image: usize,
    /// Image tokens of the largest of them.
    pub picture: usize,
    /// Tokens of the worked response; 0 but in supervised stages.
    pub solution: usize,
}

impl RowSize {
    /// Tokens that go through the decoder.
    fn tokens(&self) -> usize {
        self.prompt + self.solution
    }
}

/// What the rows of a stage's first epoch cost, and which cost most.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochSizes {
    /// Rows that were looked at and can be used.
    pub usable: usize,
    /// Mean tokens of a prompt, of its pictures, and of a worked response.
    pub means: [f64; 3],
    /// The rows that cost most, with their places in the epoch's order: in turn the longest, and the one with the most
    /// image tokens, each place once.
    pub worst: Vec<(usize, RowSize)>,
}

/// What a rank found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct RankSizes {
    usable: usize,
    sums: [u64; 3],
    candidates: Vec<RowSize>,
}

/// The two orders of cost, dearest first: rows of equal cost by their number, so that any number of ranks chooses the
/// same.
type CostOrder = fn(&RowSize) -> (std::cmp::Reverse<usize>, std::cmp::Reverse<usize>, usize);
const ORDERS: [CostOrder; 2] = [
    |size| (std::cmp::Reverse(size.tokens()), std::cmp::Reverse(size.image), size.row),
    |size| (std::cmp::Reverse(size.image), std::cmp::Reverse(size.tokens()), size.row),
];

impl RankSizes {
    /// Of all rows that a rank has looked at, with the `count` dearest in either order.
    fn of(mut sizes: Vec<RowSize>, count: usize) -> Self {
        let sum = |of: fn(&RowSize) -> usize| sizes.iter().map(|size| of(size) as u64).sum();
        let sums = [sum(|size| size.prompt), sum(|size| size.image), sum(|size| size.solution)];
        let usable = sizes.len();
        let mut candidates = BTreeMap::new();
        for order in ORDERS {
            sizes.sort_by_key(order);
            candidates.extend(sizes.iter().take(count).map(|size| (size.row, *size)));
        }
        Self { usable, sums, candidates: candidates.into_values().collect() }
    }
}

/// The `count` dearest places of an epoch whose rows are `order`.
fn worst(order: &[usize], candidates: &[RowSize], count: usize) -> Vec<(usize, RowSize)> {
    let by_row: BTreeMap<usize, &RowSize> = candidates.iter().map(|size| (size.row, size)).collect();
    let places: Vec<(usize, RowSize)> =
        order.iter().enumerate().filter_map(|(place, row)| Some((place, **by_row.get(row)?))).collect();
    let sorted = ORDERS.map(|order| {
        let mut places = places.clone();
        places.sort_by_key(|(place, size)| (order(size), *place));
        places
    });
    let in_turn = std::iter::zip(&sorted[0], &sorted[1]).flat_map(|(long, wide)| [long, wide]);
    let mut seen = BTreeSet::new();
    in_turn.filter(|(place, _)| seen.insert(*place)).take(count).copied().collect()
}

impl Prompts {
    /// Looks at the rows of the first epoch of `cursor`, each rank at its share: what they cost, and the `count` that
    /// cost most. No pixel is decoded; rows that would be set aside are left out. The same on all ranks, whatever their
    /// number.
    ///
    /// # Errors
    /// An over-long prompt while `data.filter_overlong_prompts` is off; a rank that is gone.
    pub fn sizes(&self, cursor: &Cursor, count: usize) -> Result<EpochSizes, TrainError> {
        let order = cursor.beginning(self.rows(), LOOKED_AT);
        // In the order of the file: rows of one block of parquet are read together.
        let rows: BTreeSet<usize> = order.iter().copied().collect();
        let ranks = &self.ranks;
        let own: Vec<usize> = rows.into_iter().skip(ranks.rank()).step_by(ranks.size()).collect();
        let encoder = self.encoder.clone();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let look = move |row: Result<Sample, _>| row.map_or(Ok(None), |sample| encoder.size(&sample));
        let found = Prefetcher::new(self.dataset.clone(), own.into_iter(), workers, workers * 8, look);
        let sizes = found.map(|(_, size)| size).filter_map(Result::transpose).collect::<Result<_, TrainError>>()?;
        let all = ranks.gather("sizes of rows", &RankSizes::of(sizes, count))?;
        let usable: usize = all.iter().map(|found| found.usable).sum();
        let mean = |k: usize| all.iter().map(|found| found.sums[k]).sum::<u64>() as f64 / usable.max(1) as f64;
        let means = [0, 1, 2].map(mean);
        let candidates: Vec<RowSize> = all.into_iter().flat_map(|found| found.candidates).collect();
        Ok(EpochSizes { usable, means, worst: worst(&order, &candidates, count) })
    }

    /// Where a row stands, for a person: its file or generator, and the line or row there.
    pub fn place(&self, row: usize) -> String {
        self.dataset.place_text(row)
    }
}

impl Encoder {
    /// What a sample costs; none where it would be set aside.
    fn size(&self, sample: &Sample) -> Result<Option<RowSize>, TrainError> {
        let Ok(prompt) = self.prompt_tokens(sample)? else { return Ok(None) };
        let images = sample.images.iter().map(|image| self.processor.count_image_tokens(image));
        let Ok(images) = images.collect::<Result<Vec<usize>, _>>() else { return Ok(None) };
        let solution = self.supervised.as_ref().map(|wanted| wanted.ids(sample, &self.processor)).transpose();
        let Ok(solution) = solution else { return Ok(None) };
        Ok(Some(RowSize {
            row: sample.index,
            prompt,
            image: images.iter().sum(),
            picture: images.into_iter().max().unwrap_or(0),
            solution: solution.map_or(0, |ids| ids.len() + 1),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(row: usize, prompt: usize, image: usize) -> RowSize {
        RowSize { row, prompt, image, picture: image, solution: 0 }
    }

    /// Rows of one of `ranks`, and what all choose together.
    fn chosen(rows: &[RowSize], order: &[usize], ranks: usize, count: usize) -> Vec<usize> {
        let of = |rank: usize| rows.iter().skip(rank).step_by(ranks).copied().collect();
        let found = (0..ranks).map(|rank| RankSizes::of(of(rank), count));
        let candidates: Vec<RowSize> = found.flat_map(|found| found.candidates).collect();
        worst(order, &candidates, count).into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn the_longest_and_the_widest_come_in_turn() {
        let rows = [row(0, 10, 0), row(1, 90, 0), row(2, 50, 40), row(3, 80, 10), row(4, 60, 30), row(5, 90, 0)];
        let order = [5, 4, 3, 2, 1, 0];
        // Longest: 1 (place 4), 5 (place 0), 3, 4, 2; widest: 2 (place 3), 4 (place 1), 3.
        assert_eq!(chosen(&rows, &order, 1, 4), [4, 3, 0, 1]);
        for ranks in 2..6 {
            assert_eq!(chosen(&rows, &order, ranks, 4), [4, 3, 0, 1], "{ranks} ranks");
        }
        assert_eq!(chosen(&rows, &order, 1, 99).len(), 6, "no more than there are");
        // Where both orders are the same, all that are chosen come from each.
        let alike: Vec<RowSize> = (0..9).map(|k| row(k, 100 - k, 90 - k)).collect();
        for ranks in 1..4 {
            assert_eq!(chosen(&alike, &[8, 7, 6, 5, 4, 3, 2, 1, 0], ranks, 4), [8, 7, 6, 5], "{ranks} ranks");
        }
    }

    #[test]
    fn a_row_that_comes_twice_has_two_places() {
        let rows = [row(0, 10, 0), row(1, 90, 0)];
        assert_eq!(chosen(&rows, &[1, 0, 1, 0], 1, 2), [0, 2]);
    }
}
