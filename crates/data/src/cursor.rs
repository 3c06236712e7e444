//! Which rows come next: a seeded permutation per epoch, resumed exactly from three numbers.
//!
//! The permutation is a small Feistel cipher over the row numbers (cycle-walked to the length), so that nothing is
//! stored, any position is found in constant time, and a data set with a million rows costs no more than one with ten.
//! Places of the first epoch may be drawn before all others (`first`): they are a step's, and stored.

use serde::{Deserialize, Serialize};

/// A run of rows that is drawn with one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochPart {
    /// First row index.
    pub start: usize,
    /// Rows.
    pub len: usize,
    /// Times that a row is seen in an epoch; 0.5 means half of the rows, the other half in the next epoch.
    pub weight: f64,
}

impl EpochPart {
    /// Rows drawn from this part in one epoch: `round(weight * len)`.
    pub(crate) fn rows_per_epoch(&self) -> usize {
        // Weights are checked when a data set is opened; a negative or NaN weight casts to zero here.
        (self.weight * self.len as f64).round() as usize
    }
}

/// What a [`Cursor`] can walk over: a plain length, or a [`crate::Dataset`] with the weights of its parts.
pub trait EpochRows {
    /// The parts, in row order.
    fn epoch_parts(&self) -> Vec<EpochPart>;
}

impl EpochRows for usize {
    fn epoch_parts(&self) -> Vec<EpochPart> {
        vec![EpochPart { start: 0, len: *self, weight: 1.0 }]
    }
}

impl<T: EpochRows + ?Sized> EpochRows for &T {
    fn epoch_parts(&self) -> Vec<EpochPart> {
        (**self).epoch_parts()
    }
}

/// Where a run stands in its data. Saved as it is, it continues with the same rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Seed of every permutation.
    pub seed: u64,
    /// Full passes done.
    pub epoch: u64,
    /// Rows already drawn in this epoch.
    pub position: usize,
    /// False: rows in file order, each part after the other.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Places of the first epoch, from 0, that are drawn before its others; each once. The others keep their order, so
    /// that an epoch has the same rows as without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<usize>,
}

fn yes() -> bool {
    true
}

impl Cursor {
    /// A cursor at the first row of the first epoch.
    pub fn new(seed: u64) -> Self {
        Self { seed, epoch: 0, position: 0, shuffle: true, first: vec![] }
    }

    /// Rows in one epoch, weights included.
    pub fn epoch_len(of: impl EpochRows) -> usize {
        of.epoch_parts().iter().map(EpochPart::rows_per_epoch).sum()
    }

    /// The next `n` row indices; goes on into the next epoch where one ends. Empty when there are no rows.
    pub fn next(&mut self, of: impl EpochRows, n: usize) -> Vec<usize> {
        let parts = of.epoch_parts();
        let total: usize = parts.iter().map(EpochPart::rows_per_epoch).sum();
        let mut rows = Vec::with_capacity(n);
        while total > 0 && rows.len() < n {
            if self.position >= total {
                self.position = 0;
                self.epoch += 1;
                continue;
            }
            rows.push(self.row(&parts, total, self.place()));
            self.position += 1;
        }
        if total > 0 && self.position >= total {
            self.position = 0;
            self.epoch += 1;
        }
        rows
    }

    /// The rows at the first `n` places of the first epoch, as they would be drawn if no place came
    /// [first](Self::first).
    pub fn beginning(&self, of: impl EpochRows, n: usize) -> Vec<usize> {
        Self { epoch: 0, position: 0, first: vec![], ..self.clone() }.next(&of, n.min(Self::epoch_len(&of)))
    }

    /// The place of the epoch's order that is drawn next.
    fn place(&self) -> usize {
        if self.epoch > 0 || self.first.is_empty() {
            return self.position;
        }
        if let Some(place) = self.first.get(self.position) {
            return *place;
        }
        let mut drawn = self.first.clone();
        drawn.sort_unstable();
        // The n-th of the places that were not drawn: each one that was and lies before it moves it up.
        drawn.into_iter().fold(self.position - self.first.len(), |place, drawn| place + usize::from(drawn <= place))
    }

    fn row(&self, parts: &[EpochPart], total: usize, place: usize) -> usize {
        let mut slot = match self.shuffle {
            true => permute(place, total, mix(self.seed, self.epoch)),
            false => place,
        };
        for (k, part) in parts.iter().enumerate() {
            let quota = part.rows_per_epoch();
            if slot >= quota {
                slot -= quota;
                continue;
            }
            // Each part is an endless row of passes; an epoch takes the next `quota` rows of it, so that with a weight
            // below one every row is seen before any is seen twice.
            let stream = self.epoch as u128 * quota as u128 + slot as u128;
            let pass = (stream / part.len as u128) as u64;
            let offset = (stream % part.len as u128) as usize;
            let row = match self.shuffle {
                true => permute(offset, part.len, mix(mix(self.seed, !pass), k as u64)),
                false => offset,
            };
            return part.start + row;
        }
        unreachable!("a slot below the total lies in one of the parts")
    }
}

