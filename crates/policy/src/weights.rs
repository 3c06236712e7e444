//! Weight files: named tensors as safetensors, each read from the device when it is written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{self, File};
use std::path::Path;
use std::rc::Rc;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::finite::first_not_finite;
use kernels::host;
use safetensors::tensor::{Dtype, View};

use crate::ModelError;

/// The first thing that went wrong while a file was written: safetensors' writer takes bytes from a tensor and no
/// errors.
type Refusal = Rc<RefCell<Option<ModelError>>>;

/// A tensor whose bytes are made when they are written, so that one at a time is in memory.
pub(crate) struct Lazy<'a> {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: Box<dyn Fn() -> Result<Vec<u8>, ModelError> + 'a>,
    refusal: Refusal,
}

impl<'a> Lazy<'a> {
    pub(crate) fn new(
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        bytes: impl Fn() -> Result<Vec<u8>, ModelError> + 'a,
    ) -> Self {
        Self { name, dtype, shape, bytes: Box::new(bytes), refusal: Refusal::default() }
    }

    /// The bytes as they go to the file, seen to be what the reader takes.
    fn read(&self) -> Result<Vec<u8>, ModelError> {
        let bytes = (self.bytes)()?;
        match first_not_finite(&bytes, self.dtype()) {
            Some(found) => Err(ModelError::NotFinite { name: self.name.clone(), found }),
            None => Ok(bytes),
        }
    }
}

impl View for Lazy<'_> {
    fn dtype(&self) -> Dtype {
        file_type(self.dtype)
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // After a first refusal nothing more is read: the file is thrown away.
        let refused = self.refusal.borrow().is_some();
        let bytes = if refused { Ok(vec![0; self.data_len()]) } else { self.read() };
        Cow::Owned(bytes.unwrap_or_else(|error| {
            self.refusal.replace(Some(error));
            vec![0; self.data_len()]
        }))
    }
    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// A tensor in the host's memory, to be written.
#[derive(Debug)]
pub struct HostTensor {
    /// Its name in the file.
    pub name: String,
    /// Its values, little-endian.
    pub bytes: Vec<u8>,
    /// Their type.
    pub dtype: DType,
    /// Its shape in the file.
    pub shape: Vec<usize>,
}

impl View for &HostTensor {
    fn dtype(&self) -> Dtype {
        file_type(self.dtype)
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn file_type(dtype: DType) -> Dtype {
    match dtype {
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        DType::F64 => Dtype::F64,
        _ => Dtype::F32,
    }
}

/// As [`write_tensors`], from the host's memory.
///
/// # Errors
/// [`ModelError::NotFinite`] for a tensor that the reader would refuse; anything the file system refuses, with the path.
/// No file is left then.
pub fn write_host_tensors(path: &Path, tensors: Vec<HostTensor>) -> Result<(), ModelError> {
    for tensor in &tensors {
        if let Some(found) = first_not_finite(&tensor.bytes, file_type(tensor.dtype)) {
            return Err(ModelError::NotFinite { name: tensor.name.clone(), found });
        }
    }
    write_views(path, tensors.iter().map(|tensor| (tensor.name.clone(), tensor)).collect(), &Refusal::default())
}

/// A tensor to write: its name in the file, its values in one row, its shape there.
pub type Named<B> = (String, Tensor<B, 1>, Vec<usize>);

/// Writes named flat tensors to one safetensors file and syncs it.
///
/// # Errors
/// [`ModelError::NotFinite`] for a tensor that the reader would refuse, [`ModelError::Device`], and anything the file
/// system refuses (a full disk above all), with the path. No file is left then.
pub fn write_tensors<B: Backend>(path: &Path, tensors: Vec<Named<B>>) -> Result<(), ModelError> {
    let lazy = tensors.into_iter().map(|(name, tensor, shape)| {
        let dtype = tensor.dtype();
        Lazy::new(name, dtype, shape, move || Ok(host::bytes(tensor.clone())?))
    });
    write_lazy(path, lazy.collect())
}

/// Writes tensors to one safetensors file and syncs it; no file is left where that fails.
pub(crate) fn write_lazy(path: &Path, mut tensors: Vec<Lazy>) -> Result<(), ModelError> {
    let refusal = Refusal::default();
    tensors.iter_mut().for_each(|lazy| lazy.refusal = refusal.clone());
    let named = tensors.into_iter().map(|lazy| (lazy.name.clone(), lazy));
    write_views(path, named.collect(), &refusal)
}

/// Writes a file and syncs it, unless something was refused on the way.
fn write_views<V: View>(path: &Path, views: Vec<(String, V)>, refusal: &Refusal) -> Result<(), ModelError> {
    let meta = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let written = safetensors::serialize_to_file(views, Some(meta), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => ModelError::Io { path: path.into(), source },
        other => ModelError::Io { path: path.into(), source: std::io::Error::other(other) },
    });
    let refused = refusal.take();
    let result = match refused {
        Some(error) => Err(error),
        None => written.and_then(|()| File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))),
    };
    if result.is_err() {
        let _ = fs::remove_file(path); // its error says nothing that the first does not
    }
    result
}
