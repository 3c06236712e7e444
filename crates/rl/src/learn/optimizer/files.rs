//! The optimizer's state in a checkpoint: whole tensors under the names of their parameters, in one file, or in as many
//! as there were ranks that wrote. Whoever reads takes what is its own, whatever the number of files.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::policy::ModelError;
use ::policy::weights::{HostTensor, write_host_tensors, write_tensors};
use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use comm::deal;
use kernels::finite::first_not_finite;
use kernels::zero::OwnElements;
use kernels::{DeviceError, Kernels, ParamVisitor, Shard, StackPart, host};
use memmap2::Mmap;
use safetensors::SafeTensors;

use super::{AdamW, Moments, State, elements};
use crate::policy::Policy;

impl<B: Kernels> AdamW<B> {
    /// Writes moments, master weights and step counts: alone to `path`, as one of several ranks to a file beside it, in
    /// which a share of the tensors is whole.
    ///
    /// # Errors
    /// [`ModelError::NotFinite`] for state that [`load`](Self::load) would refuse, a device that cannot be read,
    /// anything the file system refuses; a rank that is gone.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        if !self.shards.ranks.is_solo() {
            return self.save_share(path);
        }
        let mut tensors = Vec::new();
        for state in self.state.values() {
            let Some(moments) = &state.moments else { continue };
            let device = moments.m.device();
            for (name, range) in &state.parts {
                let of = |t: &Tensor<B, 1>| t.clone().slice([range.clone()]);
                for (kind, tensor) in moments.named() {
                    tensors.push((format!("{name}.{kind}"), of(tensor), vec![range.len()]));
                }
                let steps = TensorData::new(vec![state.steps as f32], [1]);
                tensors.push((format!("{name}.steps"), Tensor::from_data(steps, (&device, DType::F32)), vec![1]));
            }
        }
        write_tensors(path, tensors)
    }

    /// Gathers each tensor at the rank that writes it.
    fn save_share(&self, path: &Path) -> Result<(), ModelError> {
        let ranks = &self.shards.ranks;
        let sizes: Vec<usize> = self.state.values().map(State::elements).collect();
        let writers = deal::by_cost(&sizes, ranks.size());
        let mut tensors = Vec::new();
        for (state, (len, writer)) in self.state.values().zip(sizes.iter().zip(writers)) {
            // Ranks without an element of it hold none, and do not know what there is: rank 0 always has the first.
            let kinds = state.moments.as_ref().map_or_else(Vec::new, Moments::named);
            let told: Vec<(String, bool)> =
                kinds.iter().map(|(kind, tensor)| (kind.to_string(), tensor.dtype() == DType::BF16)).collect();
            let told = ranks.from_first("optimizer tensors", || told).map_err(DeviceError::from)?;
            for (kind, is_bf16) in told {
                let own = kinds.iter().find(|(own, _)| *own == kind).map(|(_, tensor)| host::bytes((*tensor).clone()));
                let own = own.transpose()?.unwrap_or_default();
                let all = ranks.gather_to("optimizer state", writer, own).map_err(DeviceError::from)?;
                let Some(all) = all else { continue };
                let (bytes, dtype) = (self.shards.joined(all), if is_bf16 { DType::BF16 } else { DType::F32 });
                if bytes.len() != len * dtype.size() {
                    let found = format!("{} bytes of optimizer state came for {len} numbers", bytes.len());
                    return Err(DeviceError(found).into());
                }
                for (name, range) in &state.parts {
                    let bytes = bytes[range.start * dtype.size()..range.end * dtype.size()].to_vec();
                    tensors.push(HostTensor { name: format!("{name}.{kind}"), bytes, dtype, shape: vec![range.len()] });
                }
            }
            if writer == ranks.rank() {
                tensors.extend(state.parts.iter().map(|(name, _)| HostTensor {
                    name: format!("{name}.steps"),
                    bytes: (state.steps as f32).to_le_bytes().to_vec(),
                    dtype: DType::F32,
                    shape: vec![1],
                }));
            }
        }
        write_host_tensors(&share_of(path, ranks.rank(), ranks.size()), tensors)
    }

    /// Reads what [`save`](Self::save) wrote, on however many ranks, replacing all state.
    ///
    /// # Errors
    /// A missing or damaged file, numbers that are not finite, or state that does not belong to `policy`.
    pub fn load<P: Policy<B>>(&mut self, path: &Path, policy: &mut P) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::Damaged { path: path.into(), reason };
        let maps = map_files(path)?;
        let files: Vec<SafeTensors> = maps
            .iter()
            .map(|map| SafeTensors::deserialize(map).map_err(|e| damaged(e.to_string())))
            .collect::<Result<_, _>>()?;
        let mut sizes = BufferSizes(Vec::new());
        policy.visit_params(&mut sizes);
        let device = policy.device();
        let mut state = std::collections::BTreeMap::new();
        let mut found = 0;
        for parts in sizes.0 {
            let len = parts.last().map_or(0, |(_, range)| range.end);
            let own = OwnElements::of(len, &self.shards).range;
            let read: Vec<Option<StoredPart<B>>> = parts
                .iter()
                .map(|(name, range)| {
                    let wanted = own.start.clamp(range.start, range.end)..own.end.clamp(range.start, range.end);
                    let wanted = wanted.start - range.start..wanted.end - range.start;
                    read_part(&files, (name, range.len()), wanted, &device, &damaged)
                })
                .collect::<Result<_, _>>()?;
            let read: Vec<StoredPart<B>> = match read.iter().filter(|part| part.is_some()).count() {
                0 => continue,
                count if count == parts.len() => read.into_iter().flatten().collect(),
                _ => return Err(damaged(format!("it holds the state of some of {} alone", listed(&parts)))),
            };
            found += read.len();
            if read.windows(2).any(|pair| pair[0].steps != pair[1].steps) {
                return Err(damaged(format!("{} are not at the same step", listed(&parts))));
            }
            let Some((name, _)) = parts.first().cloned() else { continue };
            state.insert(name, B::persistent(&device, || together(parts, read)));
            B::release_uploads(&device)?;
        }
        // Parts of stacks, which lie in one tensor now.
        B::memory_cleanup(&device);
        let saved = files.iter().flat_map(|file| file.names()).filter(|n| n.ends_with(".m")).count();
        if saved != found {
            return Err(damaged(format!("it holds the state of {saved} parameters, of which the model has {found}")));
        }
        self.state = state;
        Ok(())
    }
}

