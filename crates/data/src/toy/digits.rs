//! The UCI handwritten digits; see README.md beside this file for their origin and licence.

use rand::Rng;

/// Digits in all.
pub const COUNT: usize = 1797;
/// The first of these are for training, the rest for tests.
pub const TRAIN: usize = 1300;
/// Pixels of a side.
pub(crate) const SIDE: usize = 8;

static BYTES: &[u8; COUNT * (SIDE * SIDE + 1)] = include_bytes!("digits.bin");

/// Pixels of digit `i < COUNT`, row-major, 0 (paper) to 16 (ink).
pub fn pixels(i: usize) -> &'static [u8] {
    &BYTES[i * SIDE * SIDE..(i + 1) * SIDE * SIDE]
}

/// Which digit `i < COUNT` is, 0 to 9.
pub fn label(i: usize) -> u8 {
    BYTES[COUNT * SIDE * SIDE + i]
}

/// Which digits a data set may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The first 1,300.
    Train,
    /// The last 497.
    Test,
}

impl Split {
    /// Its name in specs and ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// A digit of this split.
    pub fn pick(self, rng: &mut impl Rng) -> usize {
        match self {
            Self::Train => rng.random_range(0..TRAIN),
            Self::Test => rng.random_range(TRAIN..COUNT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_the_uci_test_set() {
        // Facts of the data set: the first ten labels, the first row of the first digit, the counts of each digit.
        assert_eq!((0..10).map(label).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(pixels(0)[..8], [0, 0, 5, 13, 9, 1, 0, 0]);
        let mut counts = [0; 10];
        (0..COUNT).for_each(|i| counts[label(i) as usize] += 1);
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert!((0..COUNT).all(|i| pixels(i).iter().all(|v| *v <= 16)));
    }
}
