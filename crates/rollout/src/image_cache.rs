//! Image embeddings kept from one pass over the prompts to the next, so that the vision tower sees a picture once per
//! policy version: in the rollout, and not again in scoring or, where the tower is frozen, in the update.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};

use burn::tensor::Tensor;
use kernels::Kernels;
use kernels::host::int_tensor;
use policy::{Prompt, Scoring};

/// The embeddings of prompts under one version of one vision tower. The default keeps none.
#[derive(Debug)]
pub struct ImageCache<B: Kernels> {
    kept: HashMap<usize, Kept<B>>,
    bytes: usize,
    limit: usize,
    encoded: usize,
}

/// Embeddings of one prompt. The address of its pixels is their name: the weak pointer keeps it from being given to
/// other pixels, and lets them go.
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

/// Embeddings of one of `prompts`, whose embeddings are `all`: in proportion to its patches.
fn rows<B: Kernels>(prompt: &Prompt, prompts: &[&Prompt], all: Option<&Tensor<B, 2>>) -> usize {
    let patches = |p: &Prompt| p.image_grid_thw.iter().map(|g| g.iter().product::<usize>()).sum::<usize>();
    let total: usize = prompts.iter().map(|p| patches(p)).sum();
    patches(prompt) * all.map_or(0, |all| all.dims()[0]) / total.max(1)
}

impl<B: Kernels> ImageCache<B> {
    /// Keeps at most `gib` GiB; what does not fit is computed again.
    pub fn new(gib: f64) -> Self {
        Self { limit: (gib * (1u64 << 30) as f64) as usize, ..Self::default() }
    }

    /// Image features `[M, (1 + K) d]` of these prompts in order; none without images. Always with the same policy,
    /// until [`clear`](Self::clear).
    pub fn embed<P: Scoring<B>>(&mut self, policy: &P, prompts: &[&Prompt]) -> Option<Tensor<B, 2>> {
        let pictured: Vec<&Prompt> = prompts.iter().copied().filter(|p| !p.image_grid_thw.is_empty()).collect();
        let mut seen = HashSet::new();
        let missing: Vec<&Prompt> =
            pictured.iter().copied().filter(|p| !self.kept.contains_key(&key(p)) && seen.insert(key(p))).collect();
        let fresh = policy.encode_images(&missing);
        self.encoded += missing.len();
        if let Some(fresh) = &fresh {
            self.keep(&missing, fresh);
            if missing.len() == pictured.len() {
                return Some(fresh.clone());
            }
        }
        // Some are here already: those, and the new ones in their places.
        let mut own = HashMap::new();
        let mut start = 0;
        for prompt in &missing {
            let end = start + rows(prompt, &missing, fresh.as_ref());
            own.insert(key(prompt), start..end);
            start = end;
        }
        let parts: Vec<Tensor<B, 2>> = pictured
            .iter()
            .filter_map(|prompt| match (own.get(&key(prompt)), &fresh) {
                (Some(range), Some(fresh)) => Some(fresh.clone().slice([range.clone()])),
                _ => self.kept.get(&key(prompt)).map(|kept| kept.embeds.clone()),
            })
            .collect();
        (!parts.is_empty()).then(|| Tensor::cat(parts, 0))
    }

    /// The same of one prompt, which keeps nothing: what others find here afterwards is what they found before.
    pub fn peek<P: Scoring<B>>(&self, policy: &P, prompt: &Prompt) -> Option<Tensor<B, 2>> {
        if prompt.image_grid_thw.is_empty() {
            return None;
        }
        self.kept.get(&key(prompt)).map(|kept| kept.embeds.clone()).or_else(|| policy.encode_images(&[prompt]))
    }

    /// Keeps the embeddings `fresh` of `prompts` as far as they fit.
    fn keep(&mut self, prompts: &[&Prompt], fresh: &Tensor<B, 2>) {
        let [_, width] = fresh.dims();
        let mut start = 0;
        for prompt in prompts {
            let end = start + rows(prompt, prompts, Some(fresh));
            let bytes = (end - start) * width * fresh.dtype().size();
            if self.bytes + bytes > self.limit {
                self.prune();
            }
            if self.bytes + bytes <= self.limit {
                let embeds = match prompts.len() {
                    1 => fresh.clone(),
                    // A copy: a slice would hold all of `fresh` for as long as any of it is kept.
                    _ => fresh.clone().select(0, int_tensor(start..end, &fresh.device())),
                };
                self.bytes += bytes;
                let pixels = Arc::downgrade(&prompt.pixel_values);
                self.kept.insert(key(prompt), Kept { pixels, embeds, bytes });
            }
            start = end;
        }
    }

    /// Forgets the pictures of prompts that are gone.
    pub fn prune(&mut self) {
        self.kept.retain(|_, kept| kept.pixels.strong_count() > 0);
        self.bytes = self.kept.values().map(|kept| kept.bytes).sum();
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
