//! Where each token of a response looks: the cosine of its last hidden state to that of each image token. One forward
//! pass over the groups that are asked for, without a head: `2 N` operations for each packed token of a decoder of `N`
//! parameters, and `2 T M d` for the cosines of `T` tokens to `M` image tokens of width `d`.

use ::policy::PackedBatch;
use ::vgpo::PrototypeMode;
use burn::tensor::Tensor;
use kernels::{Kernels, host};

use super::passes::{GroupRef, Pass, pack, passes};
use crate::error::TrainError;
use crate::focus;
use crate::image_cache::ImageCache;
use crate::policy::Policy;

/// Where the tokens of one response look.
#[derive(Debug, Clone, PartialEq)]
pub struct Heat {
    /// Image tokens `M` of the prompt, all pictures in order.
    pub image_tokens: usize,
    /// Visual focus (equation 4) of each response token to the mean of all image tokens, `[T]`.
    pub focus: Vec<f32>,
    /// Cosine of each of the `T` response tokens to each image token, row-major `[T, M]`.
    pub cosines: Vec<f32>,
}

/// The heat of each response to one prompt, at most about `token_budget` packed tokens at a time; none where the prompt
/// has no picture. Of `images` nothing changes.
///
/// # Errors
/// A device that cannot be read.
pub fn heat<B: Kernels, P: Policy<B>>(
    policy: &P,
    images: &ImageCache<B>,
    group: &GroupRef,
    token_budget: usize,
) -> Result<Option<Vec<Heat>>, TrainError> {
    let prompt = group.prompt;
    if prompt.image_grid_thw.is_empty() {
        return Ok(None);
    }
    let groups = [group.clone()];
    let mut out = Vec::with_capacity(group.responses.len());
    for pass in passes(&groups, token_budget) {
        match pass {
            Pass::Together(micro) => {
                let batch = policy.pack(&pack(&groups, &micro));
                read(&policy.hidden(&batch, images.peek(policy, prompt)), &batch, group, &mut out)?;
            }
            Pass::Parts(_, parts) => {
                let shared = policy.share(prompt, images.peek(policy, prompt));
                for part in parts {
                    let batch = policy.pack_part(prompt, &group.some(&part));
                    read(&policy.hidden_part(&shared, &batch), &batch, group, &mut out)?;
                }
            }
        }
    }
    Ok(Some(out))
}

/// From the hidden states of a packed batch of one prompt to the heat of its responses. One response at a time is
/// read: a table of all of them may be large.
fn read<B: Kernels>(
    hidden: &Tensor<B, 2>,
    batch: &PackedBatch<B>,
    group: &GroupRef,
    out: &mut Vec<Heat>,
) -> Result<(), TrainError> {
    let (rows, grids) = (&batch.prompts[0], &group.prompt.image_grid_thw);
    let prototype = focus::prototype(hidden, &batch.image_rows, rows, PrototypeMode::Mean, grids)?;
    for response in &batch.responses {
        let rows: Vec<usize> = response.rows.clone().collect();
        let cosines = host::floats(focus::cosines(hidden, rows, &batch.image_rows))?;
        let focus = match &prototype {
            Some(prototype) => host::floats(focus::of_range(hidden, response.rows.clone(), prototype))?,
            None => vec![],
        };
        out.push(Heat { image_tokens: batch.image_rows.len(), focus, cosines });
    }
    Ok(())
}
