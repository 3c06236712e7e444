//! Parameters by their Hugging Face name, and the gradients that go with them.
//!
//! Names are the hub's (`visual.` and `model.`): the layout every loader understands, and the key of optimizer state.

mod shard;

pub use shard::Shard;

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::{DType, FloatDType, Int, Tensor, backend::Backend};

use crate::exact::ExactSums;
use crate::host::DeviceError;
use crate::layers::adapted_module;
use crate::ops::Kernels;
use crate::zero::{OwnSums, ReducedGradients};

/// One of several parameters that lie one below the other in one tensor, a *stack*, so that one product computes them
/// all. Files, gradients and optimizer state know the parts alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackPart {
    /// The hub's tensor name.
    pub name: String,
    /// Rows of the stack that are its.
    pub rows: usize,
}

/// Something that is shown every parameter of a model in a fixed order: a loader, saver, optimizer, counter.
pub trait ParamVisitor<B: Backend> {
    /// Whether it may replace what it is shown: if not, a stack that was shown in parts is not put together again.
    const REPLACES: bool = true;

    /// `name` is the hub's tensor name; `shard` says which part of the parameter `tensor` is. Layers show what they
    /// have as the whole, and the model that they are layers of knows better.
    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>);

    /// Parameters that lie one below the other in `tensor`, whose rows they share out, each with its shard: shown one
    /// by one, unless the visitor knows better.
    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], shards: &[Shard], tensor: &mut Tensor<B, D>) {
        let mut shown = Vec::with_capacity(parts.len());
        let mut start = 0;
        for (part, shard) in parts.iter().zip(shards) {
            let mut slice = tensor.clone().narrow(0, start, part.rows);
            self.visit(&part.name, shard, &mut slice);
            shown.push(slice);
            start += part.rows;
        }
        if Self::REPLACES {
            *tensor = Tensor::cat(shown, 0);
        }
    }
}

/// Gradients, flattened, keyed by parameter name; adding twice accumulates. Sums are taken in f32. Those of a stack are
/// held as one tensor and given out by the names of its parts.
#[derive(Debug, Clone)]
pub struct Gradients<B: Backend> {
    /// A stack's under the name of its first part.
    map: BTreeMap<String, Tensor<B, 1>>,
    /// Parts of stacks: the key of the stack, and the elements that are the part's.
    parts: BTreeMap<String, (String, Range<usize>)>,
    dtype: DType,
    /// Whether those of adapters alone are taken.
    adapters_only: bool,
    /// Where they go as soon as they are complete, in a run on several ranks.
    summed: Option<Box<SummedOver<B>>>,
}

/// How gradients are summed over ranks while they are computed.
#[derive(Debug, Clone)]
pub enum SummedOver<B: Backend> {
    /// Layer by layer, each rank keeping its part.
    Parts(ReducedGradients<B>),
    /// In whole numbers, pass by pass.
    Exact(ExactSums<B>),
}

impl<B: Kernels> SummedOver<B> {
    /// The sums.
    ///
    /// # Errors
    /// A device that could not be read; a rank that is gone.
    pub fn take(self) -> Result<OwnSums<B>, DeviceError> {
        match self {
            Self::Parts(reduced) => reduced.take(),
            Self::Exact(exact) => exact.take(),
        }
    }
}

impl<B: Kernels> Default for Gradients<B> {
    fn default() -> Self {
        Self::kept_in(DType::F32)
    }
}

impl<B: Kernels> Gradients<B> {
    /// None yet; between additions they are kept in `dtype`.
    pub fn kept_in(dtype: DType) -> Self {
        Self { map: BTreeMap::new(), parts: BTreeMap::new(), dtype, adapters_only: false, summed: None }
    }

    /// From now on takes the gradients of adapters alone ([`adapted_module`]), if so: those of other parameters are
    /// dropped, and products that only they need are not computed. A model says so in each of its backward passes.
    pub fn set_adapters_only(&mut self, only: bool) {
        self.adapters_only = only;
    }

    /// Whether it takes the gradients of adapters alone.
    pub fn adapters_only(&self) -> bool {
        self.adapters_only
    }

