//! What is kept of the tokens of some groups of a step (`trainer.log_tokens`): it reads what the step has, and computes
//! one thing of its own, where each token looks (`trainer.log_heat_freq`). Nothing that is trained depends on it.

use std::collections::BTreeSet;

use data::Processor;
use kernels::Kernels;
use report::focus_map::{FocusMap, Panel, Picture, highest};
use report::{Fonts, missing_note};

use super::Trainer;
use crate::error::TrainError;
use crate::image_cache::ImageCache;
use crate::learn::{Heat, heat};
use crate::policy::{Policy, Prompt};
use crate::token_log::{TokenLine, lines, picture_hash};
use crate::trajectory::ScoredGroup;

/// Focus maps among the events of a run, for each doubling of its steps.
const MAPS_PER_DOUBLING: u64 = 16;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Writes the tokens of the first groups of the next step. Of several ranks those that share the first copy of the
    /// model take part: they hold the pictures of the same groups, and compute a pass together.
    pub(super) fn log_tokens(&mut self, groups: &[ScoredGroup], images: &ImageCache<B>) -> Result<(), TrainError> {
        let count = self.setup.config.trainer.log_tokens;
        let ranks = &self.setup.ranks.data;
        if count == 0 || !ranks.is_first() {
            return Ok(());
        }
        let step = self.state.step + 1;
        let mut line = 0;
        let (mut all, mut named) = (vec![], BTreeSet::new());
        for (place, group) in groups.iter().enumerate() {
            if group.item.holder == ranks.rank() && all.len() < count {
                all.push((place, line));
            }
            line += group.trajectories.len();
        }
        let (heats, draws) = (self.heats(step), self.draws(step));
        let mut written = vec![];
        for (index, (place, line)) in all.into_iter().enumerate() {
            let group = &groups[place];
            let mut own = lines(group, place, line, &self.setup.processor)?;
            let budget = self.setup.config.pass_tokens();
            let heats = if heats { heat(&self.policy, images, &group.refs(), budget)? } else { None };
            let pictures = pictures(&group.item.prompt, &self.setup.processor);
            let names = self.keep(&pictures)?;
            for (line, heat) in std::iter::zip(&mut own, heats.iter().flatten()) {
                line.add_heat(heat);
            }
            own.iter_mut().for_each(|line| line.pictures.clone_from(&names));
            if let (true, 0, Some(line), Some(heat)) = (draws, index, own.first(), heats.iter().flatten().next()) {
                self.draw(step, &group.item.problem, pictures, line, heat)?;
            }
            named.extend(names);
            written.extend(own);
        }
        if !self.tokens.write(step, &written, named)? {
            let text = "the tokens of one step are more than trainer.log_tokens_mib, and are not kept";
            self.setup.progress.warn_once("tokens", text);
        }
        Ok(())
    }

    /// Whether the step has heat: all ranks of a copy of the model say the same.
    fn heats(&self, step: u64) -> bool {
        let freq = self.setup.config.trainer.log_heat_freq as u64;
        freq > 0 && (step - 1).is_multiple_of(freq)
    }

    /// Whether the step has a focus map among its events. Event files have no limit of their own, so in a long run maps
    /// become rarer: 16 for each doubling of the steps with heat.
    fn draws(&self, step: u64) -> bool {
        let index = (step - 1) / (self.setup.config.trainer.log_heat_freq as u64).max(1);
        self.heats(step) && index.is_multiple_of(1 << (index / MAPS_PER_DOUBLING).max(1).ilog2())
    }

    /// Keeps pictures, and returns their paths in the run folder.
    fn keep(&mut self, pictures: &[Picture]) -> Result<Vec<String>, TrainError> {
        let one = |picture: &Picture| {
            let png = || data::image::png(&picture.pixels).map_err(|error| TrainError::Input(error.to_string()));
            self.tokens.picture(&picture_hash(&picture.pixels), png)
        };
        pictures.iter().map(one).collect()
    }

    /// Adds the focus map of a response to the event files.
    fn draw(
        &mut self,
        step: u64,
        title: &str,
        pictures: Vec<Picture>,
        line: &TokenLine,
        heat: &Heat,
    ) -> Result<(), TrainError> {
        let row = |token: usize| heat.cosines[token * heat.image_tokens..][..heat.image_tokens].to_vec();
        let panels: Vec<Panel> =
            highest(&heat.focus).into_iter().map(|token| Panel { token, cosines: row(token) }).collect();
        let (pictures, focus) = (&pictures[..], &heat.focus[..]);
        let map = FocusMap { prompt: title, pictures, texts: &line.pieces, focus, panels: &panels };
        let progress = &mut self.setup.progress;
        let Some((png, size)) = png_of(&map, |key, text| progress.warn_once(key, text)) else { return Ok(()) };
        Ok(self.log.events().picture(step, "focus_map", &png, size)?)
    }

    /// Adds how advantages and visual focus are spread over the tokens of the next step to the event files.
    pub(super) fn log_histograms(&mut self, groups: &[ScoredGroup]) -> Result<(), TrainError> {
        let step = self.state.step + 1;
        let all = || groups.iter().flat_map(|group| &group.trajectories);
        let advantages: Vec<f32> = all().flat_map(|trajectory| &trajectory.advantages).copied().collect();
        let focus: Vec<f32> = all().filter_map(|t| t.streams.visual_focus.as_ref()).flatten().copied().collect();
        self.log.events().histogram(step, "tokens/advantage", &advantages)?;
        Ok(self.log.events().histogram(step, "tokens/visual_focus", &focus)?)
    }
}

