//! Every operation against plain sums, with lengths of all kinds.

use comm::Ranks;

fn value(rank: usize, i: usize) -> f32 {
    ((i as f32 * 0.37 + rank as f32) * 12.9898).sin()
}

/// Makes every call on this rank. Sums of f32 may be off by `tolerance` of those in the order of ranks.
pub(crate) fn all(ranks: &Ranks, tolerance: f32) {
    let (rank, size) = (ranks.rank(), ranks.size());
    let near = |got: &[f32], expected: &[f32], what: &str| {
        assert_eq!(got.len(), expected.len(), "{what}");
        got.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() <= tolerance, "{what}: {a} for {b}"));
    };
    for length in [0usize, 1, 5, 1000] {
        let own: Vec<f32> = (0..length * size).map(|i| value(rank, i)).collect();
        let expected: Vec<f32> =
            (0..length * size).map(|i| (1..size).fold(value(0, i), |sum, r| sum + value(r, i))).collect();
        let mut sum = own.clone();
        ranks.sum_f32("sum", &mut sum).unwrap();
        near(&sum, &expected, "sum");
        let bits: Vec<u32> = sum.iter().map(|value| value.to_bits()).collect();
        assert!(ranks.gather("bits", &bits).unwrap().iter().all(|other| *other == bits), "sums are equal on all ranks");
        let part = ranks.reduce_scatter("part", own).unwrap();
        near(&part, &expected[rank * length..(rank + 1) * length], "part");
        let bytes = ranks.concat("all", vec![rank as u8; length]).unwrap();
        assert_eq!(bytes.len(), length * size);
        assert!(bytes.iter().enumerate().all(|(i, b)| usize::from(*b) == i / length));
        let mut whole = [rank as i64, i64::MAX];
        ranks.sum_i64("whole", &mut whole).unwrap();
        assert_eq!(whole[0], (size * (size - 1) / 2) as i64);
        let mut halves = vec![0.5 + rank as f64; length];
        ranks.sum("halves", &mut halves).unwrap();
        assert!(halves.iter().all(|half| *half == (size * size) as f64 / 2.0));
    }
    for length in [1usize, 700] {
        let texts = ranks.gather("texts", &"x".repeat(rank * length)).unwrap();
        assert_eq!(texts, (0..size).map(|n| "x".repeat(n * length)).collect::<Vec<_>>());
        let made = ranks.from_first("made", || format!("by {rank}").repeat(length)).unwrap();
        assert_eq!(made, "by 0".repeat(length));
    }
    let at_last = ranks.gather_to("at the last", size - 1, vec![rank as u8; rank]).unwrap();
    assert_eq!(at_last, (rank + 1 == size).then(|| (0..size).map(|n| vec![n as u8; n]).collect()));
    ranks.barrier("here").unwrap();
    assert!(ranks.any("yes", rank + 1 == size).unwrap());
    assert!(!ranks.any("no", false).unwrap());
    let group = ranks.split("parity", rank % 2).unwrap();
    assert_eq!((group.rank(), group.size()), (rank / 2, (size + 1 - rank % 2) / 2));
    let mut members = [1.0, rank as f64];
    group.sum("of the group", &mut members).unwrap();
    assert_eq!(members[1], (0..size).filter(|r| r % 2 == rank % 2).sum::<usize>() as f64);
    assert_eq!(ranks.of_node("node").unwrap().size(), size);
    if size > 1 {
        let traffic = ranks.traffic();
        assert_eq!((traffic["sum"].calls, traffic["sum"].bytes), (4, 4 * 1006 * size as u64));
    }
}
