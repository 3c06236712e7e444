//! Gradients of which each rank keeps its part alone (ZeRO-2, arXiv 1910.02054).
//!
//! A tensor of `len` elements is cut into as many parts of `ceil(len / ranks)` as there are ranks; the last ones may be
//! shorter or empty. In ZeRO-1 each rank holds all of its gradients until the step. In ZeRO-2 the gradients of a layer
//! are summed over ranks as soon as its backward is done, and what is not this rank's is dropped: besides its part a
//! rank holds the gradients of one layer.
//!
//! For that all ranks must call the same sums in the same order, whatever each of them computes. So a backward pass is
//! one *round* over all tensors, in the order in which a backward completes them; what a pass does not touch (the tower
//! where there are no pictures) is summed as zeros. A rank that has fewer passes than another one makes empty rounds.
//!
//! The sums of a layer are *begun* when its backward is done and waited for when that of the next one is, so that they
//! are under way while it is computed, where a device can do both (see [`pending`](crate::pending)). Of what is under
//! way no more is held than the gradients of one layer; of what is left at the end of a round, than the largest tensor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::Ranks;

use crate::host::DeviceError;
use crate::ops::Kernels;
use crate::params::{Gradients, ParamVisitor, Shard, StackPart, element_ranges};
use crate::pending::PendingSum;

/// The calls that move gradients.
pub const GRADIENTS: &str = "gradients";

/// How the ranks of a run share out the elements of each tensor.
///
/// On several machines with equally many ranks each it has two levels: sums are taken within a machine first, over its
/// fast links, and of the part of each rank there across machines afterwards, once a step. The parameters come back
/// the same way. A rank's part is that of its *slot*: the ranks of one place in all machines have neighbouring parts.
#[derive(Debug, Clone, Default)]
pub struct ZeroLayout {
    /// All.
    pub ranks: Ranks,
    /// Those of this machine; all of them where there is one level.
    inner: Ranks,
    /// One of each machine; this rank alone where there is one level.
    outer: Ranks,
    /// All ranks in the order of their parts.
    order: Vec<usize>,
    /// The ranks that share this rank's copy of the model out, each of which has such a layout with its own like.
    pub tensor: Ranks,
}

impl ZeroLayout {
    /// Of the `ranks` that have the same part of their copies of the model, with those of `tensor` that have the other
    /// parts of this one. Finds out which ranks share a machine.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn of(ranks: &Ranks, tensor: &Ranks) -> Result<Self, DeviceError> {
        let inner = ranks.of_node("ranks of a machine")?;
        let sizes = ranks.gather("ranks of each machine", &inner.size())?;
        let alike = sizes.iter().all(|size| *size == inner.size());
        let (inner, outer) = match inner.is_solo() || !alike || inner.size() == ranks.size() {
            true => (ranks.clone(), Ranks::solo()),
            false => {
                let outer = ranks.split("ranks of one place", inner.rank())?;
                (inner, outer)
            }
        };
        let mut layout = Self { ranks: ranks.clone(), inner, outer, order: vec![], tensor: tensor.clone() };
        let slots = ranks.gather("parts", &layout.slot())?;
        layout.order = (0..slots.len()).collect();
        layout.order.sort_by_key(|&rank| slots[rank]);
        Ok(layout)
    }

    /// Whether there is no other rank.
    pub fn is_solo(&self) -> bool {
        self.ranks.is_solo() && self.tensor.is_solo()
    }

    /// The place of this rank's part among all.
    fn slot(&self) -> usize {
        self.inner.rank() * self.outer.size() + self.outer.rank()
    }

    /// What the ranks gave, in their order, as the parts of one whole.
    pub fn joined(&self, mut given: Vec<Vec<u8>>) -> Vec<u8> {
        self.order.iter().flat_map(|&rank| given.get_mut(rank).map(std::mem::take).unwrap_or_default()).collect()
    }

    /// This rank's part of the sum over machines of `x`, its part within this one.
    fn across<B: Kernels>(&self, x: Tensor<B, 1>) -> Result<Tensor<B, 1>, DeviceError> {
        if self.outer.is_solo() { Ok(x) } else { B::reduce_scatter(x, &self.outer, GRADIENTS) }
    }

    /// The parts of all ranks one after the other.
    ///
    /// # Errors
    /// A device that cannot be read; a rank that is gone.
    pub fn all_gather<B: Kernels>(&self, part: Tensor<B, 1>, name: &'static str) -> Result<Tensor<B, 1>, DeviceError> {
        let part = if self.outer.is_solo() { part } else { B::all_gather(part, &self.outer, name)? };
        B::all_gather(part, &self.inner, name)
    }
}