/// A focus map as a PNG file with its width and height. A run does not end for want of a picture of it, whatever the
/// libraries that draw it make of a text: then there is none, and `warn` is told why.
fn png_of(map: &FocusMap<'_>, mut warn: impl FnMut(&'static str, &str)) -> Option<(Vec<u8>, [u32; 2])> {
    let drawn = guard::caught(|| {
        let drawn = map.draw(Fonts::system())?;
        let pixels = drawn.pixels()?;
        let png = data::image::png(&pixels)?;
        Ok::<_, data::ImageError>((png, [pixels.width(), pixels.height()], missing_note(drawn.missing())))
    });
    match drawn.and_then(|drawn| drawn.map_err(|error| error.to_string())) {
        Ok((png, size, note)) => {
            if let Some(note) = note {
                warn("fonts", &format!("focus maps: {note}"));
            }
            Some((png, size))
        }
        Err(reason) => {
            warn("focus_map", &format!("a focus map is left out: {reason}"));
            None
        }
    }
}

/// The pictures of a prompt, as the model sees them.
fn pictures(prompt: &Prompt, processor: &Processor) -> Vec<Picture> {
    let limits = processor.limits();
    let mut values = &prompt.pixel_values[..];
    let mut of = |grid: &[usize; 3]| {
        let (own, rest) = values.split_at(grid.iter().product::<usize>() * limits.patch_dim());
        values = rest;
        let tokens = [grid[1] / limits.merge_size, grid[2] / limits.merge_size];
        Picture { pixels: data::image::from_patches(own, *grid, limits), tokens }
    };
    prompt.image_grid_thw.iter().map(&mut of).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What is made of a map of a picture with so many rows of image tokens and of this token's panel, and what was
    /// warned of.
    fn drawn(rows: usize, token: usize) -> (Option<[u32; 2]>, Vec<String>) {
        let picture = Picture { pixels: image::RgbImage::new(28, 28), tokens: [rows, rows] };
        let panels = [Panel { token, cosines: vec![0.1, 0.2, 0.3, 0.4] }];
        let (pictures, texts) = (&[picture][..], ["a".to_string(), "\u{1}\u{fffe}</svg>&".to_string()]);
        let map = FocusMap { prompt: "where?", pictures, texts: &texts, focus: &[0.2, 0.8], panels: &panels };
        let warned = RefCell::new(vec![]);
        let made = png_of(&map, |key, text| warned.borrow_mut().push(format!("{key}: {text}")));
        if let Some((png, _)) = &made {
            assert!(png.starts_with(b"\x89PNG"));
        }
        (made.map(|(_, size)| size), warned.into_inner())
    }

    #[test]
    fn a_focus_map_that_cannot_be_drawn_is_left_out_with_a_warning() {
        let (size, warned) = drawn(2, 1);
        assert!(size.is_some_and(|[width, height]| width > 1000 && height > 300), "{size:?} {warned:?}");
        assert_eq!(warned, Vec::<String>::new());
        // The drawing panics over a picture without image tokens, and over a token that is not there.
        for (rows, token) in [(0, 1), (2, 7)] {
            let (size, warned) = drawn(rows, token);
            assert_eq!(size, None);
            assert!(warned.len() == 1 && warned[0].starts_with("focus_map: a focus map is left out: "), "{warned:?}");
        }
    }
}
