//! Reading a Hugging Face folder: one file or a sharded index, f32 / bf16 / f16, both key layouts.
//!
//! Files are mapped, and one tensor is converted at a time. Everything that does not fit the config becomes one error
//! with a line for each tensor.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, TensorData};
use comm::Ranks;
use guard::limits;
use kernels::finite::first_not_finite;
use kernels::{DeviceError, Kernels};
use memmap2::Mmap;
use policy::ModelError;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use crate::config::QwenVlConfig;
use crate::decoder::LM_HEAD;
use crate::init::ParamSource;
use crate::model::QwenVl;
use crate::tensor::TensorParallel;

/// Problems listed before the rest is only counted.
const LISTED: usize = 20;

struct WeightFile {
    path: PathBuf,
    map: Mmap,
    data: usize,
    meta: Metadata,
}

/// All tensors of a folder by their hub name.
pub(crate) struct Checkpoint {
    files: Vec<WeightFile>,
    /// hub name -> (file, name in it)
    pub(crate) index: BTreeMap<String, (usize, String)>,
}

/// The hub's name of a tensor: transformers 5 writes `model.visual.` and `model.language_model.`.
pub fn hub_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("model.visual.") {
        format!("visual.{rest}")
    } else if let Some(rest) = name.strip_prefix("model.language_model.") {
        format!("model.{rest}")
    } else {
        name.to_string()
    }
}

fn open(path: PathBuf) -> Result<WeightFile, ModelError> {
    let file = match guard::file::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(ModelError::Missing { path, what: "missing weight file; download or copy it again".into() });
        }
        Err(e) => return Err(ModelError::io(path)(e)),
    };
    // SAFETY: the map is read-only and private to this load; a file that is changed meanwhile gives wrong weights, as
    // it would by reading.
    let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(&path))?;
    if map.starts_with(b"version https://git-lfs.github.com/spec/") {
        let what =
            "is a Git LFS pointer, not the weights, which were never fetched; run `git lfs pull` in its repository"
                .into();
        return Err(ModelError::Missing { path, what });
    }
    let damaged = |reason: String| ModelError::Damaged { path: path.clone(), reason: guard::echo(&reason) };
    let (stated, limit) =
        (map.first_chunk().map_or(0, |head| u64::from_le_bytes(*head)), limits().weights_header_bytes);
    if stated > limit.value {
        return Err(damaged(format!("a header of {stated} bytes, the limit is {}; {}", limit.value, limit.raise())));
    }
    let read = guard::caught(|| SafeTensors::read_metadata(&map).map_err(|e| e.to_string()));
    let (header, meta) = read.and_then(|done| done).map_err(damaged)?;
    let data = header + 8;
    Ok(WeightFile { path, map, data, meta })
}

impl Checkpoint {
    fn open(dir: &Path) -> Result<Self, ModelError> {
        let single = dir.join("model.safetensors");
        let index_path = dir.join("model.safetensors.index.json");
        let paths = if single.exists() {
            vec![single]
        } else if index_path.exists() {
            let text = guard::file::read_model_text(dir, "model.safetensors.index.json");
            let text = text.map_err(ModelError::io(&index_path))?;
            let bad = |reason: String| ModelError::Config { path: index_path.clone(), reason };
            let json: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| bad(format!("not valid JSON ({e})")))?;
            let map = json["weight_map"]
                .as_object()
                .ok_or_else(|| bad("weight_map: missing; expected an object of tensor names and files".into()))?;
            let mut files = BTreeSet::new();
            for (tensor, file) in map {
                let file = file
                    .as_str()
                    .ok_or_else(|| bad(format!("weight_map.{}: expected a file name", guard::echo(tensor))))?;
                // A name with a path in it could read outside the folder.
                if Path::new(file).file_name().is_none_or(|n| n != file) {
                    let (tensor, file) = (guard::echo(tensor), guard::echo(file));
                    return Err(bad(format!("weight_map.{tensor}: {file:?} is not a file of this folder")));
                }
                files.insert(dir.join(file));
            }
            files.into_iter().collect()
        } else {
            return Err(ModelError::Missing {
                path: dir.into(),
                what: "has neither model.safetensors nor model.safetensors.index.json; PyTorch .bin files are not read, convert them with transformers' save_pretrained".into(),
            });
        };
        Self::of_files(paths, hub_name)
    }

    /// The tensors of these files by the name that `named` makes of theirs.
    pub(crate) fn of_files(paths: Vec<PathBuf>, named: impl Fn(&str) -> String) -> Result<Self, ModelError> {
        let files = paths.into_iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let mut index = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.meta.tensors().keys() {
                let path = &file.path;
                if let Some((other, twin)) = index.insert(named(name), (i, name.clone())) {
                    let other: &WeightFile = &files[other];
                    return Err(ModelError::Config {
                        path: path.clone(),
                        reason: format!(
                            "{} is there twice, as {} in {} too; which of the two counts is not known, remove one",
                            guard::echo(name),
                            guard::echo(&twin),
                            other.path.display()
                        ),
                    });
                }
            }
        }
        Ok(Self { files, index })
    }
}