/// The elements of a flattened tensor that a rank updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnElements {
    /// Which.
    pub range: Range<usize>,
    /// Elements of the longest part.
    pub part: usize,
    /// Elements of the tensor.
    pub len: usize,
}

impl OwnElements {
    /// Of a tensor of `len` elements.
    pub fn of(len: usize, layout: &ZeroLayout) -> Self {
        let part = len.div_ceil(layout.ranks.size());
        let start = (layout.slot() * part).min(len);
        Self { range: start..(start + part).min(len), part, len }
    }
}

/// `x` with zeros behind it, `len` elements altogether; zeros of `dtype` where there is nothing.
pub fn padded<B: Backend>(x: Option<Tensor<B, 1>>, len: usize, device: &B::Device, dtype: DType) -> Tensor<B, 1> {
    let zeros = |len, dtype| Tensor::zeros([len], (device, dtype));
    match x {
        None => zeros(len, dtype),
        Some(x) if x.dims()[0] == len => x,
        Some(x) => {
            let (missing, dtype) = (len - x.dims()[0], x.dtype());
            Tensor::cat(vec![x, zeros(missing, dtype)], 0)
        }
    }
}

/// A tensor of the model that has a gradient: a parameter, or a stack of them.
#[derive(Debug, Clone)]
pub(crate) struct GradientOf {
    /// The (first) parameter's name.
    pub name: String,
    /// The parts of a stack; none of a parameter alone.
    pub stack: Vec<StackPart>,
    pub len: usize,
    /// Elements that no other rank of the tensor group counts.
    pub counted: Vec<Range<usize>>,
}

impl GradientOf {
    /// Takes it out, flat.
    pub(crate) fn taken<B: Kernels>(&self, grads: &mut Gradients<B>) -> Option<Tensor<B, 1>> {
        if self.stack.is_empty() { grads.remove(&self.name) } else { grads.remove_stack(&self.stack) }
    }
}

/// The sums over ranks of the gradients of the elements that are this rank's.
#[derive(Debug, Clone)]
pub struct ReducedGradients<B: Backend> {
    layout: ZeroLayout,
    device: B::Device,
    /// In the order of a round.
    all: Vec<GradientOf>,
    /// The next of them in the round at hand.
    next: usize,
    /// Rounds that are still to be made so that all ranks have made as many.
    left: usize,
    rounds: usize,
    /// Sums over the ranks of this machine of its rank's part.
    own: BTreeMap<String, Tensor<B, 1>>,
    /// Sums that will be added to those, in the order in which they were begun: the tensor, its elements and the sum.
    under_way: VecDeque<(usize, usize, PendingSum<B>)>,
    /// Elements of the largest tensor: as many may be under way at the end of a round.
    most: usize,
    /// How often this rank had a gradient of each tensor.
    touched: Vec<f64>,
    failed: Option<DeviceError>,
}

/// Lists the tensors of a model that have gradients.
#[derive(Debug, Clone, Default)]
pub struct GradientList(Vec<GradientOf>);

impl<B: Backend> ParamVisitor<B> for GradientList {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        let counted = shard.first.then_some(0..len).into_iter().collect();
        self.0.push(GradientOf { name: name.into(), stack: vec![], len, counted });
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], shards: &[Shard], tensor: &mut Tensor<B, D>) {
        let Some(first) = parts.first() else { return };
        let len = tensor.shape().num_elements();
        let counted = element_ranges(parts, len).into_iter().zip(shards).filter(|(_, shard)| shard.first);
        let counted = counted.map(|(range, _)| range).collect();
        self.0.push(GradientOf { name: first.name.clone(), stack: parts.to_vec(), len, counted });
    }
}

impl GradientList {
    /// As a backward goes through them: from the last to the first.
    pub(crate) fn into_order(mut self) -> Vec<GradientOf> {
        self.0.reverse();
        self.0
    }
}

