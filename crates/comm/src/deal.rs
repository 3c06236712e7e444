//! Who does what: pieces of work dealt out to ranks, the same on every rank.

/// The rank of each piece of work. The largest piece first, each to the rank that has least; equal ones in their order.
/// The largest sum is at most 4/3 of the best that is possible (Graham 1969).
///
/// ```
/// assert_eq!(comm::deal::by_cost(&[5, 9, 5, 4], 2), [1, 0, 1, 0]);
/// ```
pub fn by_cost(costs: &[usize], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(costs[i]));
    let (mut load, mut owner) = (vec![0usize; ranks.max(1)], vec![0; costs.len()]);
    for i in order {
        let least = (0..load.len()).min_by_key(|&rank| load[rank]).unwrap_or(0);
        owner[i] = least;
        load[least] += costs[i];
    }
    owner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_nearly_even() {
        // Lengths that grow as those of responses do, a few of them long.
        let costs: Vec<usize> = (0..128).map(|i| 200 + (i * 7919) % 997 + if i % 9 == 0 { 3000 } else { 0 }).collect();
        for ranks in 1..=8 {
            let owner = by_cost(&costs, ranks);
            let mut load = vec![0; ranks];
            owner.iter().zip(&costs).for_each(|(&rank, cost)| load[rank] += cost);
            let mean = costs.iter().sum::<usize>() as f64 / ranks as f64;
            assert!(*load.iter().max().unwrap() as f64 <= 1.01 * mean, "{ranks}: {load:?}");
        }
        assert_eq!(by_cost(&[], 3), Vec::<usize>::new());
        assert_eq!(by_cost(&[1, 1, 1], 3), [0, 1, 2]);
    }
}
