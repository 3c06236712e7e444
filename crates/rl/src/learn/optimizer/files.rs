//! The optimizer's state in a checkpoint: whole tensors under the names of their parameters, in one file, or in as many
//! as there were ranks that wrote. Whoever reads takes what is its own, whatever the number of files.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::policy::{Hold, ModelError, Staged, StagedTensor, whole_at};
use burn::tensor::{DType, Tensor, TensorData, backend::Backend};
use comm::deal;
use kernels::finite::first_not_finite;
use kernels::zero::OwnElements;
use kernels::{DeviceError, Kernels, ParamVisitor, Shard, StackPart, host};
use memmap2::Mmap;
use safetensors::SafeTensors;

use super::{AdamW, Moments, State, StatePart, elements};
use crate::policy::Policy;

impl<B: Kernels> AdamW<B> {
    /// What this rank has to write of the optimizer's state, moments, master weights and step counts, which no later
    /// step changes: alone the file `name`, of several ranks a file of a like name, in which a share of the tensors is
    /// whole. All ranks call this.
    ///
    /// # Errors
    /// A device that cannot be read; a rank that is gone.
    pub fn stage(&self, name: &str, hold: Hold) -> Result<Staged, ModelError> {
        let mut staged = Staged::default();
        if !self.layout.is_solo() {
            let (rank, size) = self.writer();
            staged.tensors(&share_of(Path::new(name), rank, size).to_string_lossy(), self.stage_share()?);
            return Ok(staged);
        }
        let mut tensors = Vec::new();
        for state in self.state.values() {
            let Some(moments) = &state.moments else { continue };
            for part in &state.parts {
                for (kind, tensor) in moments.named() {
                    let (name, range) = (format!("{}.{kind}", part.name), part.range.clone());
                    let shape = vec![range.len()];
                    tensors.push(StagedTensor::new(name, tensor.clone().slice([range]), shape, hold)?);
                }
                tensors.push(state.staged_steps(part));
            }
        }
        staged.tensors(name, tensors);
        Ok(staged)
    }