/// What a step needs of gradients that were summed over ranks.
#[derive(Debug, Clone)]
pub struct OwnSums<B: Backend> {
    /// The sum of squares over all ranks, where it is known to the bit.
    pub squared: Option<f64>,
    /// The tensors that any rank has a gradient of, by the (first) parameter's name.
    pub updated: BTreeSet<String>,
    /// The sums of those elements that are this rank's; none where it has no element.
    pub own: BTreeMap<String, Tensor<B, 1>>,
    /// Which of these no other rank counts, where those are not all.
    counted: BTreeMap<String, Vec<Range<usize>>>,
}

impl<B: Kernels> OwnSums<B> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { squared: None, updated: BTreeSet::new(), own: BTreeMap::new(), counted: BTreeMap::new() }
    }

    /// Adds the sums of the elements `range` of a tensor.
    pub(crate) fn add(&mut self, of: &GradientOf, range: Range<usize>, sums: Tensor<B, 1>) {
        let within = |counted: &Range<usize>| {
            let part = counted.start.max(range.start)..counted.end.min(range.end);
            (part.start < part.end).then(|| part.start - range.start..part.end - range.start)
        };
        let counted: Vec<Range<usize>> = of.counted.iter().filter_map(within).collect();
        if counted.iter().map(Range::len).sum::<usize>() < range.len() {
            self.counted.insert(of.name.clone(), counted);
        }
        self.own.insert(of.name.clone(), sums);
    }

    /// Sum of squares `[1]` of those that this rank counts.
    pub fn squared_norm(&self, device: &B::Device) -> Tensor<B, 1> {
        let mut all = Vec::with_capacity(self.own.len());
        for (name, sums) in &self.own {
            match self.counted.get(name) {
                None => all.push(sums.clone()),
                Some(ranges) => all.extend(ranges.iter().map(|range| sums.clone().slice([range.clone()]))),
            }
        }
        B::squared_norm(all, device)
    }
}

impl<B: Kernels> Default for OwnSums<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Kernels> ReducedGradients<B> {
    /// For the tensors of a model, which `list` has seen in its order.
    pub fn new(layout: &ZeroLayout, device: &B::Device, list: GradientList) -> Self {
        let all = list.into_order();
        let (touched, most) = (vec![0.0; all.len()], all.iter().map(|of| of.len).max().unwrap_or(0));
        let (layout, device) = (layout.clone(), device.clone());
        let (own, under_way) = (BTreeMap::new(), VecDeque::new());
        Self { layout, device, all, next: 0, left: 0, rounds: 0, own, under_way, most, touched, failed: None }
    }

    /// Rounds so far, for tests of what they cost.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Says that this rank is about to make `rounds` rounds, and hears how many there will be.
    pub(crate) fn begin(&mut self, rounds: usize) {
        match self.layout.inner.gather("backward passes", &(rounds as u64)) {
            Ok(all) => self.left += all.into_iter().max().unwrap_or(0) as usize,
            Err(error) => self.fail(error.into()),
        }
    }

    /// Sums what this rank has in `grads`, up to the last tensor whose name begins with `prefix`.
    pub(crate) fn through(&mut self, prefix: &str, grads: &mut Gradients<B>) {
        let last = self.all[self.next..].iter().rposition(|of| of.name.starts_with(prefix));
        if let Some(last) = last {
            self.sum_until(self.next + last + 1, usize::MAX, grads);
        }
    }

    /// Sums what this rank has in `grads` of the tensor `name`, if that is the next one of the round.
    pub(crate) fn next_is(&mut self, name: &str, grads: &mut Gradients<B>) {
        if self.all.get(self.next).is_some_and(|of| of.name == name) {
            self.sum_until(self.next + 1, usize::MAX, grads);
        }
    }

    /// Ends a round.
    pub(crate) fn end_round(&mut self, grads: &mut Gradients<B>) {
        self.sum_until(self.all.len(), self.most, grads);
        self.next = 0;
        self.rounds += 1;
        self.left = self.left.saturating_sub(1);
    }

    /// Makes the rounds that are left, and one more where any rank still holds a gradient: one that came after its
    /// turn.
    pub(crate) fn finish(&mut self, grads: &mut Gradients<B>) {
        while self.left > 0 && self.failed.is_none() {
            self.end_round(grads);
        }
        match self.layout.inner.any("gradients left", !grads.is_empty()) {
            Ok(true) => self.end_round(grads),
            Ok(false) => {}
            Err(error) => self.fail(error.into()),
        }
    }

