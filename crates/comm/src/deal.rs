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

/// The same for pieces that lie somewhere already: few of them move, the loads become even to about a hundredth.
///
/// ```
/// assert_eq!(comm::deal::rebalanced(&[5, 5, 5, 5], &[0, 0, 0, 1], 2), [1, 0, 0, 1]);
/// ```
pub fn rebalanced(costs: &[usize], holders: &[usize], ranks: usize) -> Vec<usize> {
    let ranks = ranks.max(1);
    let mut owner: Vec<usize> = holders.iter().map(|&holder| holder.min(ranks - 1)).collect();
    let mut load = vec![0usize; ranks];
    owner.iter().zip(costs).for_each(|(&rank, &cost)| load[rank] += cost);
    let tolerance = costs.iter().sum::<usize>() / ranks / 100;
    // Each move makes the sum of squares smaller, so that there is an end; the bound is for the reader.
    for _ in 0..costs.len() * ranks {
        let (Some(most), Some(least)) =
            ((0..ranks).max_by_key(|&r| (load[r], ranks - r)), (0..ranks).min_by_key(|&r| (load[r], r)))
        else {
            break;
        };
        let gap = load[most] - load[least];
        // The piece that halves the gap, as nearly as there is one.
        let movable = |i: &usize| owner[*i] == most && costs[*i] > 0 && costs[*i] < gap;
        let best = (0..costs.len()).filter(movable).min_by_key(|&i| costs[i].abs_diff(gap / 2));
        match best {
            Some(i) if gap > tolerance => {
                load[most] -= costs[i];
                load[least] += costs[i];
                owner[i] = least;
            }
            _ => break,
        }
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
        for ranks in 1..=8 {
            let holders: Vec<usize> = (0..128).map(|i| i % ranks).collect();
            let owner = rebalanced(&costs, &holders, ranks);
            let mut load = vec![0; ranks];
            owner.iter().zip(&costs).for_each(|(&rank, cost)| load[rank] += cost);
            let mean = costs.iter().sum::<usize>() as f64 / ranks as f64;
            assert!(*load.iter().max().unwrap() as f64 <= 1.05 * mean, "{ranks}: {load:?}");
            let moved = owner.iter().zip(&holders).filter(|(a, b)| a != b).count();
            assert!(moved <= 24, "{ranks}: {moved}");
        }
        assert_eq!(rebalanced(&[3], &[5], 2), [1]);
        assert_eq!(by_cost(&[], 3), Vec::<usize>::new());
        assert_eq!(by_cost(&[1, 1, 1], 3), [0, 1, 2]);
    }
}