    /// Writes to `path`, of several ranks to files beside it, what [`stage`](Self::stage) gives.
    ///
    /// # Errors
    /// As there; [`ModelError::NotFinite`] for state that [`load`](Self::load) would refuse, anything the file system
    /// refuses.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.stage(&name, Hold::Tensors)?.write(path.parent().unwrap_or(Path::new("")))
    }

    /// This rank among all that write, and how many these are: the ranks of a copy of the model are neighbours.
    fn writer(&self) -> (usize, usize) {
        let (ranks, tensor) = (&self.layout.ranks, &self.layout.tensor);
        (ranks.rank() * tensor.size() + tensor.rank(), ranks.size() * tensor.size())
    }

    /// Gathers each tensor at the rank that writes it: from the ranks with the same part of it first, and then, where
    /// it is shared out, from those that have its other parts.
    fn stage_share(&self) -> Result<Vec<StagedTensor>, ModelError> {
        let (ranks, tensor) = (&self.layout.ranks, &self.layout.tensor);
        let (own, size) = self.writer();
        let sizes: Vec<usize> = self.state.values().map(State::whole_elements).collect();
        let writers = deal::by_cost(&sizes, size);
        let mut tensors = Vec::new();
        for (state, writer) in self.state.values().zip(writers) {
            let (copy, place) = (writer / tensor.size(), writer % tensor.size());
            // Ranks without an element of it hold none, and do not know what there is: rank 0 always has the first.
            let kinds = state.moments.as_ref().map_or_else(Vec::new, Moments::named);
            let told: Vec<(String, bool)> =
                kinds.iter().map(|(kind, tensor)| (kind.to_string(), tensor.dtype() == DType::BF16)).collect();
            let told = ranks.from_first("optimizer tensors", || told).map_err(DeviceError::from)?;
            for (kind, is_bf16) in told {
                let mine = kinds.iter().find(|(own, _)| *own == kind).map(|(_, tensor)| host::bytes((*tensor).clone()));
                let mine = mine.transpose()?.unwrap_or_default();
                let all = ranks.gather_to("optimizer state", copy, mine).map_err(DeviceError::from)?;
                let Some(all) = all else { continue };
                let (bytes, dtype) = (self.layout.joined(all), if is_bf16 { DType::BF16 } else { DType::F32 });
                if bytes.len() != state.elements() * dtype.size() {
                    let found = format!("{} bytes of optimizer state came for {}", bytes.len(), listed(&state.parts));
                    return Err(DeviceError(found).into());
                }
                for part in &state.parts {
                    let bytes = bytes[part.range.start * dtype.size()..part.range.end * dtype.size()].to_vec();
                    if let Some(bytes) = whole_at(place, Ok(bytes), &part.shard, dtype.size(), tensor)? {
                        let shape = vec![bytes.len() / dtype.size()];
                        tensors.push(StagedTensor::of_bytes(format!("{}.{kind}", part.name), bytes, dtype, shape));
                    }
                }
            }
            if writer == own {
                tensors.extend(state.parts.iter().map(|part| state.staged_steps(part)));
            }
        }
        Ok(tensors)
    }

    /// Reads what [`save`](Self::save) wrote, on however many ranks, replacing all state.
    ///
    /// # Errors
    /// A missing or damaged file, numbers that are not finite, or state that does not belong to `policy`.
    pub fn load<P: Policy<B>>(&mut self, path: &Path, policy: &mut P) -> Result<(), ModelError> {
        let damaged = |reason: String| ModelError::Damaged { path: path.into(), reason };
        let maps = map_files(path)?;
        let files: Vec<StateFile> = maps
            .iter()
            .map(|map| Ok((SafeTensors::deserialize(map).map_err(|e| damaged(e.to_string()))?, map)))
            .collect::<Result<_, ModelError>>()?;
        let mut sizes = BufferSizes(Vec::new());
        policy.visit_params(&mut sizes);
        let device = policy.device();
        let mut state = std::collections::BTreeMap::new();
        let mut found = 0;
        for parts in sizes.0 {
            let len = parts.last().map_or(0, |part| part.range.end);
            let own = OwnElements::of(len, &self.layout).range;
            let read: Vec<Option<StoredPart<B>>> = parts
                .iter()
                .map(|part| {
                    let range = &part.range;
                    let wanted = own.start.clamp(range.start, range.end)..own.end.clamp(range.start, range.end);
                    let wanted = wanted.start - range.start..wanted.end - range.start;
                    read_part(&files, part, wanted, &device, &damaged)
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
            let Some(name) = parts.first().map(|part| part.name.clone()) else { continue };
            state.insert(name, B::persistent(&device, || together(parts, read)));
            B::release_uploads(&device)?;
        }
        // Parts of stacks, which lie in one tensor now.
        B::memory_cleanup(&device);
        let saved = files.iter().flat_map(|(file, _)| file.names()).filter(|n| n.ends_with(".m")).count();
        if saved != found {
            return Err(damaged(format!("it holds the state of {saved} parameters, of which the model has {found}")));
        }
        self.state = state;
        Ok(())
    }
}

impl<B: Backend> State<B> {
    /// Elements of the tensor, or of this rank's part of it where the ranks of a copy of the model share it out.
    fn elements(&self) -> usize {
        self.parts.last().map_or(0, |part| part.range.end)
    }

    /// Elements of all parts of the tensor: the same number on every rank.
    fn whole_elements(&self) -> usize {
        self.parts.iter().map(|part| part.shard.shape.iter().product::<usize>()).sum()
    }

    /// How many updates there were, as a file has it with each parameter.
    fn staged_steps(&self, part: &StatePart) -> StagedTensor {
        let bytes = (self.steps as f32).to_le_bytes().to_vec();
        StagedTensor::of_bytes(format!("{}.steps", part.name), bytes, DType::F32, vec![1])
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

/// A file of the optimizer's state, and where it lies in memory.
type StateFile<'a> = (SafeTensors<'a>, &'a Mmap);

/// What was read of a file counts as this process's memory until it is let go: a resume would hold all state twice.
fn let_go(map: &Mmap, read: &[u8]) {
    #[cfg(unix)]
    {
        let offset = read.as_ptr() as usize - map.as_ptr() as usize;
        // SAFETY: the map is of a file and nothing writes to it, so that pages which are dropped come back from there
        // as they were. An error would say that they were not dropped, which changes no value.
        let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, read.len()) };
    }
    #[cfg(not(unix))]
    let _ = (map, read);
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
fn listed(parts: &[StatePart]) -> String {
    parts.iter().map(|part| &part.name[..]).collect::<Vec<_>>().join(", ")
}

/// The state of a stack from that of its parts, which are at the same step.
fn together<B: Backend>(parts: Vec<StatePart>, read: Vec<StoredPart<B>>) -> State<B> {
    let steps = read.first().map_or(0, |part| part.steps);
    let mut held: Vec<Moments<B>> = read.into_iter().filter_map(|part| part.moments).collect();
    let masters: Option<Vec<_>> = held.iter_mut().map(|part| part.master.take()).collect();
    let (m, v): (Vec<_>, Vec<_>) = held.into_iter().map(|part| (part.m, part.v)).unzip();
    let join = |mut all: Vec<Tensor<B, 1>>| if all.len() == 1 { all.remove(0) } else { Tensor::cat(all, 0) };
    let moments = (!m.is_empty()).then(|| Moments { m: join(m), v: join(v), master: masters.map(join) });
    State { parts, moments, steps }
}

/// The elements `wanted` of this rank's part of a parameter, as places in the whole.
fn places(shard: &Shard, wanted: Range<usize>) -> Vec<Range<usize>> {
    let mut at = 0;
    let mut found = Vec::new();
    for range in shard.elements() {
        let (start, end) = (at.max(wanted.start), (at + range.len()).min(wanted.end));
        if start < end {
            found.push(range.start + start - at..range.start + end - at);
        }
        at += range.len();
    }
    found
}

/// The elements `wanted` of the state of one parameter; none if the files have none of it.
fn read_part<B: Kernels>(
    files: &[StateFile],
    part: &StatePart,
    wanted: Range<usize>,
    device: &B::Device,
    damaged: &impl Fn(String) -> ModelError,
) -> Result<Option<StoredPart<B>>, ModelError> {
    let name = &part.name;
    let read = |kind: &str, len: usize, wanted: &[Range<usize>]| -> Result<Option<Option<Tensor<B, 1>>>, ModelError> {
        let key = format!("{name}.{kind}");
        let Some((view, map)) = files.iter().find_map(|(file, map)| Some((file.tensor(&key).ok()?, *map))) else {
            return Ok(None);
        };
        let (dtype, size) = match view.dtype() {
            safetensors::Dtype::BF16 => (DType::BF16, 2),
            safetensors::Dtype::F32 => (DType::F32, 4),
            other => return Err(damaged(format!("{name}.{kind} is {other:?}"))),
        };
        if view.data().len() != len * size {
            return Err(damaged(format!("{name}.{kind} has {} values, the model {len}", view.data().len() / size)));
        }
        let mut data = Vec::with_capacity(wanted.iter().map(|range| range.len() * size).sum());
        wanted.iter().for_each(|range| data.extend_from_slice(&view.data()[range.start * size..range.end * size]));
        let_go(map, view.data());
        if let Some(found) = first_not_finite(&data, view.dtype()) {
            return Err(damaged(format!("{name}.{kind} is not finite: {found}")));
        }
        if data.is_empty() {
            return Ok(Some(None));
        }
        let shape = [data.len() / size];
        let data = TensorData::from_bytes_vec(data, shape, dtype);
        Ok(Some(Some(B::persistent(device, || Tensor::from_data(data, (device, dtype))))))
    };
    let (len, wanted) = (part.shard.shape.iter().product(), places(&part.shard, wanted));
    let of = |kind: &str| read(kind, len, &wanted);
    let (m, v, steps) = match (of("m")?, of("v")?, read("steps", 1, std::slice::from_ref(&(0..1)))?.flatten()) {
        (Some(m), Some(v), Some(steps)) => (m, v, steps),
        (None, None, None) => return Ok(None),
        _ => return Err(damaged(format!("a part of the state of {name} is missing"))),
    };
    let steps = host::floats(steps)?.first().map_or(0, |v| *v as usize);
    let master = of("master")?.flatten();
    Ok(Some(StoredPart { moments: m.zip(v).map(|(m, v)| Moments { m, v, master }), steps }))
}

/// The parameters that the model keeps in one tensor each time.
struct BufferSizes(Vec<Vec<StatePart>>);

impl<B: Backend> ParamVisitor<B> for BufferSizes {
    const REPLACES: bool = false;

    fn visit<const D: usize>(&mut self, name: &str, shard: &Shard, tensor: &mut Tensor<B, D>) {
        let range = 0..tensor.shape().num_elements();
        self.0.push(vec![StatePart { name: name.into(), range, shard: shard.clone() }]);
    }

    fn visit_stack<const D: usize>(&mut self, parts: &[StackPart], shards: &[Shard], tensor: &mut Tensor<B, D>) {
        self.0.push(elements(parts, shards, tensor.shape().num_elements()));
    }
}
