//! Log-probs of the same tokens with a perturbed picture (VPPO, SRPO; PAPO calls them masked).
//!
//! Needs the row's pictures, which are perturbed anew in each step, and one forward over the pictured groups.

use kernels::Kernels;

use crate::error::TrainError;
use crate::experience::StepContext;
use crate::image_cache::ImageCache;
use crate::learn::{GroupRef, ScoreRequest, score};
use crate::perturb::{Perturbation, Perturber};
use crate::policy::Policy;
use crate::random_keys;
use crate::shaping::Draw;
use crate::trajectory::{ScoredGroup, TokenStreams};

/// Sets a stream of every response, one draw per response or per prompt; zeros for prompts without an image, where
/// there is nothing to compare.
///
/// # Errors
/// Pictures that are gone; a device that cannot be read.
pub(super) fn compute<B: Kernels, P: Policy<B>>(
    policy: &P,
    groups: &mut [ScoredGroup],
    request: &ScoreRequest,
    context: &StepContext<B>,
    (draw, perturbation): (Draw, Perturbation),
    stream: fn(&mut TokenStreams) -> &mut Option<Vec<f32>>,
) -> Result<(), TrainError> {
    let seed = random_keys::perturbation_seed(context.config.trainer.seed, context.step);
    let processor = context.processor()?;
    let none = &mut ImageCache::default();
    // Group by group: one draw per response needs a copy of the pixels for each.
    for group in groups {
        if !group.has_image() {
            for trajectory in &mut group.trajectories {
                *stream(&mut trajectory.streams) = Some(vec![0.0; trajectory.ids.len()]);
            }
            continue;
        }
        let item = &group.item;
        let named = |e: TrainError| TrainError::Input(format!("row {} ({}): {e}", item.row, item.id));
        let row = item.row as u64;
        let draws = Perturber::new(&item.prompt, &item.images, processor, perturbation, seed, row).map_err(named)?;
        let scores = match draw {
            Draw::Prompt => {
                let prompt = draws.draw(0).map_err(named)?;
                score(policy, none, &[GroupRef { prompt: &prompt, responses: group.refs().responses }], request)?
            }
            Draw::Response => {
                let count = group.trajectories.len() as u64;
                let prompts = (1..=count).map(|r| draws.draw(r)).collect::<Result<Vec<_>, _>>().map_err(named)?;
                let refs: Vec<GroupRef> = std::iter::zip(&prompts, &group.trajectories)
                    .map(|(prompt, t)| GroupRef { prompt, responses: vec![&t.ids] })
                    .collect();
                score(policy, none, &refs, request)?
            }
        };
        for (trajectory, scores) in std::iter::zip(&mut group.trajectories, scores.into_iter().flatten()) {
            *stream(&mut trajectory.streams) = Some(scores.log_probs);
        }
    }
    Ok(())
}
