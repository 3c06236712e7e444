//! Reading and decoding ahead of the trainer: several threads, a bounded number of samples in memory, results in order.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Result as ThreadResult};

use crate::dataset::Dataset;
use crate::error::BadRow;
use crate::sample::Sample;

/// An iterator over `(row index, work(sample))` in the order of the indices, worked on ahead of time.
///
/// At most `ahead` results exist or are being made at any moment, whatever their size. Dropping it stops the threads.
pub struct Prefetcher<T> {
    shared: Arc<SharedQueue<T>>,
    workers: Vec<JoinHandle<()>>,
    /// Makes the next result here, where the system gives no thread.
    here: PrefetchWork<T>,
}

type PrefetchWork<T> = Box<dyn Fn(&SharedQueue<T>) + Send + Sync>;

struct SharedQueue<T> {
    state: Mutex<QueueState<T>>,
    changed: Condvar,
}

struct QueueState<T> {
    indices: Box<dyn Iterator<Item = usize> + Send>,
    /// Indices handed to workers.
    started: usize,
    /// Results handed out.
    taken: usize,
    ended: bool,
    stopped: bool,
    done: HashMap<usize, (usize, ThreadResult<T>)>,
}

impl<T> SharedQueue<T> {
    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        // Nothing can panic while the lock is held except the caller's iterator, after which nothing more is started.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, QueueState<T>>) -> MutexGuard<'a, QueueState<T>> {
        self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Prefetcher<T> {
    /// Starts `workers` threads that read the rows `indices` of `dataset` and apply `work`, at most `ahead` rows in
    /// advance (both at least one).
    pub fn new(
        dataset: Arc<Dataset>,
        indices: impl Iterator<Item = usize> + Send + 'static,
        workers: usize,
        ahead: usize,
        work: impl Fn(Result<Sample, BadRow>) -> T + Send + Sync + 'static,
    ) -> Self {
        let ahead = ahead.max(1);
        let shared = Arc::new(SharedQueue {
            state: Mutex::new(QueueState {
                indices: Box::new(indices),
                started: 0,
                taken: 0,
                ended: false,
                stopped: false,
                done: HashMap::new(),
            }),
            changed: Condvar::new(),
        });
        let work = Arc::new(work);
        // As many threads as the system gives: with none, rows are read when they are asked for.
        let workers = (0..workers.clamp(1, ahead)).map_while(|_| {
            let (shared, work, dataset) = (shared.clone(), work.clone(), dataset.clone());
            let job = move || while step(&shared, ahead, |index| work(dataset.get(index))) {};
            std::thread::Builder::new().spawn(job).ok()
        });
        let workers = workers.collect();
        let here = move |shared: &SharedQueue<T>| {
            step(shared, 1, |index| work(dataset.get(index)));
        };
        Self { workers, shared, here: Box::new(here) }
    }
}

/// Makes the next result, when it may be made; false when there is none left to make.
fn step<T>(shared: &SharedQueue<T>, ahead: usize, work: impl Fn(usize) -> T) -> bool {
    let mut state = shared.lock();
    while !state.stopped && !state.ended && state.started >= state.taken + ahead {
        state = shared.wait(state);
    }
    if state.stopped || state.ended {
        return false;
    }
    let Some(index) = state.indices.next() else {
        state.ended = true;
        shared.changed.notify_all();
        return false;
    };
    let order = state.started;
    state.started += 1;
    drop(state);
    // A panic is carried to the caller's thread, which would otherwise wait for ever.
    let result = catch_unwind(AssertUnwindSafe(|| work(index)));
    shared.lock().done.insert(order, (index, result));
    shared.changed.notify_all();
    true
}

impl<T> Iterator for Prefetcher<T> {
    type Item = (usize, T);

    fn next(&mut self) -> Option<Self::Item> {
        let mut state = self.shared.lock();
        loop {
            let order = state.taken;
            if let Some((index, result)) = state.done.remove(&order) {
                state.taken += 1;
                drop(state);
                self.shared.changed.notify_all();
                return match result {
                    Ok(value) => Some((index, value)),
                    Err(panic) => resume_unwind(panic),
                };
            }
            if state.ended && state.taken == state.started {
                return None;
            }
            if self.workers.is_empty() {
                drop(state);
                (self.here)(&self.shared);
                state = self.shared.lock();
            } else {
                state = self.shared.wait(state);
            }
        }
    }
}

impl<T> Drop for Prefetcher<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic has been or will never be seen through `next`; a second one here would abort.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Keys;

    fn toy() -> Arc<Dataset> {
        Arc::new(Dataset::open(&["toy:sum?size=50".into()], &Keys::default(), None).unwrap())
    }

    #[test]
    fn order_is_kept_and_memory_bounded() {
        let alive = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        struct HeldItem(Arc<AtomicUsize>);
        impl Drop for HeldItem {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (a, m) = (alive.clone(), most.clone());
        let rows = (0..50).map(|i| i * 7 % 50).collect::<Vec<_>>();
        let results = Prefetcher::new(toy(), rows.clone().into_iter(), 3, 5, move |sample| {
            m.fetch_max(a.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            (sample.unwrap().index, HeldItem(a.clone()))
        });
        let seen: Vec<usize> = results
            .map(|(index, (sample, _held))| {
                assert_eq!(index, sample);
                index
            })
            .collect();
        assert_eq!(seen, rows);
        // Five ahead, and the one in the caller's hands.
        assert!(most.load(Ordering::SeqCst) <= 6);
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn dropping_early_stops_the_threads() {
        let mut endless = Prefetcher::new(toy(), (0..50).cycle(), 2, 4, |s| s.map(|s| s.index));
        assert_eq!(endless.next(), Some((0, Ok(0))));
        drop(endless);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let mut rows = Prefetcher::new(toy(), 0..3, 1, 1, |_| -> usize { panic!("worker") });
        assert!(catch_unwind(AssertUnwindSafe(|| rows.next())).is_err());
    }
}
