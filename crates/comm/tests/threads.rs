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

/// Groups that a rank is not in go on when it ends.
#[test]
fn a_rank_that_ends_ends_its_own_groups_alone() {
    for _ in 0..20 {
        let results = threads::run(4, |ranks: Ranks| {
            let group = ranks.split("parity", ranks.rank() % 2).unwrap();
            let rounds = if ranks.rank() % 2 == 1 { 1 } else { 200 };
            (0..rounds).try_for_each(|_| group.barrier("round"))
        });
        assert!(results.iter().all(Result::is_ok), "{results:?}");
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