/// Takes parameters from a checkpoint and remembers everything that did not fit.
pub(crate) struct FileSource<D> {
    checkpoint: Checkpoint,
    /// What says which shapes are needed.
    needed_by: String,
    used: BTreeSet<String>,
    problems: Vec<String>,
    dtype: DType,
    device: D,
    tensor: TensorParallel,
    /// Bytes handed to the device since the host's copies were freed.
    uploaded: usize,
    /// What the device failed with on the way.
    failed: Option<DeviceError>,
}

/// Bytes of weights that the host holds copies of at one time, and a tensor more.
const UPLOADS: usize = 256 << 20;

impl<D> FileSource<D> {
    pub(crate) fn new(
        checkpoint: Checkpoint,
        needed_by: String,
        dtype: DType,
        device: D,
        tensor: TensorParallel,
    ) -> Self {
        let (used, problems) = (BTreeSet::new(), Vec::new());
        Self { checkpoint, needed_by, used, problems, dtype, device, tensor, uploaded: 0, failed: None }
    }

    /// The problems, none where all tensors were used but those that are `harmless`: one line each for the first, and
    /// how many more.
    pub(crate) fn list(mut self, harmless: impl Fn(&str) -> bool) -> Option<String> {
        for name in self.checkpoint.index.keys() {
            if !self.used.contains(name) && !harmless(name) {
                let name = guard::echo(name);
                self.problems.push(format!("extra      {name}: {} describes no such tensor", self.needed_by));
            }
        }
        if self.problems.is_empty() {
            return None;
        }
        let more = self.problems.len().saturating_sub(LISTED);
        self.problems.truncate(LISTED);
        let mut list = self.problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n");
        if more > 0 {
            list.push_str(&format!("\n  and {more} more"));
        }
        Some(list)
    }

    /// Waits until all is on the device.
    pub(crate) fn uploaded<B: Kernels<Device = D>>(&mut self) -> Result<(), ModelError> {
        // Once for the last batch, and once for the one before.
        for _ in 0..2 {
            self.failed = self.failed.take().or(B::release_uploads(&self.device).err());
        }
        self.failed.take().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Values of one tensor, or of this rank's part of it, in the wanted type, or why not.
    fn read(&self, name: &str, part: &[usize]) -> Result<TensorData, String> {
        let shard = self.tensor.shard(name, part);
        let shape = &shard.shape[..];
        let Some((file, key)) = self.checkpoint.index.get(name) else {
            return Err(format!("missing    {name} {shape:?}"));
        };
        let file = &self.checkpoint.files[*file];
        let Some(info) = file.meta.info(key) else {
            return Err(format!("missing    {name} {shape:?}"));
        };
        let matrix_of_conv = info.shape.len() == 5
            && shape.len() == 2
            && info.shape[0] == shape[0]
            && info.shape[1..].iter().product::<usize>() == shape[1];
        if info.shape != shape && !matrix_of_conv {
            return Err(format!(
                "mis-shaped {name}: the file has {:?}, {} needs {shape:?}",
                info.shape, self.needed_by
            ));
        }
        let (start, end) = info.data_offsets;
        let truncated = || format!("truncated  {name}: {} ends early", file.path.display());
        let whole = file.map.get(file.data + start..file.data + end).ok_or_else(truncated)?;
        // Of a mapped file nothing but this part is read from the disk.
        let bytes = match shard.is_whole() {
            true => Cow::Borrowed(whole),
            false => Cow::Owned(shard.cut(whole, info.dtype.bitsize() / 8).ok_or_else(truncated)?),
        };
        let bytes = &*bytes;
        if let Some(found) = first_not_finite(bytes, info.dtype) {
            return Err(format!("not finite {name}: {found}; the checkpoint is damaged"));
        }
        let shape = part.to_vec();
        let halves = bytes.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]));
        if (info.dtype, self.dtype) == (Dtype::BF16, DType::BF16) {
            return Ok(TensorData::new(halves.collect::<Vec<_>>(), shape));
        }
        let values: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::BF16 => halves.map(half::bf16::to_f32).collect(),
            Dtype::F16 => bytes.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                return Err(format!(
                    "bad type   {name}: {other:?}; expected F32, BF16 or F16 (quantised checkpoints cannot be trained)"
                ));
            }
        };
        Ok(match self.dtype {
            DType::BF16 => TensorData::new(values.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>(), shape),
            DType::F16 => TensorData::new(values.into_iter().map(half::f16::from_f32).collect::<Vec<_>>(), shape),
            _ => TensorData::new(values, shape),
        })
    }
}