    /// Whether it takes the gradient of this parameter.
    pub fn takes(&self, name: &str) -> bool {
        !self.adapters_only || adapted_module(name).is_some()
    }

    /// The same, summed over ranks on the way. Between [`begin`](Self::begin) and [`finish`](Self::finish) whoever
    /// computes gradients says when a layer and when a pass is done.
    #[must_use]
    pub fn summed(self, into: SummedOver<B>) -> Self {
        Self { summed: Some(Box::new(into)), ..self }
    }

    /// Takes the sums over ranks out; none where gradients are not summed.
    pub fn take_sums(&mut self) -> Option<SummedOver<B>> {
        self.summed.take().map(|summed| *summed)
    }

    /// `passes` backward passes follow.
    pub fn begin(&mut self, passes: usize) {
        self.summing(|summed, _| match summed {
            SummedOver::Parts(reduced) => reduced.begin(passes),
            SummedOver::Exact(_) => {}
        });
    }

    /// The gradients of this pass are complete up to those whose names begin with `prefix`, from the last parameter on.
    pub fn done_through(&mut self, prefix: &str) {
        self.summing(|summed, grads| match summed {
            SummedOver::Parts(reduced) => reduced.through(prefix, grads),
            SummedOver::Exact(_) => {}
        });
    }

    /// The gradient `name` of this pass is complete, and comes first in a backward: the head's, unless it is one with
    /// the embedding's, of which this says nothing.
    pub fn done_first(&mut self, name: &str) {
        self.summing(|summed, grads| match summed {
            SummedOver::Parts(reduced) => reduced.next_is(name, grads),
            SummedOver::Exact(_) => {}
        });
    }

    /// A backward pass is done.
    pub fn end_pass(&mut self) {
        self.summing(|summed, grads| match summed {
            SummedOver::Parts(reduced) => reduced.end_round(grads),
            SummedOver::Exact(exact) => exact.end_pass(grads),
        });
    }

    /// All passes are done.
    pub fn finish(&mut self) {
        self.summing(|summed, grads| match summed {
            SummedOver::Parts(reduced) => reduced.finish(grads),
            SummedOver::Exact(_) => {}
        });
    }

    fn summing(&mut self, work: impl FnOnce(&mut SummedOver<B>, &mut Self)) {
        if let Some(mut summed) = self.summed.take() {
            work(&mut summed, self);
            self.summed = Some(summed);
        }
    }

    /// Adds `grad` to what is held under `name`.
    pub fn add<const D: usize>(&mut self, name: &str, grad: Tensor<B, D>) {
        if !self.takes(name) {
            return;
        }
        self.take_apart(name);
        self.accumulate(name, grad);
    }

    /// Adds the gradient `grad` of a stack to those of its parts.
    pub fn add_stack<const D: usize>(&mut self, parts: &[StackPart], grad: Tensor<B, D>) {
        let Some(first) = parts.first().filter(|first| self.takes(&first.name)) else { return };
        if self.holds_as_one(parts, grad.shape().num_elements()) {
            return self.accumulate(&first.name, grad);
        }
        let mut start = 0;
        for part in parts {
            self.add(&part.name, grad.clone().narrow(0, start, part.rows));
            start += part.rows;
        }
    }

    /// Whether a stack of `elements` is held as one tensor, or can be from now on: not if a part is held on its own.
    fn holds_as_one(&mut self, parts: &[StackPart], elements: usize) -> bool {
        let Some(first) = parts.first() else { return false };
        let ranges = element_ranges(parts, elements);
        let whole = parts.iter().zip(&ranges).all(|(part, range)| {
            self.parts.get(&part.name).is_some_and(|(key, held)| *key == first.name && held == range)
        });
        let held = |part: &StackPart| self.parts.contains_key(&part.name) || self.map.contains_key(&part.name);
        if !whole && parts.iter().any(held) {
            return false;
        }
        for (part, range) in parts.iter().zip(ranges) {
            self.parts.insert(part.name.clone(), (first.name.clone(), range));
        }
        true
    }