    /// The sums.
    ///
    /// # Errors
    /// What went wrong on the way.
    pub fn take(mut self) -> Result<OwnSums<B>, DeviceError> {
        self.leave_under_way(0);
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.layout.ranks.sum("which gradients", &mut self.touched)?;
        let mut sums = OwnSums::new();
        for (of, _) in std::iter::zip(&self.all, &self.touched).filter(|(_, times)| **times > 0.0) {
            let elements = OwnElements::of(of.len, &self.layout);
            if let Some(sum) = self.own.remove(&of.name) {
                let sum = self.layout.across(sum)?;
                if !elements.range.is_empty() {
                    let sum = sum.narrow(0, 0, elements.range.len());
                    sums.add(of, elements.range, sum);
                }
            }
            sums.updated.insert(of.name.clone());
        }
        Ok(sums)
    }

    fn fail(&mut self, error: DeviceError) {
        self.failed.get_or_insert(error);
    }

    /// Begins the sums up to the tensor `end`, when those are done that were begun before, and of these no more at a
    /// time than `most` elements.
    fn sum_until(&mut self, end: usize, most: usize, grads: &mut Gradients<B>) {
        if self.next < end {
            self.leave_under_way(0);
        }
        while self.next < end && self.failed.is_none() {
            if let Err(error) = self.begin_next(most, grads) {
                self.fail(error);
            }
            self.next += 1;
        }
    }

    /// Begins the sum of the next tensor.
    fn begin_next(&mut self, most: usize, grads: &mut Gradients<B>) -> Result<(), DeviceError> {
        let of = &self.all[self.next];
        let (grad, part) = (of.taken(grads), OwnElements::of(of.len, &self.layout).part);
        let (all, len) = (part * self.layout.ranks.size(), of.len);
        self.touched[self.next] += f64::from(u8::from(grad.is_some()));
        self.leave_under_way(most.saturating_sub(len));
        let grad = padded(grad, all, &self.device, DType::F32);
        let sum = B::begin_reduce_scatter(grad, &self.layout.inner, GRADIENTS)?;
        self.under_way.push_back((self.next, len, sum));
        Ok(())
    }

    /// Waits for the oldest sums until at most `most` elements are under way.
    fn leave_under_way(&mut self, most: usize) {
        let mut elements: usize = self.under_way.iter().map(|(_, len, _)| len).sum();
        while elements > most || (most == 0 && !self.under_way.is_empty()) {
            let Some((index, len, sum)) = self.under_way.pop_front() else { return };
            elements -= len;
            match sum.wait() {
                Ok(part) => self.keep(index, part),
                Err(error) => self.fail(error),
            }
        }
    }

