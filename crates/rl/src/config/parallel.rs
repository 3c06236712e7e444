//! `[parallel]`: what holds for a run on many devices, one process each.

use super::section::section;

section! {
    /// Runs on many devices, started by `mpirun` or `srun`; see docs/many-gpus.md. The results do not depend on their
    /// number but for the order of sums.
    pub struct Parallel {
        /// Seconds that a rank waits for the others before the run is ended, with the name of who is late.
        timeout_s: f64 = 900.0 => ..=1e7,
        /// Compare each call's name over the ranks before it is made: for hunts, it costs a round trip a call.
        check: bool = false,
    }
}

impl super::Settings for Parallel {
    fn validate(&self, checks: &mut super::Checks) {
        checks.positive(self.timeout_s, "timeout_s");
    }
}