/// splitmix64's finaliser over two words.
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A bijection of `0..len`, chosen by `key`.
fn permute(index: usize, len: usize, key: u64) -> usize {
    if len < 2 {
        return index;
    }
    // Two halves of `half` bits each hold every index; walking the cycle brings a value beyond `len` back inside.
    let bits = usize::BITS - (len - 1).leading_zeros();
    let half = bits.div_ceil(2);
    let mask = (1u64 << half) - 1;
    let mut x = index as u64;
    loop {
        let (mut left, mut right) = (x >> half, x & mask);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(key ^ (round << 56), right) & mask));
        }
        x = left << half | right;
        if (x as usize) < len {
            return x as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_epoch_is_a_permutation_and_epochs_differ() {
        let mut cursor = Cursor::new(1);
        let first = cursor.next(100usize, 100);
        assert_eq!((cursor.epoch, cursor.position), (1, 0));
        let second = cursor.next(100usize, 100);
        assert_ne!(first, second);
        for rows in [&first, &second] {
            let mut sorted = rows.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
            assert_ne!(&sorted, rows);
        }
    }

    #[test]
    fn a_shuffle_is_close_to_uniform() {
        // Chi-squared over (position -> row) for 8 rows and 4000 epochs: 49 degrees of freedom, far tail at 110.
        let mut counts = [[0f64; 8]; 8];
        let mut cursor = Cursor::new(7);
        for _ in 0..4000 {
            for (position, row) in cursor.next(8usize, 8).into_iter().enumerate() {
                counts[position][row] += 1.0;
            }
        }
        let chi: f64 = counts.iter().flatten().map(|c| (c - 500.0).powi(2) / 500.0).sum();
        assert!(chi < 110.0, "{chi}");
    }

    #[test]
    fn weights_are_honoured() {
        struct Mix;
        impl EpochRows for Mix {
            fn epoch_parts(&self) -> Vec<EpochPart> {
                vec![
                    EpochPart { start: 0, len: 10, weight: 2.0 },
                    EpochPart { start: 10, len: 10, weight: 0.5 },
                    EpochPart { start: 20, len: 10, weight: 0.0 },
                ]
            }
        }
        let mut cursor = Cursor::new(3);
        assert_eq!(Cursor::epoch_len(&Mix), 25);
        let mut counts = [0; 30];
        for _ in 0..2 {
            for row in cursor.next(&Mix, 25) {
                counts[row] += 1;
            }
        }
        // Two epochs: each row of the first part four times, of the second once, of the third never.
        assert_eq!(counts[..10], [4; 10]);
        assert_eq!(counts[10..20], [1; 10]);
        assert_eq!(counts[20..], [0; 10]);
    }

    #[test]
    fn file_order_without_shuffling() {
        let mut cursor = Cursor { shuffle: false, ..Cursor::new(3) };
        assert_eq!(cursor.next(3usize, 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn places_that_come_first_move_no_other() {
        let plain = Cursor::new(3);
        let order = plain.clone().next(10usize, 10);
        let mut cursor = Cursor { first: vec![7, 0, 4], ..plain.clone() };
        assert_eq!(cursor.beginning(10usize, 99), order);
        let rows = cursor.next(10usize, 10);
        assert_eq!(rows[..3], [order[7], order[0], order[4]]);
        assert_eq!(rows[3..], [1, 2, 3, 5, 6, 8, 9].map(|place: usize| order[place]));
        // The second epoch is as ever.
        let mut second = Cursor { epoch: 1, ..plain };
        assert_eq!(cursor.next(10usize, 10), second.next(10usize, 10));
        // A checkpoint of a run without them reads and writes as it did.
        assert_eq!(serde_json::to_string(&Cursor::new(1)).unwrap().matches("first").count(), 0);
    }

    #[test]
    fn no_rows_no_loop() {
        assert!(Cursor::new(0).next(0usize, 5).is_empty());
    }

    proptest! {
        #[test]
        fn permute_is_a_bijection(len in 1usize..300, key: u64) {
            let mut seen = vec![false; len];
            for i in 0..len {
                let j = permute(i, len, key);
                prop_assert!(!seen[j]);
                seen[j] = true;
            }
        }

        #[test]
        fn resume_is_exact(len in 1usize..50, seed: u64, before in 0usize..120, after in 1usize..60, first in 0usize..9) {
            let first = (0..first.min(len)).map(|k| (k * 7) % len).collect::<std::collections::BTreeSet<_>>();
            let mut straight = Cursor { first: first.into_iter().rev().collect(), ..Cursor::new(seed) };
            straight.next(len, before);
            let saved = serde_json::to_string(&straight).unwrap();
            let mut resumed: Cursor = serde_json::from_str(&saved).unwrap();
            prop_assert_eq!(straight.next(len, after), resumed.next(len, after));
        }

        #[test]
        fn batch_size_does_not_change_the_order(len in 1usize..50, seed: u64, sizes in prop::collection::vec(1usize..20, 1..8)) {
            let mut whole = Cursor::new(seed);
            let mut pieces = Cursor::new(seed);
            let expected = whole.next(len, sizes.iter().sum());
            let got: Vec<usize> = sizes.iter().flat_map(|n| pieces.next(len, *n)).collect();
            prop_assert_eq!(expected, got);
        }
    }
}
