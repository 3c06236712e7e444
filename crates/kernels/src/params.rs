//! Parameters by their Hugging Face name, and the gradients that go with them.
//!
//! Names are the hub's (`visual.` and `model.`): the layout every loader understands, and the key of optimizer state.

use std::collections::BTreeMap;

use burn::tensor::{DType, FloatDType, Int, Tensor, backend::Backend};

use crate::ops::Kernels;

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

impl<B: Kernels> Default for Gradients<B> {
    fn default() -> Self {
        Self::kept_in(DType::F32)
    }
}

impl<B: Kernels> Gradients<B> {
    /// None yet; between additions they are kept in `dtype`.
    pub fn kept_in(dtype: DType) -> Self {
        Self { map: BTreeMap::new(), dtype }
    }

    /// Adds `grad` to what is held under `name`.
    pub fn add<const D: usize>(&mut self, name: &str, grad: Tensor<B, D>) {
        let len = grad.shape().num_elements();
        let grad = grad.reshape([len]);
        // Taking the old value out of the map leaves it uniquely owned, so the addition can run in place.
        let sum = match self.map.remove(name) {
            Some(old) => B::accumulate(old, grad),
            None => cast_to(grad, self.dtype),
        };
        self.map.insert(name.to_string(), sum);
    }

    /// Adds the column sums of `rows [N, d]` to what is held under `name`.
    pub fn add_columns(&mut self, name: &str, rows: Tensor<B, 2>) {
        let zeros = || Tensor::zeros([rows.dims()[1]], (&rows.device(), self.dtype));
        let sum = self.map.remove(name).unwrap_or_else(zeros);
        self.map.insert(name.to_string(), B::accumulate_columns(sum, rows));
    }

    /// Adds `grad [M, d]` to the rows `rows [M]`, which may repeat, of the gradient of a table of `len` elements.
    pub fn add_rows(&mut self, name: &str, len: usize, rows: Tensor<B, 1, Int>, grad: Tensor<B, 2>) {
        let zeros = || Tensor::zeros([len], (&grad.device(), self.dtype));
        let table = self.map.remove(name).unwrap_or_else(zeros);
        self.map.insert(name.to_string(), B::accumulate_rows(table, rows, grad));
    }

    /// The gradient of one parameter, flattened, in the type that they are kept in.
    pub fn get(&self, name: &str) -> Option<&Tensor<B, 1>> {
        self.map.get(name)
    }

    /// Takes one gradient out, in the type that they are kept in.
    pub fn remove(&mut self, name: &str) -> Option<Tensor<B, 1>> {
        self.map.remove(name)
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
        B::squared_norm(self.map.values().cloned().collect(), device)
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
