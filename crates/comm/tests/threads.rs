//! Every operation over 1 to 8 ranks against plain sums, with lengths of all kinds; ranks that end while others wait.

use comm::{Ranks, threads};

fn value(rank: usize, i: usize) -> f32 {
    ((i as f32 * 0.37 + rank as f32) * 12.9898).sin()
}

#[test]
fn operations_against_plain_sums() {
    for size in 1..=8 {
        let parts = threads::run(size, |ranks| {
            for length in [0usize, 1, 5, 1000] {
                let rank = ranks.rank();
                let own: Vec<f32> = (0..length * size).map(|i| value(rank, i)).collect();
                let expected: Vec<f32> =
                    (0..length * size).map(|i| (1..size).fold(value(0, i), |sum, r| sum + value(r, i))).collect();
                let mut sum = own.clone();
                ranks.sum_f32("sum", &mut sum).unwrap();
                assert_eq!(sum, expected);
                let part = ranks.reduce_scatter("part", own).unwrap();
                assert_eq!(part, expected[rank * length..(rank + 1) * length]);
                let bytes = ranks.concat("all", vec![rank as u8; length]).unwrap();
                assert!(bytes.iter().enumerate().all(|(i, b)| usize::from(*b) == i / length));
                let mut whole = [rank as i64, i64::MAX];
                ranks.sum_i64("whole", &mut whole).unwrap();
                assert_eq!(whole[0], (size * (size - 1) / 2) as i64);
            }
            let texts = ranks.gather("texts", &"x".repeat(ranks.rank())).unwrap();
            assert_eq!(texts, (0..size).map(|n| "x".repeat(n)).collect::<Vec<_>>());
            let at_last = ranks.gather_to("at the last", size - 1, vec![ranks.rank() as u8]).unwrap();
            let expected = (ranks.rank() + 1 == size).then(|| (0..size).map(|n| vec![n as u8]).collect::<Vec<_>>());
            assert_eq!(at_last, expected);
            let made = ranks.from_first("made", || format!("by {}", ranks.rank())).unwrap();
            assert_eq!(made, "by 0");
            assert!(ranks.any("yes", ranks.rank() + 1 == size).unwrap());
            assert!(!ranks.any("no", false).unwrap());
            let group = ranks.split("parity", ranks.rank() % 2).unwrap();
            assert_eq!((group.rank(), group.size()), (ranks.rank() / 2, (size + 1 - ranks.rank() % 2) / 2));
            let mut members = [1.0, ranks.rank() as f64];
            group.sum("of the group", &mut members).unwrap();
            assert_eq!(ranks.of_node("node").unwrap().size(), size);
            (members, ranks.traffic())
        });
        for (rank, (members, traffic)) in parts.iter().enumerate() {
            let own = (0..size).filter(|r| r % 2 == rank % 2);
            assert_eq!(members[1], own.sum::<usize>() as f64);
            if size > 1 {
                assert_eq!((traffic["sum"].calls, traffic["sum"].bytes), (4, 4 * 1006 * size as u64));
            }
        }
    }
}

#[test]
fn a_rank_that_ends_leaves_nobody_waiting() {
    let results = threads::run(3, |ranks: Ranks| {
        if ranks.rank() == 1 {
            return None;
        }
        Some(ranks.barrier("never").unwrap_err())
    });
    for (rank, error) in results.iter().enumerate().filter(|(rank, _)| *rank != 1) {
        let error = error.as_ref().unwrap();
        assert_eq!((error.rank, error.name), (rank, "never"));
        assert!(error.to_string().contains("rank 1 has ended"), "{error}");
    }
}

#[test]
fn calls_that_differ_are_told_apart() {
    let errors = threads::run(2, |ranks: Ranks| {
        let name = if ranks.rank() == 0 { "lengths" } else { "rewards" };
        ranks.sum(name, &mut [0.0]).unwrap_err().to_string()
    });
    assert!(errors[0].contains("`lengths`") && errors[0].contains("rank 1 calls `rewards`"), "{}", errors[0]);
}
