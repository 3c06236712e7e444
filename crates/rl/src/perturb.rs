//! Perturbed images: blocks of the picture blacked out on the model's own patch grid (VPPO, PAPO and relatives).

use data::ImageLimits;
use model_qwen2vl::model::Prompt;

use crate::sampler::uniform;

/// `prompt` with each 14x14 patch of its images blacked out with the given probability; `key` names the draw.
pub fn blackout(prompt: &Prompt, limits: &ImageLimits, probability: f64, seed: u64, key: u64, response: u64) -> Prompt {
    let mut prompt = prompt.clone();
    let width = limits.patch_dim();
    let channel = width / 3;
    let black: Vec<f32> = (0..3).map(|c| -limits.mean[c] / limits.std[c]).collect();
    for (i, patch) in prompt.pixel_values.chunks_exact_mut(width).enumerate() {
        if f64::from(uniform(seed, key, response, i as u64)) < probability {
            for (values, black) in patch.chunks_exact_mut(channel).zip(&black) {
                values.fill(*black);
            }
        }
    }
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_turn_black_at_the_given_rate() {
        let limits = ImageLimits::default();
        let patches = 2000;
        let prompt = Prompt {
            input_ids: vec![],
            position_ids: Default::default(),
            pixel_values: vec![0.5; patches * limits.patch_dim()],
            image_grid_thw: vec![[1, 40, 50]],
        };
        let black =
            |p: &Prompt| p.pixel_values.chunks(limits.patch_dim()).filter(|c| c.iter().all(|v| *v < -1.0)).count();
        let half = blackout(&prompt, &limits, 0.5, 1, 2, 3);
        assert!((black(&half) as f64 / patches as f64 - 0.5).abs() < 0.04);
        assert!(half.pixel_values.iter().all(|v| *v == 0.5 || *v < -1.0));
        assert_eq!(black(&blackout(&prompt, &limits, 1.0, 1, 2, 3)), patches);
        assert_ne!(half, blackout(&prompt, &limits, 0.5, 1, 2, 4));
        assert_eq!(half, blackout(&prompt, &limits, 0.5, 1, 2, 3));
    }
}
