//! Weight files: named tensors as safetensors, whose values are in the host's memory already, or come from where a
//! backend keeps them when they are written.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{self, File};
use std::path::Path;

use burn::tensor::{DType, Tensor, backend::Backend};
use kernels::finite::first_not_finite;
use kernels::{DeviceError, Kernels, host};
use safetensors::tensor::{Dtype, View};

use crate::ModelError;

/// How the values of a tensor are kept until they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// By the backend's own tensor, read one at a time when they are written. What changes the model afterwards makes
    /// a copy of the tensor, as always where somebody else has it, too.
    Tensors,
    /// As bytes in the host's memory, read now: the device holds nothing for them.
    Bytes,
}

impl Hold {
    /// How to keep what `device` has while training goes on: a processor's own memory is where a copy would lie, too,
    /// and one is made only of what changes before it is written; a device's memory is not to hold anything twice.
    pub fn while_training<B: Kernels>(device: &B::Device) -> Self {
        if B::device_memory(device).is_none() { Self::Tensors } else { Self::Bytes }
    }
}

/// Reads a tensor that a backend keeps.
type ReadTensor = Box<dyn Fn() -> Result<Vec<u8>, DeviceError> + Send + Sync>;

enum Values {
    Bytes(Vec<u8>),
    Kept(ReadTensor),
}

/// A tensor to be written, which nothing changes any more.
pub struct StagedTensor {
    /// Its name in the file.
    name: String,
    dtype: DType,
    /// Its shape in the file.
    shape: Vec<usize>,
    values: Values,
}

impl StagedTensor {
    /// The values of `tensor`, under a name and with a shape of as many elements.
    ///
    /// # Errors
    /// A device that cannot be read.
    pub fn new<B: Backend>(
        name: String,
        tensor: Tensor<B, 1>,
        shape: Vec<usize>,
        hold: Hold,
    ) -> Result<Self, DeviceError> {
        let dtype = tensor.dtype();
        let values = match hold {
            Hold::Tensors => Values::Kept(Box::new(move || host::bytes(tensor.clone()))),
            Hold::Bytes => Values::Bytes(host::bytes(tensor)?),
        };
        Ok(Self { name, dtype, shape, values })
    }

    /// Little-endian values in the host's memory.
    pub fn of_bytes(name: String, bytes: Vec<u8>, dtype: DType, shape: Vec<usize>) -> Self {
        Self { name, dtype, shape, values: Values::Bytes(bytes) }
    }

    /// Bytes of the values.
    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// The bytes as they go to the file, seen to be what the reader takes.
    pub(crate) fn read(&self) -> Result<Cow<'_, [u8]>, ModelError> {
        let bytes = match &self.values {
            Values::Bytes(bytes) => Cow::Borrowed(&bytes[..]),
            Values::Kept(read) => Cow::Owned(read()?),
        };
        match first_not_finite(&bytes, file_type(self.dtype)) {
            Some(found) => Err(ModelError::NotFinite { name: self.name.clone(), found }),
            None => Ok(bytes),
        }
    }
}

/// A tensor on its way to a file. safetensors' writer takes bytes and no errors: the first one waits in `refusal`.
struct OnItsWay<'a> {
    tensor: &'a StagedTensor,
    refusal: &'a RefCell<Option<ModelError>>,
}

impl View for OnItsWay<'_> {
    fn dtype(&self) -> Dtype {
        file_type(self.tensor.dtype)
    }
    fn shape(&self) -> &[usize] {
        &self.tensor.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let nothing = || Cow::Owned(vec![0; self.data_len()]);
        // After a first refusal nothing more is read: the file is thrown away.
        if self.refusal.borrow().is_some() {
            return nothing();
        }
        self.tensor.read().unwrap_or_else(|error| {
            self.refusal.replace(Some(error));
            nothing()
        })
    }
    fn data_len(&self) -> usize {
        self.tensor.len()
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

/// Writes tensors to one safetensors file, as readable as any new file, and syncs it.
///
/// # Errors
/// [`ModelError::NotFinite`] for a tensor that the reader would refuse, [`ModelError::Device`], and anything the file
/// system refuses (a full disk above all), with the path. No file is left then.
pub(crate) fn write_tensors(path: &Path, tensors: &[StagedTensor]) -> Result<(), ModelError> {
    let refusal = RefCell::new(None);
    let views = tensors.iter().map(|tensor| (&tensor.name[..], OnItsWay { tensor, refusal: &refusal }));
    let meta = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let write = || -> Result<(), ModelError> {
        // The writer makes a file that only its owner may read, in the place of this one; another user's server should
        // load it, too.
        let permissions = File::create(path).and_then(|file| file.metadata()).map_err(ModelError::io(path))?;
        let written = safetensors::serialize_to_file(views, Some(meta), path).map_err(|e| match e {
            safetensors::SafeTensorError::IoError(source) => source,
            other => std::io::Error::other(other),
        });
        if let Some(refused) = refusal.take() {
            return Err(refused);
        }
        let synced = written.and_then(|()| {
            fs::set_permissions(path, permissions.permissions())?;
            File::open(path)?.sync_all()
        });
        synced.map_err(ModelError::io(path))
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(path); // its error says nothing that the first does not
    })
}
