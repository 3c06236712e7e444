//! Whether a device computes what it should: its products, its operations and whole steps beside those of the CPU, at
//! the widths of the model that is to run on it.
//!
//! ```no_run
//! # type B = burn_flex::Flex<f32, i32>;
//! use burn::tensor::DType;
//! use doctor::{Examined, examine};
//! use model_qwen2vl::QwenVlConfig;
//!
//! let config = QwenVlConfig::preset("3b").ok_or("there is no such preset")?;
//! let examined = Examined::<B> { config, dtype: DType::F32, device: Default::default() };
//! examine(&examined, |finding| println!("{}", finding.line()));
//! # Ok::<(), &'static str>(())
//! ```
//!
//! | question | file |
//! |---|---|
//! | what was found, as a line and as JSON | `finding` |
//! | the same numbers on the device and on the CPU | `sides` |
//! | what is checked | `checks/`, one subject per file |
//! | products in the three layouts of training, right and how fast | [`product`] |
//! | a device that is wrong on purpose, for tests | [`fault`] |
//!
//! [`examine`] is the long form, [`refuse_wrong`] the short one that comes before a run. Nothing here trusts what it
//! asks of the device: inputs are made on the host or read back from the device, and answers are compared with the
//! plain tensor operations on the CPU or with sums in f64.

mod checks;
pub mod fault;
mod finding;
pub mod product;
mod sides;

use std::time::Instant;

use burn::tensor::DType;
use kernels::Kernels;
use model_qwen2vl::QwenVlConfig;
use rl::TrainError;

pub use checks::memory::fill;
use finding::Comparisons;
pub use finding::{Finding, Verdict};
use sides::Sides;

/// What is to run on the device.
#[derive(Debug, Clone)]
pub struct Examined<B: Kernels> {
    /// The architecture: the checks have its widths.
    pub config: QwenVlConfig,
    /// Number format of weights and activations.
    pub dtype: DType,
    /// The device.
    pub device: B::Device,
}

/// One thing that is looked at.
type NamedCheck<B> = (&'static str, fn(&Sides<B>) -> Result<Comparisons, TrainError>);

/// Everything of the long form that needs no process of its own, in order; `say` is told of each finding as it comes.
pub fn examine<B: Kernels>(subject: &Examined<B>, mut say: impl FnMut(&Finding)) -> Vec<Finding> {
    let sides = Sides::new(subject, true);
    checks::long::<B>().map(|check| look(&sides, check, &mut say)).collect()
}

/// The short form, of seconds: products and operations in the number format of the run, on few rows.
pub fn examine_briefly<B: Kernels>(subject: &Examined<B>, mut say: impl FnMut(&Finding)) -> Vec<Finding> {
    let sides = Sides::new(subject, false);
    checks::short::<B>().map(|check| look(&sides, check, &mut say)).collect()
}

/// The short form before a run.
///
/// # Errors
/// [`TrainError::Untrusted`] with the line of the first check that found a wrong value.
pub fn refuse_wrong<B: Kernels>(subject: &Examined<B>) -> Result<(), TrainError> {
    let sides = Sides::new(subject, false);
    for check in checks::short::<B>() {
        let finding = look(&sides, check, &mut |_| {});
        if finding.verdict == Verdict::Wrong {
            return Err(TrainError::Untrusted(format!(
                "{}; run `doctor` for all checks; trainer.check_device = false trains all the same",
                finding.line()
            )));
        }
    }
    Ok(())
}

fn look<B: Kernels>(sides: &Sides<B>, (name, check): NamedCheck<B>, say: &mut impl FnMut(&Finding)) -> Finding {
    sides.begin(name);
    let clock = Instant::now();
    let finding = Finding::of(name, check(sides), clock.elapsed().as_secs_f64());
    say(&finding);
    finding
}
