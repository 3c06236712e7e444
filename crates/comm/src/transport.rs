//! What carries data between ranks.

use std::fmt::Debug;
use std::sync::Arc;

/// Collective operations over a group of two ranks or more. All ranks call the same ones in the same order; slices have
/// the same length on all ranks unless an operation says otherwise. Sums are equal on all ranks, bit for bit.
///
/// An error is a text for a person: why the operation has no result.
pub trait Transport: Send + Sync + Debug {
    /// This rank, below [`size`](Self::size).
    fn rank(&self) -> usize;

    /// Ranks of the group.
    fn size(&self) -> usize;

    /// What every rank gave, in the order of ranks; lengths may differ.
    ///
    /// # Errors
    /// A rank that is gone.
    fn all_gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, String>;

    /// What every rank gave, in the order of ranks, at rank `root` alone.
    ///
    /// # Errors
    /// A rank that is gone.
    fn gather_to(&self, root: usize, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, String> {
        let all = self.all_gather(own)?;
        Ok((self.rank() == root).then_some(all))
    }

    /// What rank `root` gave; what others give is not read.
    ///
    /// # Errors
    /// A rank that is gone.
    fn broadcast(&self, root: usize, own: &[u8]) -> Result<Vec<u8>, String>;

    /// Sums over ranks, in place.
    ///
    /// # Errors
    /// A rank that is gone.
    fn sum_f64(&self, values: &mut [f64]) -> Result<(), String>;

    /// Sums over ranks, in place.
    ///
    /// # Errors
    /// A rank that is gone.
    fn sum_f32(&self, values: &mut [f32]) -> Result<(), String>;

    /// Sums over ranks, in place; wrapping.
    ///
    /// # Errors
    /// A rank that is gone.
    fn sum_i64(&self, values: &mut [i64]) -> Result<(), String>;

    /// This rank's part of the sums over ranks: `own` has `size` parts of equal length.
    ///
    /// # Errors
    /// A rank that is gone.
    fn reduce_scatter_f32(&self, own: &[f32]) -> Result<Vec<f32>, String>;

    /// The parts of all ranks, one after the other; all have the same length.
    ///
    /// # Errors
    /// A rank that is gone.
    fn concat(&self, own: &[u8]) -> Result<Vec<u8>, String>;

    /// A group of those ranks that give the same `color`, in the order of their ranks here; for a group of one, none.
    ///
    /// # Errors
    /// A rank that is gone.
    fn split(&self, color: usize) -> Result<Option<Arc<dyn Transport>>, String>;

    /// The number of this machine: ranks of one machine have the same.
    ///
    /// # Errors
    /// A rank that is gone.
    fn node(&self) -> Result<usize, String>;

    /// Ends all ranks of the run, at once, with this exit code.
    fn abort(&self, code: i32) -> !;
}
