//! Which elements a rank updates, and how the sum of all ranks' gradients of these comes to it (ZeRO-1, arXiv
//! 1910.02054).
//!
//! A tensor of `len` elements is cut into as many parts of `ceil(len / ranks)` as there are ranks; the last ones may be
//! shorter or empty. A step moves each gradient once (a reduce-scatter in f32) and each parameter once (an all-gather in
//! the parameter's own type).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use burn::tensor::{DType, Tensor, backend::Backend};
use comm::Ranks;
use kernels::{DeviceError, Gradients, Kernels, ParamVisitor, StackPart};

use crate::policy::Policy;

/// The calls that move gradients.
pub(crate) const GRADIENTS: &str = "gradients";
/// The calls that move parameters.
pub(crate) const PARAMETERS: &str = "parameters";

/// The elements of a flattened tensor that a rank updates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnElements {
    /// Which.
    pub range: Range<usize>,
    /// Elements of the longest part.
    part: usize,
    /// Elements of the tensor.
    len: usize,
}

impl OwnElements {
    /// Of a tensor of `len` elements.
    pub(super) fn of(len: usize, ranks: &Ranks) -> Self {
        let part = len.div_ceil(ranks.size());
        Self { range: Self::of_rank(len, ranks.rank(), ranks.size()), part, len }
    }

    /// Those of another rank.
    pub(super) fn of_rank(len: usize, rank: usize, size: usize) -> Range<usize> {
        let part = len.div_ceil(size);
        (rank * part).min(len)..((rank + 1) * part).min(len)
    }

    /// The whole tensor from this rank's part of it, none where it has none, and from those of the others.
    pub(super) fn complete<B: Kernels>(
        &self,
        own: Option<Tensor<B, 1>>,
        (device, dtype): (&B::Device, DType),
        ranks: &Ranks,
    ) -> Result<Tensor<B, 1>, DeviceError> {
        if let (true, Some(own)) = (ranks.is_solo(), &own) {
            return Ok(own.clone());
        }
        let own = padded(own, self.part, device, dtype);
        Ok(B::all_gather(own, ranks, PARAMETERS)?.narrow(0, 0, self.len))
    }
}

/// `x` with zeros behind it, `len` elements altogether.
fn padded<B: Backend>(x: Option<Tensor<B, 1>>, len: usize, device: &B::Device, dtype: DType) -> Tensor<B, 1> {
    let zeros = |len| Tensor::zeros([len], (device, dtype));
    match x {
        None => zeros(len),
        Some(x) if x.dims()[0] == len => x,
        Some(x) => {
            let missing = len - x.dims()[0];
            Tensor::cat(vec![x, zeros(missing)], 0)
        }
    }
}

/// Gradients of the elements that this rank updates.
pub(super) enum OwnGradients<B: Backend> {
    /// All of them.
    All(Gradients<B>),
    /// Of several ranks, summed: by the name of the (first) parameter.
    Part {
        /// The tensors that any rank has a gradient of.
        updated: BTreeSet<String>,
        /// Those of which some elements are this rank's.
        own: BTreeMap<String, Tensor<B, 1>>,
    },
}

impl<B: Kernels> OwnGradients<B> {
    /// From each rank's gradients of everything.
    ///
    /// # Errors
    /// A device that cannot be read; a rank that is gone.
    pub(super) fn of<P: Policy<B>>(policy: &mut P, grads: Gradients<B>, ranks: &Ranks) -> Result<Self, DeviceError> {
        if ranks.is_solo() {
            return Ok(Self::All(grads));
        }
        // A rank whose groups have no pictures has no gradients of the tower: it takes part all the same.
        let mut holders = Holders { grads: &grads, held: vec![] };
        policy.visit_params(&mut holders);
        let mut held = holders.held;
        ranks.sum("which gradients", &mut held)?;
        let mut sum =
            SumOver { grads, held, at: 0, ranks, updated: BTreeSet::new(), own: BTreeMap::new(), failed: None };
        policy.visit_params(&mut sum);
        match sum.failed {
            Some(error) => Err(error),
            None => Ok(Self::Part { updated: sum.updated, own: sum.own }),
        }
    }

