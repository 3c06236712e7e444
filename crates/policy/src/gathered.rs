//! Writing tensors that ranks share out: each is put together in the memory of the first rank when it is written, so
//! that one at a time is there.

use std::path::Path;

use burn::tensor::{Tensor, backend::Backend};
use comm::Ranks;
use kernels::{DeviceError, Shard, host};

use crate::ModelError;
use crate::weights::{Lazy, write_lazy};

/// A tensor to write: its name in the file, this rank's part of it in one row, and which part that is.
pub type NamedPart<B> = (String, Tensor<B, 1>, Shard);

/// What a rank says of its part before it gives it: axis, range and whether it counts; or why it has none.
type Offer = Result<(usize, [usize; 2], bool), String>;

/// Writes the whole of tensors of which each of `ranks` has a part to one safetensors file. All ranks call this with
/// the same names in the same order; the first writes. What is whole on all ranks is read on the first alone.
///
/// # Errors
/// As [`write_tensors`](crate::weights::write_tensors), on all ranks; and ranks that are gone.
pub fn write_gathered<B: Backend>(path: &Path, parts: &[NamedPart<B>], ranks: &Ranks) -> Result<(), ModelError> {
    write_made(path, parts, ranks, |i| parts[i].1.clone())
}

/// The same with other values: `value(i)` makes those of the `i`-th part, of its shape and type, when it is written.
///
/// # Errors
/// As [`write_gathered`].
pub fn write_made<B: Backend>(
    path: &Path,
    parts: &[NamedPart<B>],
    ranks: &Ranks,
    value: impl Fn(usize) -> Tensor<B, 1>,
) -> Result<(), ModelError> {
    let value = &value;
    let written = match ranks.is_first() {
        true => Some({
            let lazy = parts.iter().enumerate().map(|(i, (name, tensor, shard))| {
                let bytes = move || match shard.is_whole() {
                    true => Ok(host::bytes(value(i))?),
                    // The file's order is its writer's, so the others are told what comes next.
                    false => {
                        ranks.from_first("tensor to write", || Some(i))?;
                        gather(&value(i), shard, ranks)
                    }
                };
                Lazy::new(name.clone(), tensor.dtype(), shard.shape.clone(), bytes)
            });
            let written = write_lazy(path, lazy.collect());
            ranks.from_first::<Option<usize>>("tensor to write", || None)?;
            written
        }),
        false => {
            while let Some(i) = ranks.from_first::<Option<usize>>("tensor to write", || None)? {
                if let Some((_, _, shard)) = parts.get(i) {
                    // The first rank says what went wrong.
                    let _ = gather(&value(i), shard, ranks);
                }
            }
            None
        }
    };
    by_first(path, written, ranks)
}

/// What came of a work that the first of `ranks` did at `path`, on all of them: `done` is none on the others.
///
/// # Errors
/// The first rank's; and ranks that are gone.
pub fn by_first(path: &Path, done: Option<Result<(), ModelError>>, ranks: &Ranks) -> Result<(), ModelError> {
    let reason = || done.as_ref().and_then(|done| done.as_ref().err()).map(ToString::to_string);
    let reason: Option<String> = ranks.from_first("what was written", reason)?;
    match (done, reason) {
        (Some(done), _) => done,
        (None, None) => Ok(()),
        (None, Some(reason)) => Err(ModelError::Io { path: path.into(), source: std::io::Error::other(reason) }),
    }
}

/// The bytes of the whole tensor, of which each rank gives its part.
fn gather<B: Backend>(part: &Tensor<B, 1>, shard: &Shard, ranks: &Ranks) -> Result<Vec<u8>, ModelError> {
    let width = part.dtype().size();
    let own = host::bytes(part.clone());
    let offer: Offer = match &own {
        Ok(_) => Ok((shard.axis, [shard.range.start, shard.range.end], shard.first)),
        Err(error) => Err(error.to_string()),
    };
    let offers = ranks.gather("parts of a tensor", &offer)?;
    let shards = offers.into_iter().map(|offer| {
        let (axis, [start, end], first) = offer.map_err(DeviceError)?;
        Ok(Shard { shape: shard.shape.clone(), axis, range: start..end, first })
    });
    let shards: Vec<Shard> = shards.collect::<Result<_, ModelError>>()?;
    let most = shards.iter().map(Shard::len).max().unwrap_or(0) * width;
    let mut own = own?;
    own.resize(most, 0);
    let all = ranks.concat("values of a tensor", own)?;
    let mut whole = vec![0; shard.shape.iter().product::<usize>() * width];
    let mut held = 0;
    for (shard, part) in shards.iter().zip(all.chunks(most.max(1))).filter(|(shard, _)| shard.first) {
        shard.put(part, &mut whole, width).ok_or_else(|| strange(shard))?;
        held += shard.len() * width;
    }
    if held == whole.len() { Ok(whole) } else { Err(strange(shard)) }
}

/// Parts that are not those of one tensor.
fn strange(shard: &Shard) -> ModelError {
    DeviceError(format!("the ranks hold parts that make no tensor of {:?}", shard.shape)).into()
}
