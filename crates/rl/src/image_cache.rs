//! Image embeddings kept from one pass over the prompts to the next, so that the vision tower sees a picture once a policy
//! version: in the rollout, and not again in scoring or, where the tower is frozen, in the update.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use burn::tensor::Tensor;
use model_qwen2vl::Kernels;
use model_qwen2vl::model::Prompt;

use crate::policy::Policy;

/// The embeddings of prompts under one version of one vision tower. The default keeps none.
#[derive(Debug)]
pub struct ImageCache<B: Kernels> {
    kept: HashMap<usize, Kept<B>>,
    bytes: usize,
    limit: usize,
    encoded: usize,
}

/// Embeddings of one prompt. The address of its pixels is their name: the weak pointer keeps it from being given to other
/// pixels, and lets them go.
#[derive(Debug)]
struct Kept<B: Kernels> {
    pixels: Weak<Vec<f32>>,
    embeds: Tensor<B, 2>,
    bytes: usize,
}

impl<B: Kernels> Default for ImageCache<B> {
    fn default() -> Self {
        Self { kept: HashMap::new(), bytes: 0, limit: 0, encoded: 0 }
    }
}

fn key(prompt: &Prompt) -> usize {
    Arc::as_ptr(&prompt.pixel_values) as usize
}

fn patches(prompt: &Prompt) -> usize {
    prompt.image_grid_thw.iter().map(|g| g.iter().product::<usize>()).sum()
}

impl<B: Kernels> ImageCache<B> {
    /// Keeps at most `gib` GiB; what does not fit is computed again.
    pub fn new(gib: f64) -> Self {
        Self { limit: (gib * (1u64 << 30) as f64) as usize, ..Self::default() }
    }

    /// Image embeddings `[M, d]` of these prompts in order; none without images.
    pub fn embed<P: Policy<B>>(&mut self, policy: &P, prompts: &[&Prompt]) -> Option<Tensor<B, 2>> {
        let pictured: Vec<&Prompt> = prompts.iter().copied().filter(|p| !p.image_grid_thw.is_empty()).collect();
        let mut seen = HashSet::new();
        let missing: Vec<&Prompt> =
            pictured.iter().copied().filter(|p| !self.kept.contains_key(&key(p)) && seen.insert(key(p))).collect();
        let fresh = policy.images(&missing).map(|images| policy.encode_images(&images));
        self.encoded += missing.len();
        let mut parts: HashMap<usize, Tensor<B, 2>> = HashMap::new();
        if let Some(fresh) = &fresh {
            if self.limit == 0 && missing.len() == pictured.len() {
                return Some(fresh.clone());
            }
            let rows = fresh.dims()[0];
            let unit = missing.iter().map(|p| patches(p)).sum::<usize>() / rows.max(1);
            let mut start = 0;
            for prompt in &missing {
                let end = start + patches(prompt) / unit.max(1);
                parts.insert(key(prompt), fresh.clone().slice([start..end]));
                start = end;
            }
        }
        let all = pictured.iter().filter_map(|p| {
            let at = key(p);
            parts.get(&at).or(self.kept.get(&at).map(|kept| &kept.embeds)).cloned()
        });
        let all: Vec<Tensor<B, 2>> = all.collect();
        for prompt in missing {
            if let Some(embeds) = parts.remove(&key(prompt)) {
                self.keep(prompt, embeds);
            }
        }
        match fresh {
            Some(fresh) if all.iter().map(|part| part.dims()[0]).sum::<usize>() == fresh.dims()[0] => Some(fresh),
            _ => (!all.is_empty()).then(|| Tensor::cat(all, 0)),
        }
    }

    fn keep(&mut self, prompt: &Prompt, embeds: Tensor<B, 2>) {
        let bytes = embeds.dims().iter().product::<usize>() * embeds.dtype().size();
        if self.bytes + bytes > self.limit {
            self.kept.retain(|_, kept| kept.pixels.strong_count() > 0);
            self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
        }
        if self.bytes + bytes <= self.limit {
            self.bytes += bytes;
            self.kept.insert(key(prompt), Kept { pixels: Arc::downgrade(&prompt.pixel_values), embeds, bytes });
        }
    }

    /// Forgets everything: the tower has changed.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    /// Prompts whose pictures went through the tower so far.
    pub fn encoded(&self) -> usize {
        self.encoded
    }

    /// Bytes of the embeddings that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
