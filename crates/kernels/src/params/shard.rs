//! Which part of a parameter a rank holds.

use std::ops::Range;

/// The part of a parameter that one rank of a tensor group holds: a range of one axis. Files, optimizer state and
/// random numbers know the whole parameter, in whose elements [`elements`](Self::elements) says where this part lies.
///
/// ```
/// use kernels::Shard;
///
/// // The second of two halves of a matrix's columns.
/// let shard = Shard { axis: 1, range: 2..4, ..Shard::whole(&[3, 4]) };
/// assert_eq!(shard.part_shape(), [3, 2]);
/// assert_eq!(shard.elements().collect::<Vec<_>>(), [2..4, 6..8, 10..12]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Shape of the whole parameter in the file. It differs from the tensor's only for the patch embedding, which is
    /// `[hidden, channels, frames, patch, patch]` there and a matrix here.
    pub shape: Vec<usize>,
    /// The axis along which ranks share the parameter out.
    pub axis: usize,
    /// What of that axis is held here.
    pub range: Range<usize>,
    /// Whether this is the first rank of the tensor group that holds this part: others may hold copies of it. Over the
    /// group, the parts that are first have every element exactly once, so they are what is written, and what counts in
    /// a sum over all parameters.
    pub first: bool,
}

impl Shard {
    /// All of a parameter, by the only rank that has it.
    pub fn whole(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), axis: 0, range: 0..shape.first().copied().unwrap_or(1), first: true }
    }

    /// Whether it is all of the parameter.
    pub fn is_whole(&self) -> bool {
        self.range == (0..self.extent())
    }

    /// Shape of this part.
    pub fn part_shape(&self) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(extent) = shape.get_mut(self.axis) {
            *extent = self.range.len();
        }
        shape
    }

    /// Elements of this part.
    pub fn len(&self) -> usize {
        self.part_shape().iter().product()
    }

    /// Whether this part has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the elements of this part lie in the whole parameter, row-major: ranges that do not touch, ascending, and
    /// in the order in which the part has them.
    pub fn elements(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let inner: usize = self.shape.iter().skip(self.axis + 1).product();
        let outer: usize = self.shape.iter().take(self.axis).product();
        let (step, range) = (self.extent() * inner, self.range.start * inner..self.range.end * inner);
        // What touches is one range.
        let (outer, range) = if self.is_whole() { (1, 0..outer * step) } else { (outer, range) };
        (0..outer).map(move |i| i * step + range.start..i * step + range.end)
    }

    /// This part of the whole parameter's values, of `width` bytes each; `None` where those are fewer.
    pub fn cut(&self, whole: &[u8], width: usize) -> Option<Vec<u8>> {
        let mut part = Vec::with_capacity(self.len() * width);
        for range in self.elements() {
            part.extend_from_slice(whole.get(range.start * width..range.end * width)?);
        }
        Some(part)
    }

    /// Puts this part's values to their places among the whole parameter's, of `width` bytes each; `None` where either
    /// are fewer.
    pub fn put(&self, part: &[u8], whole: &mut [u8], width: usize) -> Option<()> {
        let mut at = 0;
        for range in self.elements() {
            let next = at + range.len() * width;
            whole.get_mut(range.start * width..range.end * width)?.copy_from_slice(part.get(at..next)?);
            at = next;
        }
        Some(())
    }

    fn extent(&self) -> usize {
        self.shape.get(self.axis).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_and_put_together_again() {
        let whole: Vec<u8> = (0..48).collect(); // [2, 3, 4] of two bytes each
        for (axis, extent) in [(0, 2), (1, 3), (2, 4)] {
            let mut again = vec![255; 48];
            for range in [0..1, 1..extent] {
                let shard = Shard { axis, range, ..Shard::whole(&[2, 3, 4]) };
                let part = shard.cut(&whole, 2).unwrap();
                assert_eq!(part.len(), 2 * shard.len());
                assert!(!shard.is_whole());
                shard.put(&part, &mut again, 2).unwrap();
                assert_eq!(shard.put(&part[1..], &mut again.clone(), 2), None);
                assert_eq!(shard.cut(&whole[..40], 2).is_none(), shard.elements().any(|r| r.end > 20));
            }
            assert_eq!(again, whole);
        }
        let all = Shard::whole(&[2, 3, 4]);
        assert!(all.is_whole() && all.elements().eq(std::iter::once(0..24)) && all.part_shape() == [2, 3, 4]);
    }
}