impl<B: Backend> State<B> {
    /// Elements of the whole tensor.
    fn elements(&self) -> usize {
        self.parts.last().map_or(0, |(_, range)| range.end)
    }
}

impl<B: Backend> Moments<B> {
    /// By their names in a file.
    fn named(&self) -> Vec<(&'static str, &Tensor<B, 1>)> {
        let master = self.master.as_ref().map(|master| ("master", master));
        [("m", &self.m), ("v", &self.v)].into_iter().chain(master).collect()
    }
}

/// The file beside `path` that rank `rank` of `size` writes: `optimizer-00001-of-00004.safetensors`.
fn share_of(path: &Path, rank: usize, size: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{:05}-of-{size:05}.safetensors", rank + 1))
}

/// `path`, or the shares of it that stand beside it, all of them.
fn map_files(path: &Path) -> Result<Vec<Mmap>, ModelError> {
    let map = |path: &Path| {
        let io = |source| ModelError::Io { path: path.into(), source };
        let file = guard::file::open(path).map_err(io)?;
        // SAFETY: a checkpoint is written under another name and renamed when it is complete; nothing writes to it
        // after that.
        unsafe { Mmap::map(&file) }.map_err(io)
    };
    let first = |size: usize| share_of(path, 0, size).exists();
    let size = match path.exists() {
        true => None,
        // Who has written says how many: the number is in the name of the first share.
        false => sizes_of_shares(path).into_iter().find(|&size| first(size)),
    };
    match size {
        None => Ok(vec![map(path)?]),
        Some(size) => (0..size).map(|rank| map(&share_of(path, rank, size))).collect(),
    }
}

