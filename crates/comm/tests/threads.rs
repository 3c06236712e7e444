//! Every operation over 1 to 8 ranks against plain sums, with lengths of all kinds; ranks that end while others wait.

mod operations;

use comm::{Ranks, threads};

#[test]
fn operations_against_plain_sums() {
    for size in 1..=8 {
        threads::run(size, |ranks| operations::all(&ranks, 0.0));
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
