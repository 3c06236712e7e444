//! Ranks that are processes, over MPI: what host data goes through.
//!
//! Handles are never freed, and MPI is ended by [`Post::finalize`] alone: to end it by a drop, as `mpi::Universe` does,
//! would make a rank that fails wait for all others.

use std::mem::{ManuallyDrop, forget};
use std::sync::Arc;

use mpi::collective::SystemOperation;
use mpi::datatype::{Equivalence, PartitionMut};
use mpi::point_to_point::MatchedReceiveVec;
use mpi::request::StaticScope;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use mpi::{Count, Threading};

use crate::job::{Connected, Post, StartError};
use crate::launcher::Launched;
use crate::transport::Transport;

/// Values of one call. Counts are `i32` in MPI 3, and what is summed is copied first: sums of a large slice go in
/// pieces of this many.
const PIECE: usize = 1 << 24;
/// Bytes of one call that only carries data.
const BYTES: usize = 1 << 30;

/// Starts MPI. `piece` bounds what one call carries, where it is smaller than usual.
pub(crate) fn connect(launched: Launched, piece: Option<usize>) -> Result<Connected, StartError> {
    let (universe, threading) = mpi::initialize_with_threading(Threading::Multiple).ok_or(StartError::Twice)?;
    forget(universe);
    let world = SimpleCommunicator::world();
    let found = world.size() as usize;
    if found == 1 {
        finalize();
        return Err(StartError::Apart { launched: launched.ranks, found });
    }
    if threading != Threading::Multiple {
        finalize();
        return Err(StartError::Threads(format!("{threading:?}")));
    }
    let node = mpi::environment::processor_name().unwrap_or_else(|_| "a node without a name".into());
    let pieces = piece.map_or([PIECE, BYTES], |piece| [piece, piece]);
    let post = Processes::new(world.duplicate(), pieces);
    Ok((Arc::new(Processes::new(world, pieces)), Box::new(post), node))
}

/// The first line of what this MPI says of itself; it need not have been started for that.
pub(crate) fn library() -> Option<String> {
    let text = mpi::environment::library_version().ok()?;
    text.split([',', '\n']).next().map(|line| line.trim_matches('\0').trim().to_string())
}

fn finalize() {
    // SAFETY: MPI was started in this process and is ended once, here.
    unsafe { mpi::ffi::MPI_Finalize() };
}

/// A group of processes.
struct Processes {
    comm: ManuallyDrop<SimpleCommunicator>,
    rank: usize,
    size: usize,
    /// Values of a sum, and bytes of anything else, in one call.
    pieces: [usize; 2],
}

// SAFETY: `MPI_THREAD_MULTIPLE` was asked for and given: handles may be used from any thread, several at a time.
unsafe impl Send for Processes {}
// SAFETY: as above.
unsafe impl Sync for Processes {}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {} processes", self.rank, self.size)
    }
}

impl Processes {
    fn new(comm: SimpleCommunicator, pieces: [usize; 2]) -> Self {
        let (rank, size) = (comm.rank() as usize, comm.size() as usize);
        Self { comm: ManuallyDrop::new(comm), rank, size, pieces }
    }

    fn sum<T: Equivalence + Copy>(&self, values: &mut [T]) {
        for piece in values.chunks_mut(self.pieces[0]) {
            let own = piece.to_vec();
            self.comm.all_reduce_into(&own[..], piece, SystemOperation::sum());
        }
    }

    fn send_all(&self, root: usize, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(self.pieces[1]) {
            self.comm.process_at_rank(root as i32).broadcast_into(piece);
        }
    }

    fn lengths(&self, own: usize) -> Vec<usize> {
        let mut lengths = vec![0u64; self.size];
        self.comm.all_gather_into(&(own as u64), &mut lengths[..]);
        lengths.into_iter().map(|length| length as usize).collect()
    }
}

/// Lengths as MPI counts, and where each part begins.
fn places(lengths: &[usize]) -> (Vec<Count>, Vec<Count>) {
    let begin = lengths.iter().scan(0, |at, length| {
        let begin = *at;
        *at += *length as Count;
        Some(begin)
    });
    (lengths.iter().map(|length| *length as Count).collect(), begin.collect())
}