impl<B: Kernels> ParamSource<B> for FileSource<B::Device> {
    fn param<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        self.used.insert(name.to_string());
        match self.read(name, &shape) {
            Ok(data) => {
                self.uploaded += data.bytes.len();
                let tensor = Tensor::from_data(data, (&self.device, self.dtype));
                if self.uploaded >= UPLOADS {
                    self.uploaded = 0;
                    self.failed = self.failed.take().or(B::release_uploads(&self.device).err());
                }
                tensor
            }
            Err(problem) => {
                self.problems.push(problem);
                // Never seen, since the load fails; one row, which can be laid below others.
                let mut small = shape;
                small[0] = 1;
                Tensor::zeros(small, (&self.device, self.dtype))
            }
        }
    }
}

impl<B: Kernels> QwenVl<B> {
    /// Loads a Hugging Face folder of any of the [families](crate::config::FAMILIES), converting the weights to `dtype`
    /// (F32, BF16 or F16).
    ///
    /// # Errors
    /// A missing or damaged file, a bad config, one list of every tensor that is missing, left over, mis-shaped or not
    /// finite, or a device that has no room or fails.
    pub fn load(dir: &Path, dtype: DType, device: &B::Device) -> Result<Self, ModelError> {
        Self::load_parallel(dir, dtype, device, &Ranks::solo())
    }

    /// As one of `ranks`, which share the decoder out and all call this: reads the parts of the weights that are this
    /// rank's.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`TensorParallel::new`]. What is damaged may be in one rank's part alone: whoever
    /// gets an error ends the others.
    pub fn load_parallel(dir: &Path, dtype: DType, device: &B::Device, ranks: &Ranks) -> Result<Self, ModelError> {
        let config = QwenVlConfig::from_folder(dir)?;
        let tensor = TensorParallel::new(&config.text, ranks)?;
        config.check_dtype(dtype)?;
        let checkpoint = Checkpoint::open(dir)?;
        let tied = config.text.tie_word_embeddings;
        let mut source = FileSource::new(checkpoint, "config.json".into(), dtype, device.clone(), tensor.clone());
        let model = Self::build_on(config, &mut source, tensor, device);
        source.uploaded::<B>()?;
        // Old files carry the head next to the embedding it is tied to, and rotary tables that are computed here.
        let harmless = |name: &str| (tied && name == LM_HEAD) || name.ends_with("rotary_emb.inv_freq");
        match source.list(harmless) {
            None => Ok(model),
            Some(list) => Err(ModelError::Weights { path: dir.into(), list }),
        }
    }
}

/// The end-of-response ids of a folder: all of `generation_config.json`'s `eos_token_id`, then those of `config.json`
/// that are not among them. A response ends at whichever comes first: published folders name different ones in the two
/// files. Empty where neither names any.
///
/// # Errors
/// A `generation_config.json` that is not JSON, or an id that the model has no embedding for.
pub fn eos_token_ids(dir: &Path, config: &QwenVlConfig) -> Result<Vec<u32>, ModelError> {
    let path = dir.join("generation_config.json");
    let mut ids = match guard::file::read_model_text(dir, "generation_config.json") {
        Ok(text) => {
            let json: serde_json::Value = serde_json::from_str(&text)
                .map_err(|e| ModelError::Config { path: path.clone(), reason: format!("not valid JSON ({e})") })?;
            let ids = json.get("eos_token_id").map_or(Ok(Vec::new()), crate::config::token_ids);
            ids.map_err(|e| ModelError::Config { path: path.clone(), reason: format!("eos_token_id: {e}") })?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(ModelError::io(path)(e)),
    };
    for id in &config.eos_token_ids {
        // What is no token cannot be sampled, so that it does no harm beside one that is.
        let counts = ids.is_empty() || (*id as usize) < config.text.vocab_size;
        if counts && !ids.contains(id) {
            ids.push(*id);
        }
    }
    match ids.iter().find(|&&id| id as usize >= config.text.vocab_size) {
        Some(id) => Err(ModelError::Config {
            path,
            reason: format!("eos_token_id {id} is outside the vocabulary of {}", config.text.vocab_size),
        }),
        None => Ok(ids),
    }
}
