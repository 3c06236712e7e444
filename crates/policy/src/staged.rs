//! Files that are to be written: what is in them is fixed, so that they can be written later, by another thread, while
//! the model learns on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, backend::Backend};
use comm::{Ranks, deal};
use serde_json::json;

use crate::companions::write_synced;
use crate::gathered::whole_at;
use crate::weights::{StagedTensor, write_tensors};
use crate::{Hold, ModelError, NamedPart};

/// The weights of a folder that one process writes.
const WHOLE: &str = "model.safetensors";

/// Which tensor is in which file, where there are several.
const INDEX: &str = "model.safetensors.index.json";

/// What a process has to write of a folder.
#[derive(Default)]
pub struct Staged {
    /// By their paths in the folder; tensors come last, so that a small file that cannot be written is known early.
    texts: Vec<(PathBuf, Vec<u8>)>,
    tensors: Vec<(PathBuf, Vec<StagedTensor>)>,
}

impl Staged {
    /// A file of text.
    pub fn text(&mut self, name: &str, bytes: Vec<u8>) {
        self.texts.push((name.into(), bytes));
    }

    /// A file of tensors.
    pub fn tensors(&mut self, name: &str, tensors: Vec<StagedTensor>) {
        self.tensors.push((name.into(), tensors));
    }

    /// The same in a folder of the folder.
    #[must_use]
    pub fn below(mut self, folder: &str) -> Self {
        let texts = self.texts.iter_mut().map(|(name, _)| name);
        texts
            .chain(self.tensors.iter_mut().map(|(name, _)| name))
            .for_each(|name| *name = Path::new(folder).join(&*name));
        self
    }

    /// And these, too.
    pub fn and(&mut self, other: Self) {
        self.texts.extend(other.texts);
        self.tensors.extend(other.tensors);
    }

    /// The files of tensors, by their paths in the folder.
    pub fn tensor_files(&self) -> impl Iterator<Item = &Path> {
        self.tensors.iter().map(|(name, _)| &**name)
    }

    /// Whether all values are what a reader takes.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`]; a device that cannot be read.
    pub fn check(&self) -> Result<(), ModelError> {
        self.tensors.iter().flat_map(|(_, tensors)| tensors).try_for_each(|tensor| tensor.read().map(|_| ()))
    }

    /// Writes the files into `dir`, which is made where it is not there; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for a tensor that no reader would take, [`ModelError::Device`], and anything the file
    /// system refuses, with the path. Files that were written before stay.
    pub fn write(&self, dir: &Path) -> Result<(), ModelError> {
        fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
        let place = |name: &Path| -> Result<PathBuf, ModelError> {
            let path = dir.join(name);
            let folder = path.parent().unwrap_or(dir);
            fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
            Ok(path)
        };
        for (name, bytes) in &self.texts {
            write_synced(&place(name)?, bytes)?;
        }
        for (name, tensors) in &self.tensors {
            write_tensors(&place(name)?, tensors)?;
        }
        Ok(())
    }
}

/// A copy of the model among those that write their files together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelCopy {
    /// Below `count`.
    pub index: usize,
    /// Copies; each is shared out over as many ranks.
    pub count: usize,
}

impl ModelCopy {
    /// The only one, or the one that writes alone.
    pub const ALONE: Self = Self { index: 0, count: 1 };
}

/// The weights of a Hugging Face folder, dealt out by bytes over the ranks that write it: what this rank has. `parts`
/// are the tensors in their order, of which each of `ranks`, those that have this copy of the model together, has a
/// part; all of them call this.
///
/// One process writes `model.safetensors`; several write `model-0000I-of-0000N.safetensors`, and the first of them the
/// index. Every file has whole tensors, each put together in the host's memory of the rank that writes it.
///
/// # Errors
/// [`ModelError::Device`]; ranks that are gone.
pub fn stage_weights<B: Backend>(
    parts: Vec<NamedPart<B>>,
    copy: ModelCopy,
    ranks: &Ranks,
    hold: Hold,
) -> Result<Staged, ModelError> {
    stage_made(parts, copy, ranks, hold, |_, part| part)
}

/// The same with other values: `value` makes them of the part of each tensor, by its name, in its shape and type.
///
/// # Errors
/// As [`stage_weights`].
pub fn stage_made<B: Backend>(
    parts: Vec<NamedPart<B>>,
    copy: ModelCopy,
    ranks: &Ranks,
    hold: Hold,
    value: impl Fn(&str, Tensor<B, 1>) -> Tensor<B, 1>,
) -> Result<Staged, ModelError> {
    let bytes: Vec<usize> =
        parts.iter().map(|(_, part, shard)| shard.shape.iter().product::<usize>() * part.dtype().size()).collect();
    let processes = copy.count * ranks.size();
    let writers = deal::by_cost(&bytes, processes);
    // A process may have no tensor, where there are few.
    let writing: BTreeSet<usize> = writers.iter().copied().collect();
    let file = |writer: usize| match processes {
        1 => WHOLE.to_string(),
        _ => format!("model-{:05}-of-{:05}.safetensors", writing.range(..=writer).count(), writing.len()),
    };
    let mut staged = Staged::default();
    if processes > 1 && copy.index == 0 && ranks.is_first() {
        let names = parts.iter().map(|(name, ..)| name);
        let map: BTreeMap<&String, String> = names.zip(writers.iter().map(|&writer| file(writer))).collect();
        let index = json!({ "metadata": { "total_size": bytes.iter().sum::<usize>() }, "weight_map": map });
        staged.text(INDEX, format!("{index:#}\n").into_bytes());
    }
    let mut own = Vec::new();
    for ((name, part, shard), writer) in parts.into_iter().zip(writers) {
        if writer / ranks.size() != copy.index {
            continue;
        }
        let writer = writer % ranks.size();
        if shard.is_whole() {
            if writer == ranks.rank() {
                let made = value(&name, part);
                own.push(StagedTensor::new(name, made, shard.shape, hold)?);
            }
            continue;
        }
        let dtype = part.dtype();
        if let Some(bytes) = whole_at(writer, kernels::host::bytes(value(&name, part)), &shard, dtype.size(), ranks)? {
            own.push(StagedTensor::of_bytes(name, bytes, dtype, shard.shape));
        }
    }
    let process = copy.index * ranks.size() + ranks.rank();
    if writing.contains(&process) || processes == 1 {
        staged.tensors(&file(process), own);
    }
    Ok(staged)
}
