//! Validation: one greedy response per row, and `rollout.val_n` sampled ones where `rollout.val_temperature` is above
//! 0.

use std::time::Instant;

use ::vgpo::PrototypeMode;
use kernels::Kernels;

use super::{Metrics, Trainer};
use crate::dealt;
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::policy::Policy;
use crate::progress::Phase;
use crate::random_keys;
use crate::response_log;
use crate::rollout::{Job, generate};
use crate::sampler::Sampling;
use crate::tally::Tally;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Metrics `val/...` of the current policy; `step` names the log of responses.
    pub(super) fn validate(&mut self, step: u64) -> Result<Metrics, TrainError> {
        let Some(prompts) = self.validation.clone() else { return Ok(Metrics::new()) };
        let config = self.setup.config.clone();
        let clock = Instant::now();
        let limit = match config.data.val_max_samples {
            0 => prompts.len(),
            n => n.min(prompts.len()),
        };
        let mut greedy = self.rollout_config(1, Sampling::greedy())?;
        greedy.focus = Some(PrototypeMode::Mean);
        let sampled = (config.rollout.val_temperature > 0.0).then(|| {
            let sampling = Sampling {
                temperature: config.rollout.val_temperature,
                top_p: config.rollout.val_top_p,
                seed: random_keys::validation_seed(config.trainer.seed),
            };
            self.rollout_config(config.rollout.val_n, sampling)
        });
        let sampled = sampled.transpose()?;
        self.setup.progress.phase(Phase::Validate, limit as u64);
        let interrupt = self.rollout_interrupt();
        let mut tally = Tally::default();
        let mut log = self.folder.validation_log(step)?;
        let mut logged = 0;
        let rows: Vec<usize> = (0..limit).collect();
        for rows in rows.chunks(config.data.val_batch_size) {
            let progress = &mut self.setup.progress;
            let items =
                prompts.load_many(rows, &self.policy, &mut self.state.set_aside, &mut |text| progress.note(&text))?;
            let own = dealt::at(&items, &dealt::held(&self.setup.ranks.data, &items));
            let jobs: Vec<Job> = own.iter().map(|item| Job { prompt: &item.prompt, key: item.row as u64 }).collect();
            let images = &mut match &sampled {
                Some(_) => ImageCache::new(config.rollout.image_cache_gib),
                None => ImageCache::default(),
            };
            let (responses, _) = generate(&self.policy, &jobs, &greedy, images, &interrupt, |_, _, _| {})?;
            let many = sampled
                .as_ref()
                .map(|config| generate(&self.policy, &jobs, config, images, &interrupt, |_, _, _| {}))
                .transpose()?;
            self.setup.progress.advance(rows.len() as u64);
            if self.interrupted()? {
                return Err(TrainError::Interrupted);
            }
            if let Some((many, _)) = many {
                let graded = self.graded(own.clone(), many)?;
                for group in dealt::groups(&self.setup.ranks.data, items.clone(), graded)? {
                    tally.sampled(&group);
                }
            }
            let graded = self.graded(own, responses)?;
            for group in dealt::groups(&self.setup.ranks.data, items, graded)? {
                if logged < config.trainer.val_generations_to_log {
                    log.append(&response_log::of_validation(&group))?;
                    logged += 1;
                }
                tally.greedy(&group);
            }
        }
        if tally.is_empty() {
            return Err(TrainError::Input(
                "data.val_files: none of its rows can be used; the reasons are above".into(),
            ));
        }
        let mut metrics = tally.metrics();
        metrics.insert("time/validation_s".into(), clock.elapsed().as_secs_f64());
        Ok(metrics)
    }
}