    /// Adds to one tensor of the map.
    fn accumulate<const D: usize>(&mut self, key: &str, grad: Tensor<B, D>) {
        let len = grad.shape().num_elements();
        let grad = grad.reshape([len]);
        // Taking the old value out of the map leaves it uniquely owned, so the addition can run in place.
        let sum = match self.map.remove(key) {
            Some(old) => B::accumulate(old, grad),
            None => cast_to(grad, self.dtype),
        };
        self.map.insert(key.to_string(), sum);
    }

    /// Adds the column sums of `rows [N, d]` to what is held under `name`.
    pub fn add_columns(&mut self, name: &str, rows: Tensor<B, 2>) {
        if !self.takes(name) {
            return;
        }
        self.take_apart(name);
        self.accumulate_columns(name, rows);
    }

    /// Adds the column sums of `rows [N, sum of rows]` to those of the parts of a stack of vectors.
    pub fn add_stack_columns(&mut self, parts: &[StackPart], rows: Tensor<B, 2>) {
        let Some(first) = parts.first().filter(|first| self.takes(&first.name)) else { return };
        if self.holds_as_one(parts, rows.dims()[1]) {
            return self.accumulate_columns(&first.name, rows);
        }
        let mut start = 0;
        for part in parts {
            self.add_columns(&part.name, rows.clone().narrow(1, start, part.rows));
            start += part.rows;
        }
    }

    /// Adds column sums to one tensor of the map.
    fn accumulate_columns(&mut self, key: &str, rows: Tensor<B, 2>) {
        let zeros = || Tensor::zeros([rows.dims()[1]], (&rows.device(), self.dtype));
        let sum = self.map.remove(key).unwrap_or_else(zeros);
        self.map.insert(key.to_string(), B::accumulate_columns(sum, rows));
    }

    /// Adds `grad [M, d]` to the rows `rows [M]`, which may repeat, of the gradient of a table of `len` elements.
    pub fn add_rows(&mut self, name: &str, len: usize, rows: Tensor<B, 1, Int>, grad: Tensor<B, 2>) {
        if !self.takes(name) {
            return;
        }
        self.take_apart(name);
        let zeros = || Tensor::zeros([len], (&grad.device(), self.dtype));
        let table = self.map.remove(name).unwrap_or_else(zeros);
        self.map.insert(name.to_string(), B::accumulate_rows(table, rows, grad));
    }

    /// Holds the parts of the stack that `name` is one of, if it is, each on its own.
    fn take_apart(&mut self, name: &str) {
        let Some((key, _)) = self.parts.get(name).cloned() else { return };
        let Some(whole) = self.map.remove(&key) else { return };
        self.parts.retain(|part, (stack, range)| {
            if *stack == key {
                self.map.insert(part.clone(), whole.clone().slice([range.clone()]));
            }
            *stack != key
        });
    }

    /// Whether there is a gradient of this parameter.
    pub fn holds(&self, name: &str) -> bool {
        match self.parts.get(name) {
            Some((key, _)) => self.map.contains_key(key),
            None => self.map.contains_key(name),
        }
    }

    /// The gradient of one parameter, flattened, in the type that they are kept in.
    pub fn get(&self, name: &str) -> Option<Tensor<B, 1>> {
        match self.parts.get(name) {
            Some((key, range)) => self.map.get(key).map(|whole| whole.clone().slice([range.clone()])),
            None => self.map.get(name).cloned(),
        }
    }

