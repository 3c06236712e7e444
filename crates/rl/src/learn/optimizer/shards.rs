//! The gradients that a rank updates by: in ZeRO-1 they come to it here, in ZeRO-2 they have come during the backward.
//!
//! A step moves each gradient (a reduce-scatter in f32, in ZeRO-2 one a pass) and each parameter once (an all-gather in
//! the parameter's own type).

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::params::SummedOver;
use kernels::zero::{GradientList, OwnElements, OwnSums, Reduced, Shards, padded};
use kernels::{DeviceError, Gradients, Kernels, StackPart};

use crate::policy::Policy;

/// The calls that move parameters.
pub(crate) const PARAMETERS: &str = "parameters";

/// Gradients of the elements that this rank updates.
pub(super) enum OwnGradients<B: Backend> {
    /// All of them.
    All(Gradients<B>),
    /// Of several ranks, summed.
    Part(OwnSums<B>),
}

/// The tensors of `policy`.
pub(super) fn list<B: Kernels, P: Policy<B>>(policy: &mut P) -> GradientList {
    let mut list = GradientList::default();
    policy.visit_params(&mut list);
    list
}

impl<B: Kernels> OwnGradients<B> {
    /// From each rank's gradients.
    ///
    /// # Errors
    /// A device that cannot be read; a rank that is gone.
    pub(super) fn of<P: Policy<B>>(
        policy: &mut P,
        mut grads: Gradients<B>,
        shards: &Shards,
    ) -> Result<Self, DeviceError> {
        if let Some(sums) = grads.take_sums() {
            return Ok(Self::Part(sums.take()?));
        }
        if shards.ranks.is_solo() {
            return Ok(Self::All(grads));
        }
        // One round over whole gradients.
        let mut whole = grads.summed(SummedOver::Parts(Reduced::new(shards, &policy.device(), list(policy))));
        whole.end_pass();
        match whole.take_sums() {
            Some(sums) => Ok(Self::Part(sums.take()?)),
            None => Err(DeviceError("gradients were not summed over ranks".into())),
        }
    }

    /// The sum of squares over all ranks, from `own`, that of this rank's.
    ///
    /// # Errors
    /// A rank that is gone.
    pub(super) fn squared_over(&self, own: f64, shards: &Shards) -> Result<f64, DeviceError> {
        if let Self::Part(OwnSums { squared: Some(squared), .. }) = self {
            return Ok(*squared);
        }
        let mut squared = [own];
        shards.ranks.sum("gradient norm", &mut squared)?;
        Ok(squared[0])
    }

    /// Sum of squares `[1]` of this rank's.
    pub(super) fn squared_norm(&self, device: &B::Device) -> Tensor<B, 1> {
        match self {
            Self::All(grads) => grads.squared_norm(device),
            Self::Part(sums) => B::squared_norm(sums.own.values().cloned().collect(), device),
        }
    }

    /// Takes the gradient of a tensor out, which may be a stack: none if no rank has one, none within if no element is
    /// this rank's.
    pub(super) fn take(&mut self, name: &str, stack: &[StackPart]) -> Option<Option<Tensor<B, 1>>> {
        match self {
            Self::All(grads) if stack.is_empty() => grads.remove(name).map(Some),
            Self::All(grads) => grads.remove_stack(stack).map(Some),
            Self::Part(sums) => sums.updated.contains(name).then(|| sums.own.remove(name)),
        }
    }
}

/// The whole tensor from this rank's part of it, none where it has none, and from those of the others.
///
/// # Errors
/// A device that cannot be read; a rank that is gone.
pub(super) fn complete<B: Kernels>(
    elements: &OwnElements,
    own: Option<Tensor<B, 1>>,
    (device, dtype): (&B::Device, DType),
    shards: &Shards,
) -> Result<Tensor<B, 1>, DeviceError> {
    match own {
        Some(own) if shards.ranks.is_solo() => Ok(own),
        own => {
            let own = padded(own, elements.part, device, dtype);
            Ok(shards.all_gather::<B>(own, PARAMETERS)?.narrow(0, 0, elements.len))
        }
    }
}
