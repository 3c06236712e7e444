//! The pictures of a batch, and who computes them.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use comm::{Ranks, deal};
use kernels::host::int_tensor;
use kernels::params::Gradients;
use kernels::{Kernels, collective};
use policy::Prompt;

use crate::config::{QwenVlConfig, VisionConfig};
use crate::vision::{VisionPlan, VisionSaved, VisionTower};

/// One picture: its patches, row-major, and its grid `[t, h, w]`.
type DealtPicture<'a> = (&'a [f32], [usize; 3]);

/// The images of a batch: pixels `[N, patch_dim]` and their plan.
#[derive(Debug, Clone)]
pub struct Images<B: Backend> {
    /// Patches of all images.
    pub pixels: Tensor<B, 2>,
    /// Order, windows, positions.
    pub plan: VisionPlan<B>,
}

impl<B: Backend> Images<B> {
    /// The images of these prompts in order; none if they have none.
    pub fn new<'a>(
        config: &QwenVlConfig,
        prompts: impl IntoIterator<Item = &'a Prompt>,
        device: &B::Device,
    ) -> Option<Self> {
        let (mut values, mut grids) = (Vec::new(), Vec::new());
        for prompt in prompts {
            values.extend_from_slice(&prompt.pixel_values);
            grids.extend_from_slice(&prompt.image_grid_thw);
        }
        Self::of(&config.vision, values, &grids, device)
    }

    fn of(config: &VisionConfig, values: Vec<f32>, grids: &[[usize; 3]], device: &B::Device) -> Option<Self> {
        if grids.is_empty() {
            return None;
        }
        let dim = config.patch_dim();
        let rows = values.len() / dim;
        Some(Self {
            pixels: Tensor::from_data(TensorData::new(values, [rows, dim]), device),
            plan: VisionPlan::new(config, grids, device),
        })
    }
}

/// The images of a batch, dealt out over ranks by their patches: each computes its own, and all get all features.
pub(crate) struct DealtImages<B: Backend> {
    ranks: Ranks,
    /// This rank's.
    own: Option<Images<B>>,
    dealt: Option<Dealt<B>>,
}

/// Whose rows of the features are whose; none where one rank has all.
struct Dealt<B: Backend> {
    /// Rows of each rank.
    rows: Vec<usize>,
    /// Where each row of the batch's features `[M, _]` is among those of rank after rank.
    places: Tensor<B, 1, Int>,
    /// Rows of the batch's features that are this rank's, if any is.
    own: Option<Tensor<B, 1, Int>>,
}

/// What the backward of dealt images needs.
pub(crate) struct PicturesTape<B: Backend> {
    own: Option<(VisionSaved<B>, VisionPlan<B>)>,
    rows: Option<Tensor<B, 1, Int>>,
}

impl<B: Kernels> DealtImages<B> {
    /// Of these prompts in order; none if they have no image.
    pub(crate) fn new(config: &QwenVlConfig, prompts: &[&Prompt], ranks: &Ranks, device: &B::Device) -> Option<Self> {
        if ranks.is_solo() {
            let own = Some(Images::new(config, prompts.iter().copied(), device)?);
            return Some(Self { ranks: ranks.clone(), own, dealt: None });
        }
        let pictures: Vec<DealtPicture> = prompts.iter().flat_map(|prompt| pictures(&config.vision, prompt)).collect();
        if pictures.is_empty() {
            return None;
        }
        let patches: Vec<usize> = pictures.iter().map(|(_, grid)| grid.iter().product()).collect();
        let owner = deal::by_cost(&patches, ranks.size());
        let mut rows = vec![0; ranks.size()];
        let tokens = |i: usize| patches[i] / config.vision.merge_unit();
        (0..pictures.len()).for_each(|i| rows[owner[i]] += tokens(i));
        // Where the next row of each rank comes.
        let mut next: Vec<usize> = (0..rows.len()).map(|rank| rows[..rank].iter().sum()).collect();
        let (mut places, mut own_rows) = (Vec::new(), Vec::new());
        for (i, &rank) in owner.iter().enumerate() {
            if rank == ranks.rank() {
                own_rows.extend(places.len()..places.len() + tokens(i));
            }
            places.extend(next[rank]..next[rank] + tokens(i));
            next[rank] += tokens(i);
        }
        let own: Vec<&DealtPicture> = pictures
            .iter()
            .zip(&owner)
            .filter(|(_, rank)| **rank == ranks.rank())
            .map(|(picture, _)| picture)
            .collect();
        // Nothing is uploaded where there is nothing.
        let own_rows = (!own_rows.is_empty()).then(|| int_tensor(own_rows, device));
        let values = own.iter().flat_map(|(values, _)| values.iter().copied()).collect();
        let grids: Vec<[usize; 3]> = own.iter().map(|(_, grid)| *grid).collect();
        Some(Self {
            ranks: ranks.clone(),
            own: Images::of(&config.vision, values, &grids, device),
            dealt: Some(Dealt { rows, places: int_tensor(places, device), own: own_rows }),
        })
    }

    /// Features `[M, (1 + K) d]` of all images.
    pub(crate) fn features(self, tower: &VisionTower<B>) -> Tensor<B, 2> {
        let own = self.own.as_ref().map(|images| tower.forward(images.pixels.clone(), &images.plan));
        self.gathered(own, tower)
    }

    /// The same, with what the backward needs.
    pub(crate) fn features_saving(self, tower: &VisionTower<B>, recompute: bool) -> (Tensor<B, 2>, PicturesTape<B>) {
        let own = self.own.as_ref().map(|images| {
            let (features, saved) = tower.forward_saving(images.pixels.clone(), &images.plan, recompute);
            (features, (saved, images.plan.clone()))
        });
        let (features, saved) = own.unzip();
        let rows = self.dealt.as_ref().and_then(|dealt| dealt.own.clone());
        (self.gathered(features, tower), PicturesTape { own: saved, rows })
    }

    /// The features of all ranks in the batch's order, of this rank's.
    fn gathered(&self, own: Option<Tensor<B, 2>>, tower: &VisionTower<B>) -> Tensor<B, 2> {
        let own = own.unwrap_or_else(|| tower.no_features());
        match &self.dealt {
            None => own,
            Some(dealt) => {
                collective::rows(own, &dealt.rows, &self.ranks, "image features").select(0, dealt.places.clone())
            }
        }
    }
}

impl<B: Kernels> PicturesTape<B> {
    /// Adds the tower's gradients by this rank's images for `dy [M, (1 + K) d]`, the gradient of all features.
    pub(crate) fn backward(self, tower: &VisionTower<B>, dy: Tensor<B, 2>, grads: &mut Gradients<B>) {
        let Some((saved, plan)) = self.own else { return };
        let dy = match self.rows {
            Some(rows) => dy.select(0, rows),
            None => dy,
        };
        tower.backward(saved, &plan, dy, grads);
    }
}

/// The pictures of a prompt, in order.
fn pictures<'a>(config: &VisionConfig, prompt: &'a Prompt) -> Vec<DealtPicture<'a>> {
    let mut values = &prompt.pixel_values[..];
    let picture = |grid: &[usize; 3]| {
        let (own, rest) = values.split_at(grid.iter().product::<usize>() * config.patch_dim());
        values = rest;
        (own, *grid)
    };
    prompt.image_grid_thw.iter().map(picture).collect()
}