    /// Takes one gradient out, in the type that they are kept in.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<B, 1>> {
        self.take_apart(name);
        self.map.remove(name)
    }

    /// Takes the gradient of a stack out, in the type that they are kept in; zeros for parts that have none, none if no
    /// part has any.
    pub fn remove_stack(&mut self, parts: &[StackPart]) -> Option<Tensor<B, 1>> {
        let first = parts.first()?;
        if let Some((key, _)) = self.parts.get(&first.name)
            && *key == first.name
        {
            self.parts.retain(|_, (stack, _)| *stack != first.name);
            return self.map.remove(&first.name);
        }
        let found: Vec<_> = parts.iter().map(|part| (part.rows, self.remove(&part.name))).collect();
        let (rows, known) = found.iter().find_map(|(rows, grad)| grad.clone().map(|grad| (*rows, grad)))?;
        let (width, device) = (known.dims()[0] / rows.max(1), known.device());
        let whole = found
            .into_iter()
            .map(|(rows, grad)| grad.unwrap_or_else(|| Tensor::zeros([rows * width], (&device, self.dtype))));
        Some(Tensor::cat(whole.collect(), 0))
    }

    /// Adds all that `other` holds.
    pub fn absorb(&mut self, other: Self) {
        let mut stacks: BTreeMap<String, Vec<(usize, StackPart)>> = BTreeMap::new();
        for (name, (key, range)) in other.parts {
            // In one flat tensor a row is an element.
            stacks.entry(key).or_default().push((range.start, StackPart { name, rows: range.len() }));
        }
        for (key, grad) in other.map {
            match stacks.remove(&key) {
                None => self.add(&key, grad),
                Some(mut parts) => {
                    parts.sort_by_key(|(start, _)| *start);
                    let parts: Vec<StackPart> = parts.into_iter().map(|(_, part)| part).collect();
                    self.add_stack(&parts, grad);
                }
            }
        }
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All names and gradients, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, Tensor<B, 1>)> {
        let names: BTreeMap<&String, ()> = self.map.keys().chain(self.parts.keys()).map(|name| (name, ())).collect();
        names.into_keys().filter_map(|name| self.get(name).map(|grad| (name, grad)))
    }

    /// Sum of squares over all parameters, `[1]` on the device (its root is the global norm).
    pub fn squared_norm(&self, device: &B::Device) -> Tensor<B, 1> {
        B::squared_norm(self.map.values().cloned().collect(), device)
    }
}

/// Where each part lies among the `elements` of a flattened stack.
pub fn element_ranges(parts: &[StackPart], elements: usize) -> Vec<Range<usize>> {
    let width = elements / parts.iter().map(|part| part.rows).sum::<usize>().max(1);
    let mut start = 0;
    let range = |part: &StackPart| {
        start += part.rows * width;
        start - part.rows * width..start
    };
    parts.iter().map(range).collect()
}

/// Zeros. Where `shape` has no element nothing is asked of the device: CUDA refuses to launch a grid of nothing.
pub(crate) fn zeros<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device, dtype: DType) -> Tensor<B, D> {
    match shape.contains(&0) {
        true => Tensor::empty(shape, (device, dtype)),
        false => Tensor::zeros(shape, (device, dtype)),
    }
}

/// Casts to f32 only where the type differs.
pub fn to_f32<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::F32 { x } else { x.cast(FloatDType::F32) }
}