    /// Sum of squares `[1]` of this rank's.
    pub(super) fn squared_norm(&self, device: &B::Device) -> Tensor<B, 1> {
        match self {
            Self::All(grads) => grads.squared_norm(device),
            Self::Part { own, .. } => B::squared_norm(own.values().cloned().collect(), device),
        }
    }

    /// Takes the gradient of a tensor out, which may be a stack: none if no rank has one, none within if no element is
    /// this rank's.
    pub(super) fn take(&mut self, name: &str, stack: &[StackPart]) -> Option<Option<Tensor<B, 1>>> {
        match self {
            Self::All(grads) => taken(grads, name, stack).map(Some),
            Self::Part { updated, own } => updated.contains(name).then(|| own.remove(name)),
        }
    }
}

fn taken<B: Kernels>(grads: &mut Gradients<B>, name: &str, stack: &[StackPart]) -> Option<Tensor<B, 1>> {
    if stack.is_empty() { grads.remove(name) } else { grads.remove_stack(stack) }
}

/// Whether there is a gradient of each tensor, in the order of the parameters.
struct Holders<'a, B: Backend> {
    grads: &'a Gradients<B>,
    held: Vec<f64>,
}

impl<B: Kernels> ParamVisitor<B> for Holders<'_, B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, _: &[usize], _: &mut Tensor<B, D>) {
        self.held.push(f64::from(u8::from(self.grads.holds(name))));
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &mut Tensor<B, D>) {
        let any = parts.iter().any(|part| self.grads.holds(&part.name));
        self.held.push(f64::from(u8::from(any)));
    }
}

/// Sums gradients over ranks, tensor by tensor.
struct SumOver<'a, B: Backend> {
    grads: Gradients<B>,
    /// How many ranks have a gradient of each tensor, and the next of them.
    held: Vec<f64>,
    at: usize,
    ranks: &'a Ranks,
    updated: BTreeSet<String>,
    own: BTreeMap<String, Tensor<B, 1>>,
    failed: Option<DeviceError>,
}

impl<B: Kernels> SumOver<'_, B> {
    fn sum<const D: usize>(&mut self, name: &str, stack: &[StackPart], tensor: &Tensor<B, D>) {
        let held = self.held.get(self.at).copied().unwrap_or(0.0);
        self.at += 1;
        if held == 0.0 || self.failed.is_some() {
            return;
        }
        let (len, device) = (tensor.shape().num_elements(), tensor.device());
        let elements = OwnElements::of(len, self.ranks);
        let grad = taken(&mut self.grads, name, stack);
        let dtype = grad.as_ref().map_or(DType::F32, |grad| grad.dtype());
        let all = padded(grad, elements.part * self.ranks.size(), &device, dtype);
        self.updated.insert(name.to_string());
        match B::reduce_scatter(all, self.ranks, GRADIENTS) {
            Ok(part) if !elements.range.is_empty() => {
                let part = part.narrow(0, 0, elements.range.len());
                self.own.insert(name.to_string(), part);
            }
            Ok(_) => {}
            Err(error) => self.failed = Some(error),
        }
    }
}

impl<B: Kernels> ParamVisitor<B> for SumOver<'_, B> {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, _: &[usize], tensor: &mut Tensor<B, D>) {
        self.sum(name, &[], tensor);
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], tensor: &mut Tensor<B, D>) {
        if let Some(first) = parts.first() {
            self.sum(&first.name, parts, tensor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_one_rank() {
        for len in [0, 1, 2, 7, 8, 9, 1000] {
            for size in 1..=9 {
                let all: Vec<usize> = (0..size).flat_map(|rank| OwnElements::of_rank(len, rank, size)).collect();
                assert_eq!(all, (0..len).collect::<Vec<_>>(), "{len} over {size}");
            }
        }
    }
}
