//! Parameters by their Hugging Face name, and the gradients that go with them.
//!
//! Names are the hub's (`visual.` and `model.`): the layout every loader understands, and the key of optimizer state.

use std::collections::BTreeMap;

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};

/// Something that is shown every parameter of a model in a fixed order: a loader, saver, optimizer, counter.
pub trait ParamVisitor<B: Backend> {
    /// `name` is the hub's tensor name, `shape` the shape in the file (it differs from the tensor's only for the patch
    /// embedding, which is `[hidden, channels, frames, patch, patch]` there and a matrix here).
    fn visit<const D: usize>(&mut self, name: &str, shape: &[usize], tensor: &mut Tensor<B, D>);
}

/// Gradients, flattened, keyed by parameter name; adding twice accumulates. Sums are taken in f32.
#[derive(Debug, Clone)]
pub struct Gradients<B: Backend> {
    map: BTreeMap<String, Tensor<B, 1>>,
    dtype: DType,
}

impl<B: Backend> Default for Gradients<B> {
    fn default() -> Self {
        Self::kept_in(DType::F32)
    }
}

impl<B: Backend> Gradients<B> {
    /// None yet; between additions they are kept in `dtype`.
    pub fn kept_in(dtype: DType) -> Self {
        Self { map: BTreeMap::new(), dtype }
    }

    /// Adds `grad` to what is held under `name`.
    pub fn add<const D: usize>(&mut self, name: &str, grad: Tensor<B, D>) {
        let len = grad.shape().num_elements();
        let grad = to_f32(grad.reshape([len]));
        // Taking the old value out of the map leaves it uniquely owned, so the addition can run in place.
        let sum = match self.map.remove(name) {
            Some(old) => to_f32(old).add(grad),
            None => grad,
        };
        self.map.insert(name.to_string(), cast_to(sum, self.dtype));
    }

    /// The gradient of one parameter, flattened, in the type that they are kept in.
    pub fn get(&self, name: &str) -> Option<&Tensor<B, 1>> {
        self.map.get(name)
    }

    /// Takes one gradient out, in f32.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<B, 1>> {
        self.map.remove(name).map(to_f32)
    }

    /// Whether nothing has been added.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// All names and gradients, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Tensor<B, 1>)> {
        self.map.iter()
    }

    /// Sum of squares over all parameters, `[1]` on the device (its root is the global norm).
    pub fn squared_norm(&self, device: &B::Device) -> Tensor<B, 1> {
        let parts: Vec<_> = self.map.values().map(|g| to_f32(g.clone()).powi_scalar(2).sum()).collect();
        if parts.is_empty() { Tensor::zeros([1], device) } else { Tensor::cat(parts, 0).sum() }
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