/// Casts `x` to `dtype` (a float type) only where the type differs.
pub fn cast_to<B: Backend, const D: usize>(x: Tensor<B, D>, dtype: DType) -> Tensor<B, D> {
    if x.dtype() == dtype {
        return x;
    }
    match dtype {
        DType::BF16 => x.cast(FloatDType::BF16),
        DType::F16 => x.cast(FloatDType::F16),
        DType::F64 => x.cast(FloatDType::F64),
        _ => x.cast(FloatDType::F32),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    type B = burn_flex::Flex<f32, i32>;

    fn matrix(rows: usize, first: f32) -> Tensor<B, 2> {
        let values: Vec<f32> = (0..rows * 2).map(|i| first + i as f32).collect();
        Tensor::from_data(TensorData::new(values, [rows, 2]), &Default::default())
    }

    fn parts() -> Vec<StackPart> {
        [("b", 2), ("a", 1)].map(|(name, rows)| StackPart { name: name.into(), rows }).to_vec()
    }

    fn values(grads: &Gradients<B>) -> Vec<(String, Vec<f32>)> {
        grads.iter().map(|(name, grad)| (name.clone(), grad.into_data().to_vec().unwrap())).collect()
    }

    /// In whatever order a stack's gradient and those of its parts come, each part has the sum that is its.
    #[test]
    fn a_stack_gives_its_parts() {
        let whole = |grads: &mut Gradients<B>| grads.add_stack(&parts(), matrix(3, 1.0));
        let part = |grads: &mut Gradients<B>| grads.add("a", matrix(1, 10.0));
        let other = |grads: &mut Gradients<B>| grads.add("c", matrix(1, 0.0));
        let (a, b) = (vec![5.0, 6.0], vec![1.0, 2.0, 3.0, 4.0]);
        let mut grads = Gradients::default();
        whole(&mut grads);
        other(&mut grads);
        assert_eq!(grads.get("a").unwrap().into_data().to_vec::<f32>().unwrap(), a);
        let named = |a: &[f32], b: &[f32]| {
            vec![("a".to_string(), a.to_vec()), ("b".into(), b.to_vec()), ("c".into(), vec![0.0, 1.0])]
        };
        assert_eq!(values(&grads), named(&a, &b));
        assert_eq!(grads.squared_norm(&Default::default()).into_scalar(), 92.0);
        whole(&mut grads);
        let twice: Vec<f32> = grads.clone().remove_stack(&parts()).unwrap().into_data().to_vec().unwrap();
        assert_eq!(twice, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        for order in [[true, false], [false, true]] {
            let mut grads = Gradients::default();
            order.iter().for_each(|first| if *first { whole(&mut grads) } else { part(&mut grads) });
            other(&mut grads);
            assert_eq!(values(&grads), named(&[15.0, 17.0], &b));
            let all: Vec<f32> = grads.remove_stack(&parts()).unwrap().into_data().to_vec().unwrap();
            assert_eq!(all, [1.0, 2.0, 3.0, 4.0, 15.0, 17.0]);
            assert_eq!(grads.iter().count(), 1);
        }
        let mut alone = Gradients::default();
        assert!(alone.remove_stack(&parts()).is_none());
        part(&mut alone);
        let all: Vec<f32> = alone.remove_stack(&parts()).unwrap().into_data().to_vec().unwrap();
        assert_eq!(all, [0.0, 0.0, 0.0, 0.0, 10.0, 11.0]);
    }

    /// What a stack, a part of one and others come to does not depend on where they were added up.
    #[test]
    fn what_is_absorbed_is_added() {
        let fill = |grads: &mut Gradients<B>, apart: bool| {
            grads.add_stack(&parts(), matrix(3, 1.0));
            if apart {
                grads.add("a", matrix(1, 10.0));
            }
            grads.add("c", matrix(1, 0.0));
        };
        for (first, second) in [(false, false), (true, false), (false, true), (true, true)] {
            let (mut expected, mut sum, mut own) = (Gradients::default(), Gradients::default(), Gradients::default());
            fill(&mut expected, first);
            fill(&mut expected, second);
            fill(&mut sum, first);
            fill(&mut own, second);
            sum.absorb(own);
            assert_eq!(values(&sum), values(&expected));
            let whole = |mut grads: Gradients<B>| grads.remove_stack(&parts()).unwrap().into_data();
            assert_eq!(whole(sum), whole(expected));
        }
    }

    struct Log(Vec<(String, Vec<usize>, Vec<f32>)>);
    impl ParamVisitor<B> for Log {
        fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
            self.0.push((name.into(), shard.shape.clone(), tensor.to_data().to_vec().unwrap()));
            if name == "a" {
                *tensor = tensor.clone().neg();
            }
        }
    }

    /// A visitor that knows no stacks sees parts, and what it makes of them lands in the stack.
    #[test]
    fn a_stack_is_shown_in_parts() {
        let (mut log, mut stack) = (Log(vec![]), matrix(3, 1.0));
        log.visit_stack(&parts(), &[[2, 2], [1, 2]].map(|shape| Shard::whole(&shape)), &mut stack);
        let seen = [("b".to_string(), vec![2, 2], vec![1.0, 2.0, 3.0, 4.0]), ("a".into(), vec![1, 2], vec![5.0, 6.0])];
        assert_eq!(log.0, seen);
        assert_eq!(stack.into_data().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, -5.0, -6.0]);
    }
}
