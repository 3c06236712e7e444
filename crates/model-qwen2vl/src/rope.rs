//! Positions: those of the decoder's M-RoPE, and 2-D positions and window order of the vision tower.
//!
//! All of it is integer arithmetic and a table of cosines, done on the host once per prompt.

use burn::tensor::backend::Backend;
use kernels::rope::{Rotary, inverse_frequencies};
use policy::ModelError;

use crate::config::{QwenVlConfig, TowerAttention, VisionConfig};

/// M-RoPE positions `[3][P]` (temporal, height, width) of a prompt, as Hugging Face's `get_rope_index` gives them for
/// images.
///
/// # Errors
/// A video token, an image token without its grid or a grid without its tokens.
pub(crate) fn mrope_positions(
    config: &QwenVlConfig,
    ids: &[u32],
    grids: &[[usize; 3]],
) -> Result<[Vec<i64>; 3], ModelError> {
    let mut positions = [Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len())];
    let merge = config.vision.spatial_merge_size;
    let mut grids_left = grids.iter();
    let mut next = 0i64; // the position of the next text token: one more than the largest so far
    let mut i = 0;
    while i < ids.len() {
        if ids[i] == config.video_token_id {
            return Err(ModelError::Input(format!(
                "the prompt holds a video token (id {}, position {i}); video is not supported, give images",
                ids[i]
            )));
        }
        if ids[i] != config.image_token_id {
            positions.iter_mut().for_each(|p| p.push(next));
            next += 1;
            i += 1;
            continue;
        }
        let run = ids[i..].iter().take_while(|&&id| id == config.image_token_id).count();
        // Two images may touch, so a run of image tokens can hold several grids.
        let mut used = 0;
        while used < run {
            let Some(&[t, h, w]) = grids_left.next() else {
                return Err(ModelError::Input(format!(
                    "image features and image tokens do not match: {} image tokens more than the {} images have",
                    run - used,
                    grids.len()
                )));
            };
            let (h, w) = (h / merge, w / merge);
            if used + t * h * w > run {
                return Err(ModelError::Input(format!(
                    "image features and image tokens do not match: an image needs {} tokens, {} are left",
                    t * h * w,
                    run - used
                )));
            }
            // Frames of an image are one apart in time, as transformers 5.23 has them; the text goes on behind the
            // larger side, however many frames there are.
            for frame in 0..t {
                for y in 0..h {
                    for x in 0..w {
                        positions[0].push(next + frame as i64);
                        positions[1].push(next + y as i64);
                        positions[2].push(next + x as i64);
                    }
                }
            }
            used += t * h * w;
            next += h.max(w).max(1) as i64;
        }
        i += run;
    }
    if grids_left.next().is_some() {
        return Err(ModelError::Input(format!(
            "image features and image tokens do not match: {} images, but the prompt has tokens for fewer",
            grids.len()
        )));
    }
    Ok(positions)
}

/// How the patches of several images are ordered and grouped inside the vision tower.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VisionLayout {
    /// Position `i` of the tower holds patch `patch_order[i]` of the input. `[N]`
    pub patch_order: Vec<usize>,
    /// Merged token `j` of the tower's output belongs at `reverse[j]`-th place: `output[j] = merged[reverse[j]]`. `[N /
    /// 4]`
    pub reverse: Vec<usize>,
    /// Patches of each window, in tower order.
    pub window_lens: Vec<usize>,
    /// Patches of each frame of each image, in tower order (the full-attention blocks).
    pub full_lens: Vec<usize>,
    /// Row and column of each patch, in tower order.
    pub rows_columns: Vec<(usize, usize)>,
    /// Height and width in patches of the image that each patch is of, in tower order.
    pub sizes: Vec<[usize; 2]>,
}

/// Window order of the patches of `grids`, as Hugging Face's `get_window_index` and `rot_pos_emb`; the processor's
/// order where all blocks attend over the whole image.
pub(crate) fn vision_layout(config: &VisionConfig, grids: &[[usize; 3]]) -> VisionLayout {
    let merge = config.spatial_merge_size;
    let unit = config.merge_unit();
    let mut merged_order = Vec::new();
    let (mut coordinates, mut sizes) = (Vec::new(), Vec::new());
    let (mut window_lens, mut full_lens) = (Vec::new(), Vec::new());
    let mut base = 0;
    for &[t, h, w] in grids {
        let (mh, mw) = (h / merge, w / merge);
        let window = match config.attention {
            TowerAttention::Windows { side, .. } => side,
            TowerAttention::Full => mh.max(mw).max(1),
        };
        sizes.extend(std::iter::repeat_n([h, w], t * h * w));
        for frame in 0..t {
            for wy in (0..mh).step_by(window) {
                for wx in (0..mw).step_by(window) {
                    let mut count = 0;
                    for y in wy..(wy + window).min(mh) {
                        for x in wx..(wx + window).min(mw) {
                            merged_order.push(base + (frame * mh + y) * mw + x);
                            for dy in 0..merge {
                                for dx in 0..merge {
                                    coordinates.push((y * merge + dy, x * merge + dx));
                                }
                            }
                            count += unit;
                        }
                    }
                    window_lens.push(count);
                }
            }
            full_lens.push(h * w);
        }
        base += t * mh * mw;
    }
    let patch_order = merged_order.iter().flat_map(|&m| (0..unit).map(move |k| m * unit + k)).collect();
    let mut reverse = vec![0; merged_order.len()];
    for (place, &merged) in merged_order.iter().enumerate() {
        reverse[merged] = place;
    }
    VisionLayout { patch_order, reverse, window_lens, full_lens, rows_columns: coordinates, sizes }
}