impl Transport for Processes {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let lengths = self.lengths(own.len());
        let total: usize = lengths.iter().sum();
        if total > self.pieces[1] {
            let part = |(rank, length): (usize, &usize)| {
                let mut part = if rank == self.rank { own.to_vec() } else { vec![0; *length] };
                self.send_all(rank, &mut part);
                part
            };
            return Ok(lengths.iter().enumerate().map(part).collect());
        }
        let mut all = vec![0u8; total];
        if total > 0 {
            let (counts, begin) = places(&lengths);
            self.comm.all_gather_varcount_into(own, &mut PartitionMut::new(&mut all[..], counts, begin));
        }
        let mut rest = &all[..];
        Ok(lengths.iter().map(|length| rest.split_off(..*length).unwrap_or_default().to_vec()).collect())
    }

    fn gather_to(&self, root: usize, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, String> {
        let lengths = self.lengths(own.len());
        let at_root = self.comm.process_at_rank(root as i32);
        if self.rank != root {
            own.chunks(self.pieces[1]).for_each(|piece| at_root.send(piece));
            return Ok(None);
        }
        let part = |(rank, length): (usize, &usize)| {
            if rank == root {
                return own.to_vec();
            }
            let mut part = vec![0; *length];
            let from = self.comm.process_at_rank(rank as i32);
            part.chunks_mut(self.pieces[1]).for_each(|piece| _ = from.receive_into(piece));
            part
        };
        Ok(Some(lengths.iter().enumerate().map(part).collect()))
    }

    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, String> {
        let mut length = own.len() as u64;
        self.comm.process_at_rank(root as i32).broadcast_into(&mut length);
        let mut bytes = if root == self.rank { own.to_vec() } else { vec![0; length as usize] };
        self.send_all(root, &mut bytes);
        Ok(bytes)
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<(), String> {
        self.sum(values);
        Ok(())
    }

    fn sum_f32(&self, values: &mut [f32]) -> Result<(), String> {
        self.sum(values);
        Ok(())
    }

    fn sum_i64(&self, values: &mut [i64]) -> Result<(), String> {
        self.sum(values);
        Ok(())
    }

    fn reduce_scatter_f32(&self, own: &[f32]) -> Result<Vec<f32>, String> {
        let (ranks, part) = (self.size, own.len() / self.size);
        let mut sums = vec![0f32; part];
        let step = (self.pieces[0] / ranks).max(1);
        for begin in (0..part).step_by(step) {
            let end = part.min(begin + step);
            let piece: Vec<f32> =
                (0..ranks).flat_map(|rank| &own[rank * part + begin..rank * part + end]).copied().collect();
            self.comm.reduce_scatter_block_into(&piece[..], &mut sums[begin..end], SystemOperation::sum());
        }
        Ok(sums)
    }

    fn concat(&self, own: &[u8]) -> Result<Vec<u8>, String> {
        let (ranks, part) = (self.size, own.len());
        let mut all = vec![0u8; ranks * part];
        let step = (self.pieces[1] / ranks).max(1);
        if part == 0 {
            return Ok(all); // which Open MPI takes for a mistake
        }
        if part <= step {
            self.comm.all_gather_into(own, &mut all[..]);
            return Ok(all);
        }
        for begin in (0..part).step_by(step) {
            let end = part.min(begin + step);
            let mut piece = vec![0u8; ranks * (end - begin)];
            self.comm.all_gather_into(&own[begin..end], &mut piece[..]);
            for (rank, of_rank) in piece.chunks(end - begin).enumerate() {
                all[rank * part + begin..rank * part + end].copy_from_slice(of_rank);
            }
        }
        Ok(all)
    }

    fn split(&self, color: usize) -> Result<Option<Arc<dyn Transport>>, String> {
        let color = i32::try_from(color).map_err(|_| format!("a group cannot have the number {color}"))?;
        let part = self.comm.split_by_color(Color::with_value(color)).map(|part| Self::new(part, self.pieces));
        Ok(part.filter(|part| part.size > 1).map(|part| Arc::new(part) as Arc<dyn Transport>))
    }

    fn node(&self) -> Result<usize, String> {
        let node = ManuallyDrop::new(self.comm.split_shared(self.comm.rank()));
        let mut first = 0i32;
        node.all_reduce_into(&self.comm.rank(), &mut first, SystemOperation::min());
        Ok(first as usize)
    }

    fn abort(&self, code: i32) -> ! {
        if mpi::environment::is_finalized() {
            std::process::exit(code);
        }
        SimpleCommunicator::world().abort(code)
    }
}

impl Post for Processes {
    fn send(&self, to: usize, letter: &[u8]) {
        // Kept for ever, as is the request: nothing waits until it has arrived.
        let letter: &'static [u8] = Vec::leak(letter.to_vec());
        forget(self.comm.process_at_rank(to as i32).immediate_send(StaticScope, letter));
    }

    fn receive(&self) -> Option<(usize, Vec<u8>)> {
        let found = self.comm.any_process().immediate_matched_probe()?;
        let (letter, status) = found.matched_receive_vec();
        Some((status.source_rank() as usize, letter))
    }

    fn finalize(&self) {
        finalize();
    }
}
