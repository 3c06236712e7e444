//! One pass over worked responses: what the model would write at each part, and where it looks meanwhile.

use model_qwen2vl::host::{self, int_tensor};
use model_qwen2vl::model::{Images, PackedBatch};
use model_qwen2vl::{Kernels, QwenVl};
use rl::TrainError;
use rl::focus;
use rl::policy::Prompt;
use vgpo::PrototypeMode;

use super::worked::WorkedRow;

/// What the model would write at a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForcedPart {
    /// Its token, from 0 in the response.
    pub token: usize,
    /// The response did not have it yet.
    pub fresh: bool,
    /// The likeliest token is that of the worked response.
    pub right: bool,
    /// Where the two pictures differ: the likeliest token is that of the picture that was exchanged.
    pub behind: Option<bool>,
}

/// A worked response, read by the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ForcedRow {
    /// Its tokens.
    pub length: usize,
    /// Its parts, in order.
    pub parts: Vec<ForcedPart>,
    /// The last layer's attention on image tokens, mean over heads `[T]`.
    pub attention: Vec<f32>,
    /// Visual focus (equation 4) `[T]`; empty without a picture.
    pub focus: Vec<f32>,
}

/// Reads some worked responses, all in one pass.
///
/// # Errors
/// A device that cannot be read.
pub fn forced<B: Kernels>(model: &QwenVl<B>, rows: &[WorkedRow]) -> Result<Vec<ForcedRow>, TrainError> {
    if rows.is_empty() {
        return Ok(vec![]);
    }
    let device = model.device();
    let groups: Vec<(&Prompt, Vec<&[u32]>)> = rows.iter().map(|row| (&row.item.prompt, vec![&row.ids[..]])).collect();
    let batch = PackedBatch::new(&model.config, &groups, &device);
    let images = Images::new(&model.config, rows.iter().map(|row| &row.item.prompt), &device);
    let (hidden, masses) = model.hidden_with_attention(&batch, images.map(|images| model.encode_images(&images)))?;
    let predicting = batch.predicting_rows();
    let (mut start, mut asked) = (0, Vec::new());
    for row in rows {
        asked.extend(row.parts.iter().map(|part| predicting[start + part.token]));
        start += row.ids.len();
    }
    let logits = model.logits(hidden.clone().select(0, int_tensor(asked, &device)));
    let mut likeliest = host::ints(logits.argmax(1))?.into_iter().map(|id| id as u32);
    let mut read = Vec::with_capacity(rows.len());
    for (k, (row, mass)) in rows.iter().zip(masses).enumerate() {
        let parts = row.parts.iter().zip(likeliest.by_ref()).map(|(part, id)| ForcedPart {
            token: part.token,
            fresh: part.fresh,
            right: id == row.ids[part.token],
            behind: part.was.map(|was| id == was),
        });
        let parts = parts.collect();
        let (prompt, grids) = (&batch.prompts[k], &row.item.prompt.image_grid_thw);
        let focus = match focus::prototype(&hidden, &batch.image_rows, prompt, PrototypeMode::Mean, grids)? {
            Some(prototype) => host::floats(focus::of_range(&hidden, batch.responses[k].rows.clone(), &prototype))?,
            None => vec![],
        };
        read.push(ForcedRow { length: row.ids.len(), parts, attention: mass.image, focus });
    }
    Ok(read)
}
