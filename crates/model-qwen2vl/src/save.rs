//! Writing a folder that transformers and vLLM load as it is: the hub's tensor names, the config as it was read, and the
//! tokenizer files of the folder the model came from.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use burn::tensor::{DType, Tensor, backend::Backend};
use safetensors::tensor::{Dtype, View};
use serde_json::{Value, json};

use crate::config::Family;
use crate::error::ModelError;
use crate::finite::first_not_finite;
use crate::host;
use crate::model::QwenVl;
use crate::ops::Kernels;
use crate::params::ParamVisitor;

/// The first thing that went wrong while a file was written: safetensors' writer takes bytes from a tensor and no errors.
type Refusal = Rc<RefCell<Option<ModelError>>>;

/// A tensor that is read from the device when it is written, so that one at a time is in memory.
struct Lazy<B: Backend> {
    name: String,
    tensor: Tensor<B, 1>,
    shape: Vec<usize>,
    refusal: Refusal,
}

impl<B: Backend> Lazy<B> {
    /// The bytes as they go to the file, seen to be what the reader takes.
    fn read(&self) -> Result<Vec<u8>, ModelError> {
        let bytes = host::bytes(self.tensor.clone())?;
        match first_not_finite(&bytes, self.dtype()) {
            Some(found) => Err(ModelError::NotFinite { name: self.name.clone(), found }),
            None => Ok(bytes),
        }
    }
}

impl<B: Backend> View for Lazy<B> {
    fn dtype(&self) -> Dtype {
        match self.tensor.dtype() {
            DType::BF16 => Dtype::BF16,
            DType::F16 => Dtype::F16,
            DType::F64 => Dtype::F64,
            _ => Dtype::F32,
        }
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
        self.tensor.shape().num_elements() * self.tensor.dtype().size()
    }
}

/// A tensor to write: its name in the file, its values in one row, its shape there.
pub type Named<B> = (String, Tensor<B, 1>, Vec<usize>);

/// All tensors under their names in files of the family.
struct Collect<B: Backend>(&'static Family, Vec<Named<B>>);

impl<B: Backend> ParamVisitor<B> for Collect<B> {
    fn visit<const D: usize>(&mut self, name: &str, shape: &[usize], tensor: &mut Tensor<B, D>) {
        let len = tensor.shape().num_elements();
        self.1.push((self.0.file_name(name), tensor.clone().reshape([len]), shape.to_vec()));
    }
}

/// Files of a model folder that are not weights and are carried along.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
];

/// What a saved folder needs besides weights and `config.json`: tokenizer, processor, templates, generation settings. They are read
/// once, when a run starts, and written from memory, so that a folder that is moved, edited or removed meanwhile changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Companions(Vec<(&'static str, Vec<u8>)>);

impl Companions {
    /// Reads those that `folder` has.
    ///
    /// # Errors
    /// A file that is there and cannot be read: no regular file, larger than its kind may be, or a link that leaves the folder.
    pub fn read(folder: &Path) -> Result<Self, ModelError> {
        let mut files = Vec::new();
        for name in COMPANIONS {
            // A link could bring in any file of the user; the guard follows only those that are the folder's own.
            match guard::file::read_model_file(folder, name) {
                Ok(bytes) => files.push((*name, bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(ModelError::io(&folder.join(name))(e)),
            }
        }
        Ok(Self(files))
    }

    /// Replaces what `revise` gives another content for.
    ///
    /// # Errors
    /// The first error of `revise`.
    pub fn revise<E>(&mut self, revise: impl Fn(&str, &[u8]) -> Result<Option<Vec<u8>>, E>) -> Result<(), E> {
        for (name, bytes) in &mut self.0 {
            if let Some(revised) = revise(name, bytes)? {
                *bytes = revised;
            }
        }
        Ok(())
    }

    /// Names and contents.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, &bytes[..]))
    }

    /// The content of one file, if the folder had it.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files().find(|(own, _)| *own == name).map(|(_, bytes)| bytes)
    }

    fn write(&self, dir: &Path) -> Result<(), ModelError> {
        self.files().try_for_each(|(name, bytes)| write_synced(&dir.join(name), bytes))
    }
}

/// Writes a file and waits until the disk has it.
fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(ModelError::io(path))
}

/// Writes named flat tensors to one safetensors file and syncs it.
///
/// # Errors
/// [`ModelError::NotFinite`] for a tensor that the reader would refuse, [`ModelError::Device`], and anything the file system refuses (a
/// full disk above all), with the path. No file is left then.
pub fn write_tensors<B: Backend>(path: &Path, tensors: Vec<Named<B>>) -> Result<(), ModelError> {
    let refusal = Refusal::default();
    let lazy: Vec<(String, Lazy<B>)> = tensors
        .into_iter()
        .map(|(name, tensor, shape)| (name.clone(), Lazy { name, tensor, shape, refusal: refusal.clone() }))
        .collect();
    let meta = std::collections::HashMap::from([("format".to_string(), "pt".to_string())]);
    let written = safetensors::serialize_to_file(lazy, Some(meta), path).map_err(|e| match e {
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

impl<B: Kernels> QwenVl<B> {
    /// Writes `config.json`, `model.safetensors` and the tokenizer and processor files of `companions` into `dir` (created); every file
    /// is on the disk when this returns.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for weights that could not be loaded again, [`ModelError::Device`], and anything the file system
    /// refuses, with the path.
    pub fn save(&self, dir: &Path, companions: Option<&Companions>) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        if let Some(companions) = companions {
            companions.write(dir)?;
        }
        let mut collect = Collect(self.config.family, Vec::new());
        self.clone().visit(&mut collect);
        let dtype = match self.head().0.dtype() {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let mut raw = self.config.raw.clone();
        set_dtype(&mut raw, dtype);
        let path = dir.join("config.json");
        write_synced(&path, format!("{raw:#}\n").as_bytes())?;
        let weights = dir.join("model.safetensors");
        write_tensors(&weights, collect.1)?;
        // The writer makes a file that only its owner may read; another user's server should load the folder, too.
        let permissions = fs::metadata(&path).map_err(ModelError::io(&path))?.permissions();
        fs::set_permissions(&weights, permissions).map_err(ModelError::io(&weights))
    }
}

/// transformers casts to the type that the config names, so it must be the file's.
fn set_dtype(raw: &mut Value, dtype: &str) {
    let Value::Object(map) = raw else { return };
    let mut found = false;
    for key in ["dtype", "torch_dtype"] {
        if let Some(value) = map.get_mut(key) {
            *value = json!(dtype);
            found = true;
        }
    }
    for key in ["text_config", "vision_config"] {
        if let Some(Value::Object(inner)) = map.get_mut(key) {
            for key in ["dtype", "torch_dtype"] {
                if let Some(value) = inner.get_mut(key) {
                    *value = json!(dtype);
                }
            }
        }
    }
    if !found {
        map.insert("torch_dtype".into(), json!(dtype));
    }
}