/// The numbers of shares that the names beside `path` speak of.
fn sizes_of_shares(path: &Path) -> Vec<usize> {
    let of_name = |name: &str| name.strip_suffix(".safetensors")?.rsplit_once("-of-")?.1.parse().ok();
    let entries = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    entries.filter_map(|entry| of_name(entry.file_name().to_str()?)).collect()
}

/// Some elements of one parameter's state.
struct StoredPart<B: Backend> {
    moments: Option<Moments<B>>,
    steps: usize,
}

/// Names for a message.
fn listed(parts: &[(String, Range<usize>)]) -> String {
    parts.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>().join(", ")
}

/// The state of a stack from that of its parts, which are at the same step.
fn together<B: Backend>(parts: Vec<(String, Range<usize>)>, read: Vec<StoredPart<B>>) -> State<B> {
    let steps = read.first().map_or(0, |part| part.steps);
    let mut held: Vec<Moments<B>> = read.into_iter().filter_map(|part| part.moments).collect();
    let masters: Option<Vec<_>> = held.iter_mut().map(|part| part.master.take()).collect();
    let (m, v): (Vec<_>, Vec<_>) = held.into_iter().map(|part| (part.m, part.v)).unzip();
    let join = |mut all: Vec<Tensor<B, 1>>| if all.len() == 1 { all.remove(0) } else { Tensor::cat(all, 0) };
    let moments = (!m.is_empty()).then(|| Moments { m: join(m), v: join(v), master: masters.map(join) });
    State { parts, moments, steps }
}

/// The elements `wanted` of the state of one parameter of `len` elements; none if the files have none of it.
fn read_part<B: Kernels>(
    files: &[SafeTensors],
    (name, len): (&str, usize),
    wanted: Range<usize>,
    device: &B::Device,
    damaged: &impl Fn(String) -> ModelError,
) -> Result<Option<StoredPart<B>>, ModelError> {
    let read = |part: &str, len: usize, wanted: Range<usize>| -> Result<Option<Option<Tensor<B, 1>>>, ModelError> {
        let Some(view) = files.iter().find_map(|file| file.tensor(&format!("{name}.{part}")).ok()) else {
            return Ok(None);
        };
        let (dtype, size) = match view.dtype() {
            safetensors::Dtype::BF16 => (DType::BF16, 2),
            safetensors::Dtype::F32 => (DType::F32, 4),
            other => return Err(damaged(format!("{name}.{part} is {other:?}"))),
        };
        if view.data().len() != len * size {
            return Err(damaged(format!("{name}.{part} has {} values, the model {len}", view.data().len() / size)));
        }
        let data = &view.data()[wanted.start * size..wanted.end * size];
        if let Some(found) = first_not_finite(data, view.dtype()) {
            return Err(damaged(format!("{name}.{part} is not finite: {found}")));
        }
        if wanted.is_empty() {
            return Ok(Some(None));
        }
        let data = TensorData::from_bytes_vec(data.to_vec(), [wanted.len()], dtype);
        Ok(Some(Some(B::persistent(device, || Tensor::from_data(data, (device, dtype))))))
    };
    let of = |part: &str| read(part, len, wanted.clone());
    let (m, v, steps) = match (of("m")?, of("v")?, read("steps", 1, 0..1)?.flatten()) {
        (Some(m), Some(v), Some(steps)) => (m, v, steps),
        (None, None, None) => return Ok(None),
        _ => return Err(damaged(format!("a part of the state of {name} is missing"))),
    };
    let steps = host::floats(steps)?.first().map_or(0, |v| *v as usize);
    let master = of("master")?.flatten();
    Ok(Some(StoredPart { moments: m.zip(v).map(|(m, v)| Moments { m, v, master }), steps }))
}

/// The parameters that the model keeps in one tensor each time, and which elements are whose.
struct BufferSizes(Vec<Vec<(String, Range<usize>)>>);

impl<B: Backend> ParamVisitor<B> for BufferSizes {
    fn visit<const D: usize>(&mut self, name: &str, _: &Shard, tensor: &mut Tensor<B, D>) {
        self.0.push(vec![(name.into(), 0..tensor.shape().num_elements())]);
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], _: &[Shard], tensor: &mut Tensor<B, D>) {
        self.0.push(elements(parts, tensor.shape().num_elements()));
    }
}
