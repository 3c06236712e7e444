//! Putting together what ranks share out, and saying on all of them what came of it.

use std::path::Path;

use burn::tensor::Tensor;
use comm::Ranks;
use kernels::{DeviceError, Shard};

use crate::ModelError;

/// A tensor to write: its name in the file, this rank's part of it in one row, and which part that is.
pub type NamedPart<B> = (String, Tensor<B, 1>, Shard);

/// What a rank says of its part before it gives it: axis, range and whether it counts; or why it has none.
type Offer = Result<(usize, [usize; 2], bool), String>;

/// The bytes of a whole tensor, of `width` bytes an element, at rank `root` of those of which each gives its `part`;
/// elsewhere none. All `ranks` call this.
///
/// # Errors
/// A part that could not be read, on all ranks; parts that make no tensor; ranks that are gone.
pub fn whole_at(
    root: usize,
    part: Result<Vec<u8>, DeviceError>,
    shard: &Shard,
    width: usize,
    ranks: &Ranks,
) -> Result<Option<Vec<u8>>, ModelError> {
    if ranks.is_solo() {
        return Ok(Some(part?));
    }
    let offer: Offer = match &part {
        Ok(_) => Ok((shard.axis, [shard.range.start, shard.range.end], shard.first)),
        Err(error) => Err(error.to_string()),
    };
    let offers = ranks.gather("parts of a tensor", &offer)?;
    let shards = offers.into_iter().map(|offer| {
        let (axis, [start, end], first) = offer.map_err(DeviceError)?;
        Ok(Shard { shape: shard.shape.clone(), axis, range: start..end, first })
    });
    let shards: Vec<Shard> = shards.collect::<Result<_, ModelError>>()?;
    // What another rank has, too, does not travel.
    let own = if shard.first { part? } else { Vec::new() };
    let Some(given) = ranks.gather_to("values of a tensor", root, own)? else { return Ok(None) };
    let mut whole = vec![0; shard.shape.iter().product::<usize>() * width];
    let mut held = 0;
    for (shard, part) in shards.iter().zip(&given).filter(|(shard, _)| shard.first) {
        shard.put(part, &mut whole, width).ok_or_else(|| strange(shard))?;
        held += shard.len() * width;
    }
    if held == whole.len() { Ok(Some(whole)) } else { Err(strange(shard)) }
}

/// Parts that are not those of one tensor.
fn strange(shard: &Shard) -> ModelError {
    DeviceError(format!("the ranks hold parts that make no tensor of {:?}", shard.shape)).into()
}

/// What came of work at `path` of which each of `ranks` has `done` its part: an error on all of them where one has one.
///
/// # Errors
/// This rank's, else that of the first other one; and ranks that are gone.
pub fn by_all(path: &Path, done: Result<(), ModelError>, ranks: &Ranks) -> Result<(), ModelError> {
    let told = ranks.gather("what was written", &done.as_ref().err().map(ToString::to_string))?;
    match (done, told.into_iter().flatten().next()) {
        (Ok(()), Some(reason)) => Err(ModelError::Io { path: path.into(), source: std::io::Error::other(reason) }),
        (done, _) => done,
    }
}