/// The tower's rotary table: half of the pairs turn by the row, half by the column.
pub(crate) fn vision_table<B: Backend>(config: &VisionConfig, layout: &VisionLayout, device: &B::Device) -> Rotary<B> {
    let half = config.head_dim() / 2;
    let inv_freq = inverse_frequencies(half / 2, config.rope_theta);
    let mut angles = Vec::with_capacity(layout.rows_columns.len() * half);
    for &(row, column) in &layout.rows_columns {
        angles.extend(inv_freq.iter().map(|f| row as f32 * f));
        angles.extend(inv_freq.iter().map(|f| column as f32 * f));
    }
    Rotary::from_angles(&angles, half, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> QwenVlConfig {
        QwenVlConfig::preset("small").unwrap()
    }

    /// Position of the first response token.
    fn next_position(positions: &[Vec<i64>; 3]) -> i64 {
        let prompt = policy::Prompt {
            input_ids: vec![],
            position_ids: positions.clone(),
            pixel_values: Default::default(),
            image_grid_thw: vec![],
        };
        prompt.next_position()
    }

    #[test]
    fn positions_of_text_and_images() {
        let c = config();
        let img = c.image_token_id;
        // text text <2x3 merged image> text
        let mut ids = vec![10, 11];
        ids.extend([img; 6]);
        ids.push(12);
        let p = mrope_positions(&c, &ids, &[[1, 4, 6]]).unwrap();
        assert_eq!(p[0], [0, 1, 2, 2, 2, 2, 2, 2, 5]);
        assert_eq!(p[1], [0, 1, 2, 2, 2, 3, 3, 3, 5]);
        assert_eq!(p[2], [0, 1, 2, 3, 4, 2, 3, 4, 5]);
        assert_eq!(next_position(&p), 6);
    }

    /// Values of `Qwen2_5_VLModel.get_rope_index` of transformers 5.23.0.
    #[test]
    fn frames_of_an_image_are_one_apart() {
        let c = config();
        let img = c.image_token_id;
        // text <three frames of 1x2> text text
        let mut ids = vec![1];
        ids.extend([img; 6]);
        ids.extend([2, 3]);
        let p = mrope_positions(&c, &ids, &[[3, 2, 4]]).unwrap();
        assert_eq!(p[0], [0, 1, 1, 2, 2, 3, 3, 3, 4]);
        assert_eq!(p[1], [0, 1, 1, 1, 1, 1, 1, 3, 4]);
        assert_eq!(p[2], [0, 1, 2, 1, 2, 1, 2, 3, 4]);
        assert_eq!(next_position(&p), 5);
        // text <two frames of 2x3> text
        let ids: Vec<u32> = [vec![1], vec![img; 12], vec![2]].concat();
        let p = mrope_positions(&c, &ids, &[[2, 4, 6]]).unwrap();
        assert_eq!(p[0], [0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 4]);
        assert_eq!(p[1], [0, 1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 4]);
        assert_eq!(p[2], [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4]);
    }

    #[test]
    fn mismatches_and_video_are_refused() {
        let c = config();
        let img = c.image_token_id;
        for (ids, grids) in [
            (vec![img; 5], vec![[1, 4, 6]]),
            (vec![img; 7], vec![[1, 4, 6]]),
            (vec![1, 2], vec![[1, 4, 6]]),
            (vec![img], vec![]),
            (vec![c.video_token_id], vec![]),
        ] {
            assert!(mrope_positions(&c, &ids, &grids).is_err(), "{ids:?}");
        }
    }

    #[test]
    fn full_attention_keeps_the_processors_order() {
        let c = QwenVlConfig::preset("qwen3vl-8b").unwrap();
        let layout = vision_layout(&c.vision, &[[1, 4, 6], [2, 2, 2]]);
        assert_eq!(layout.patch_order, (0..32).collect::<Vec<_>>());
        assert_eq!(layout.reverse, (0..8).collect::<Vec<_>>());
        assert_eq!(layout.full_lens, [24, 4, 4]);
        assert_eq!(layout.rows_columns[..6], [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3)]);
        assert_eq!((layout.sizes[23], layout.sizes[24], layout.sizes.len()), ([4, 6], [2, 2], 32));
    }

    #[test]
    fn windows_cover_every_patch_once() {
        let c = config();
        // 6 x 10 merged tokens: windows of 4 leave partial ones on both sides
        let layout = vision_layout(&c.vision, &[[1, 12, 20], [1, 4, 4]]);
        assert_eq!(layout.window_lens, [64, 64, 32, 32, 32, 16, 16]);
        assert_eq!(layout.full_lens, [240, 16]);
        let mut seen = layout.patch_order.clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..256).collect::<Vec<_>>());
        for (j, &place) in layout.reverse.iter().enumerate() {
            assert_eq!(layout.patch_order[place * 4] / 4, j);
        }
    }
}
