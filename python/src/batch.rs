//! Many gradings at once, for a while: whoever asked looks up between two calls whether it should stop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// So many gradings are worth a thread, which takes some 20 us to start.
const WORTH_A_THREAD: usize = 32;

/// Computes `one(0)`, `one(1)`, ... below `count`, on up to `threads` threads, this one among them, and returns what
/// was computed within `limit`, in order: at least one, and never one without those before it.
///
/// The threads are started here and end here. Kept ones would not be there after a fork, and Python's processes fork.
/// What panics is an error with the panic's words in its place.
pub(crate) fn some_of<T: Send>(
    count: usize,
    threads: usize,
    limit: Duration,
    one: impl Fn(usize) -> T + Sync,
) -> Vec<Result<T, String>> {
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    let work = |must_begin: bool| {
        let mut done = Vec::new();
        while (must_begin && done.is_empty()) || begun.elapsed() < limit {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            done.push((at, catch_unwind(AssertUnwindSafe(|| one(at))).map_err(|panic| words(&*panic))));
        }
        done
    };
    let helpers = threads.min(count.div_ceil(WORTH_A_THREAD)).saturating_sub(1);
    let mut done = std::thread::scope(|scope| {
        // Where the system gives no more threads, those that there are do it.
        let start = |_| Builder::new().name("grade".into()).spawn_scoped(scope, || work(false)).ok();
        let started: Vec<ScopedJoinHandle<_>> = (0..helpers).map_while(start).collect();
        let mut done = work(true);
        // `work` does not panic: what it calls may, and that is caught.
        done.extend(started.into_iter().filter_map(|helper| helper.join().ok()).flatten());
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason was given".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn all_are_there_in_order_whatever_the_threads() {
        for (count, threads) in [(0, 4), (1, 4), (31, 4), (1000, 1), (1000, 7), (1000, 0)] {
            let squares: Vec<usize> =
                some_of(count, threads, LONG, |i| i * i).into_iter().map(Result::unwrap).collect();
            assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>(), "{count} on {threads}");
        }
    }

    #[test]
    fn time_ends_a_call_and_one_is_always_done() {
        let slow = |i: usize| {
            std::thread::sleep(Duration::from_millis(5));
            i
        };
        assert_eq!(some_of(5000, 1, Duration::ZERO, slow), [Ok(0)]);
        let some = some_of(5000, 4, Duration::from_millis(50), slow);
        assert!((1..1000).contains(&some.len()), "{}", some.len());
        assert!(some.iter().enumerate().all(|(i, done)| *done == Ok(i)));
    }

    #[test]
    fn a_panic_is_an_error_of_its_own_item() {
        let done = some_of(100, 2, LONG, |i| match i {
            7 => panic!("seven"),
            8 => panic!("{i}"),
            _ => i,
        });
        assert_eq!((&done[7], &done[8]), (&Err("seven".to_owned()), &Err("8".to_owned())));
        assert_eq!(done.iter().filter(|one| one.is_ok()).count(), 98);
    }
}
