//! `[parallel]`: what holds for a run on many devices, one process each.

use kernels::Kernels;

use super::section::section;

section! {
    /// Runs on many devices, started by `mpirun` or `srun`; see docs/many-gpus.md. The results do not depend on their
    /// number but for the order of sums.
    pub struct Parallel {
        /// Who holds gradients until the optimizer's step: 1, each rank all of its own (ZeRO-1); 2, each rank the sums of
        /// its part, which are exchanged in every pass (ZeRO-2). 0: 1 on a processor, 2 on a GPU.
        zero: usize = 0 => 0..=2,
        /// Seconds that a rank waits for the others before the run is ended, with the name of who is late.
        timeout_s: f64 = 900.0 => ..=1e7,
        /// Sum gradients as whole numbers of 2^-40, each group computed by itself: any number of ranks then writes the
        /// same weights, to the bit, and a difference is a mistake. Slow, and for processors.
        exact_sums: bool = false,
        /// Compare each call's name over the ranks before it is made: for hunts, it costs a round trip a call.
        check: bool = false,
    }
}

impl Parallel {
    /// 1 or 2: what `zero` means on a device.
    pub fn zero_stage<B: Kernels>(&self, device: &B::Device) -> usize {
        match self.zero {
            0 if B::device_memory(device).is_some() => 2,
            0 => 1,
            stage => stage,
        }
    }
}

impl super::Settings for Parallel {
    fn validate(&self, checks: &mut super::Checks) {
        checks.positive(self.timeout_s, "timeout_s");
    }
}