    /// Adds a part to what is held of its tensor.
    fn keep(&mut self, index: usize, part: Tensor<B, 1>) {
        let name = &self.all[index].name;
        let sum = match self.own.remove(name) {
            Some(sum) => B::accumulate(sum, part),
            None => part,
        };
        self.own.insert(name.clone(), sum);
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::host;
    use crate::params::SummedOver;
    use burn::tensor::TensorData;

    type B = burn_flex::Flex<f32, i32>;

    #[test]
    fn every_element_has_one_rank() {
        for len in [0, 1, 2, 7, 8, 9, 1000] {
            for (size, of_node) in [(2, 2), (3, 3), (5, 5), (9, 9), (4, 2), (6, 2), (6, 3), (8, 4), (3, 2), (4, 1)] {
                let own = |ranks: Ranks| {
                    let layout = ZeroLayout::of(&ranks, &Ranks::solo()).unwrap();
                    (OwnElements::of(len, &layout).range, layout)
                };
                let own: Vec<(Range<usize>, ZeroLayout)> = comm::threads::run_on(of_node, size, own);
                let given = own.iter().map(|(range, _)| range.clone().map(|i| i as u8).collect()).collect();
                let expected: Vec<u8> = (0..len).map(|i| i as u8).collect();
                assert_eq!(own[0].1.joined(given), expected, "{len} over {size}, {of_node} on a machine");
            }
        }
    }

    fn of(value: f32, len: usize) -> Tensor<B, 1> {
        Tensor::from_data(TensorData::new(vec![value; len], [len]), &Default::default())
    }

    /// Nothing of the layer before, and no more than the largest tensor has where a round ends.
    #[test]
    fn little_is_under_way() {
        comm::threads::run(2, |ranks| {
            let mut list = GradientList::default();
            for (name, len) in [("embed", 10), ("a.0", 7), ("a.1", 2), ("a.2", 4), ("head", 9)] {
                ParamVisitor::<B>::visit(&mut list, name, &Shard::whole(&[len]), &mut of(0.0, len));
            }
            let layout = ZeroLayout::of(&ranks, &Ranks::solo()).unwrap();
            let mut reduced = ReducedGradients::<B>::new(&layout, &Default::default(), list);
            let mut grads = Gradients::default();
            reduced.begin(2);
            let elements = |reduced: &ReducedGradients<B>| -> Vec<usize> {
                reduced.under_way.iter().map(|(_, len, _)| *len).collect()
            };
            reduced.next_is("embed", &mut grads);
            assert_eq!(elements(&reduced), [0; 0], "the last of a round is not its first");
            reduced.next_is("head", &mut grads);
            assert_eq!(elements(&reduced), [9]);
            reduced.through("a.1", &mut grads);
            assert_eq!(elements(&reduced), [4, 2]);
            reduced.through("a.0", &mut grads);
            assert_eq!(elements(&reduced), [7]);
            reduced.end_round(&mut grads);
            assert_eq!(elements(&reduced), [10]);
            reduced.through("a.1", &mut grads);
            assert_eq!(elements(&reduced), [9, 4, 2], "all of a layer and what comes before it");
            reduced.end_round(&mut grads);
            assert_eq!((elements(&reduced), reduced.rounds), (vec![10], 2), "17 are more than the largest has");
            grads.add("a.1", of(1.0, 2));
            reduced.finish(&mut grads);
            let sums = reduced.take().unwrap();
            assert_eq!(host::floats(sums.own["a.1"].clone()).unwrap(), [2.0]);
        });
    }

    /// Ranks with different numbers of passes, of which some touch nothing, and gradients that come after their turn.
    #[test]
    fn passes_may_differ_from_rank_to_rank() {
        passes_of(3, 3);
    }

    /// Two machines: as many rounds as the rank with most passes of each machine has.
    #[test]
    fn passes_may_differ_from_machine_to_machine() {
        passes_of(4, 2);
        passes_of(6, 3);
    }

    fn passes_of(size: usize, of_node: usize) {
        let lens = [("first", 3), ("a.0", 7), ("a.1", 2), ("late", 5)];
        let sums = comm::threads::run_on(of_node, size, |ranks| {
            let layout = ZeroLayout::of(&ranks, &Ranks::solo()).unwrap();
            let mut list = GradientList::default();
            for (name, len) in lens {
                ParamVisitor::<B>::visit(&mut list, name, &Shard::whole(&[len]), &mut of(0.0, len));
            }
            let mut grads = Gradients::kept_in(DType::F32).summed(SummedOver::Parts(ReducedGradients::new(
                &layout,
                &Default::default(),
                list,
            )));
            // Rank 0 makes no pass, rank 1 one, rank 2 two, and so on; nobody has a gradient of "first".
            grads.begin(ranks.rank());
            for _ in 0..ranks.rank() {
                grads.add("a.1", of(1.0, 2));
                grads.done_through("a.1");
                grads.add("a.0", of(10.0, 7));
                grads.done_through("a.0");
                grads.add("late", of(100.0, 5));
                grads.end_pass();
            }
            grads.finish();
            let Some(SummedOver::Parts(reduced)) = grads.take_sums() else { unreachable!() };
            let rounds = reduced.rounds();
            let OwnSums { updated, own, .. } = reduced.take().unwrap();
            assert_eq!(updated.into_iter().collect::<Vec<_>>(), ["a.0", "a.1", "late"]);
            let values = own.into_iter().map(|(name, sum)| (name, host::floats(sum).unwrap()));
            (rounds, values.collect::<BTreeMap<_, _>>())
        });
        // As many rounds as the rank of a machine with most passes makes, and one for what came late.
        for (rank, (rounds, _)) in sums.iter().enumerate() {
            assert_eq!(*rounds, (rank / of_node + 1) * of_node, "rank {rank} of {size}");
        }
        let passes = (size * (size - 1) / 2) as f32;
        for (name, value) in [("a.0", 10.0), ("a.1", 1.0), ("late", 100.0)] {
            let len = lens.iter().find(|(other, _)| *other == name).unwrap().1;
            let all: Vec<f32> = sums.iter().flat_map(|(_, own)| own.get(name).cloned().unwrap_or_default()).collect();
            assert_eq!(all, vec![value * passes; len], "{name}");
        }
    }
}
