//! Worst rows first (`data.worst_first`): the first step of a stage takes the rows that cost most.

use kernels::Kernels;

use super::Trainer;
use crate::error::TrainError;
use crate::policy::Policy;
use crate::prompts::Prompts;

impl<B: Kernels, P: Policy<B> + Sync> Trainer<B, P> {
    /// Before the first step of a stage whose steps take `count` rows: lets those of its first epoch that cost most
    /// come first. Where they stand goes into the cursor, and with it into every checkpoint: a resumed stage looks at
    /// no row again, and goes on in the same order even where the key was changed.
    ///
    /// # Errors
    /// As [`Prompts::sizes`].
    pub(super) fn put_worst_first(&mut self, count: usize, prompts: &Prompts) -> Result<(), TrainError> {
        let begun = self.state.stage_step > 0 || self.state.unvalidated.is_some();
        if begun || (self.state.cursor.epoch, self.state.cursor.position) != (0, 0) {
            return Ok(());
        }
        self.state.cursor.first.clear();
        if !self.setup.config.data.worst_first {
            return Ok(());
        }
        let sizes = prompts.sizes(&self.state.cursor, count)?;
        self.state.cursor.first = sizes.worst.iter().map(|(place, _)| *place).collect();
        if let Some((_, worst)) = sizes.worst.first() {
            self.setup.progress.note(&format!(
                "worst rows first: the first step takes the {} of {} rows that cost most; the longest is {}, a prompt of \
                 {} tokens, {} of them of pictures",
                sizes.worst.len(),
                sizes.usable,
                prompts.place(worst.row),
                worst.prompt,
                worst.image
            ));
        }
        Ok(())
    }
}
