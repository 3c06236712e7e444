//! Ranks that are threads of one process, for tests: sums are taken in the order of ranks, so that they repeat.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::ranks::Ranks;
use crate::transport::Transport;

/// Runs `body` on `size` ranks, each a thread; their results in the order of ranks. Every call is compared over the
/// ranks.
///
/// # Panics
/// As the first rank of which `body` panics; the others' calls fail then.
pub fn run<T: Send>(size: usize, body: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    run_on(size, size, body)
}

/// The same as if a machine had `of_node` ranks, and the last one what is left.
///
/// # Panics
/// As [`run`].
pub fn run_on<T: Send>(of_node: usize, size: usize, body: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let meeting = Arc::new(Meeting::new(size));
    let results: Vec<std::thread::Result<T>> = std::thread::scope(|scope| {
        let rank = |rank: usize| {
            let (meeting, body) = (meeting.clone(), &body);
            scope.spawn(move || {
                let ranks =
                    Ranks::new(Arc::new(Thread { meeting: meeting.clone(), rank, node: rank / of_node.max(1) }), true);
                // A rank that has ended, by a panic or by an error, answers no call: others may not wait for it.
                let result = catch_unwind(AssertUnwindSafe(|| body(ranks)));
                meeting.leave(rank);
                result
            })
        };
        let threads: Vec<_> = (0..size).map(rank).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(Err)).collect()
    });
    results.into_iter().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic))).collect()
}

/// Where the ranks of a group meet for each call.
#[derive(Debug)]
struct Meeting {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What each rank has given to the call at hand.
    given: Vec<Option<Vec<u8>>>,
    /// What all had given, for those who have not taken it yet.
    taken: Option<(Arc<Vec<Vec<u8>>>, usize)>,
    gone: Option<usize>,
    /// Groups that were split off, by their members.
    parts: HashMap<(u64, Vec<usize>), Arc<Meeting>>,
    splits: Vec<u64>,
}

impl Meeting {
    fn new(size: usize) -> Self {
        let state = State { given: vec![None; size], splits: vec![0; size], ..State::default() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, rank: usize) {
        let mut state = self.lock();
        state.gone.get_or_insert(rank);
        for ((_, members), part) in &state.parts {
            // By their numbers in the part; other parts go on without this rank.
            if let Some(place) = members.iter().position(|member| *member == rank) {
                part.leave(place);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    /// What all ranks give to a call.
    fn exchange(&self, rank: usize, own: Vec<u8>) -> Result<Arc<Vec<Vec<u8>>>, String> {
        let wait = |guard| self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        let gone = |rank: usize| format!("rank {rank} has ended");
        let mut state = self.lock();
        // The last call is over when all have taken what it gave.
        while state.taken.is_some() {
            if let Some(rank) = state.gone {
                return Err(gone(rank));
            }
            state = wait(state);
        }
        state.given[rank] = Some(own);
        let size = state.given.len();
        if state.given.iter().all(Option::is_some) {
            let all = state.given.iter_mut().map(|given| given.take().unwrap_or_default()).collect();
            state.taken = Some((Arc::new(all), size));
            self.changed.notify_all();
        }
        loop {
            if let Some((all, left)) = &mut state.taken {
                let all = all.clone();
                *left -= 1;
                if *left == 0 {
                    state.taken = None;
                    self.changed.notify_all();
                }
                return Ok(all);
            }
            if let Some(rank) = state.gone {
                return Err(gone(rank));
            }
            state = wait(state);
        }
    }

    /// The meeting of some of this one's ranks, the same for all of them.
    fn part(&self, rank: usize, members: &[usize]) -> Arc<Meeting> {
        let mut state = self.lock();
        state.splits[rank] += 1;
        let key = (state.splits[rank], members.to_vec());
        state.parts.entry(key).or_insert_with(|| Arc::new(Meeting::new(members.len()))).clone()
    }
}

/// A rank of a group of threads.
#[derive(Debug)]
struct Thread {
    meeting: Arc<Meeting>,
    rank: usize,
    node: usize,
}

/// A number that goes through bytes.
trait Number: Copy {
    const BYTES: usize;
    fn write(self, out: &mut Vec<u8>);
    fn read(bytes: &[u8]) -> Self;
    fn plus(self, other: Self) -> Self;
}

macro_rules! number {
    ($type:ty, $plus:expr) => {
        impl Number for $type {
            const BYTES: usize = size_of::<$type>();
            fn write(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn read(bytes: &[u8]) -> Self {
                let mut word = [0; size_of::<$type>()];
                word.copy_from_slice(bytes);
                Self::from_le_bytes(word)
            }
            fn plus(self, other: Self) -> Self {
                let plus: fn($type, $type) -> $type = $plus;
                plus(self, other)
            }
        }
    };
}
number!(f64, |a, b| a + b);
number!(f32, |a, b| a + b);
number!(i64, i64::wrapping_add);

impl Thread {
    fn sum<N: Number>(&self, values: &mut [N]) -> Result<(), String> {
        let mut own = Vec::with_capacity(values.len() * N::BYTES);
        values.iter().for_each(|value| value.write(&mut own));
        let all = self.meeting.exchange(self.rank, own)?;
        if let Some(rank) = all.iter().position(|given| given.len() != values.len() * N::BYTES) {
            return Err(format!("rank {rank} gives {} bytes to a sum of {} values", all[rank].len(), values.len()));
        }
        for (i, value) in values.iter_mut().enumerate() {
            let of = |given: &Vec<u8>| N::read(&given[i * N::BYTES..(i + 1) * N::BYTES]);
            let mut sum = of(&all[0]);
            for given in &all[1..] {
                sum = sum.plus(of(given));
            }
            *value = sum;
        }
        Ok(())
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.lock().given.len()
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        Ok(self.meeting.exchange(self.rank, own.to_vec())?.to_vec())
    }

    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, String> {
        let own = if self.rank == root { own.to_vec() } else { vec![] };
        Ok(self.meeting.exchange(self.rank, own)?[root].clone())
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), String> {
        self.sum(values)
    }

    fn sum_f32(&self, values: &mut [f32]) -> Result<(), String> {
        self.sum(values)
    }

    fn sum_i64(&self, values: &mut [i64]) -> Result<(), String> {
        self.sum(values)
    }

    fn reduce_scatter_f32(&self, own: &[f32]) -> Result<Vec<f32>, String> {
        let mut all = own.to_vec();
        self.sum(&mut all)?;
        let part = all.len() / self.size();
        Ok(all[self.rank * part..(self.rank + 1) * part].to_vec())
    }

    fn concat(&self, own: &[u8]) -> Result<Vec<u8>, String> {
        Ok(self.meeting.exchange(self.rank, own.to_vec())?.concat())
    }

    fn split(&self, color: usize) -> Result<Option<Arc<dyn Transport>>, String> {
        let colors = self.meeting.exchange(self.rank, color.to_le_bytes().to_vec())?;
        let same = |rank: &usize| colors[*rank] == colors[self.rank];
        let members: Vec<usize> = (0..colors.len()).filter(same).collect();
        let meeting = self.meeting.part(self.rank, &members);
        let rank = members.iter().position(|rank| *rank == self.rank).unwrap_or(0);
        Ok((members.len() > 1).then(|| Arc::new(Self { meeting, rank, node: self.node }) as Arc<dyn Transport>))
    }

    fn node(&self) -> Result<usize, String> {
        Ok(self.node)
    }

    /// Threads cannot be ended from outside: the rank ends by a panic, and the others' calls fail.
    fn abort(&self, code: i32) -> ! {
        panic!("rank {} ends the run with exit code {code}", self.rank)
    }
}
