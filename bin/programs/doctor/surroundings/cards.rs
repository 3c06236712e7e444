//! The driver, its card, and the libraries that CUDA programs load: whether they are there, and fit one another.

use comm::Ranks;
use doctor::Finding;
#[cfg(not(feature = "cuda"))]
use doctor::Verdict;

pub(super) fn examine(ranks: &Ranks, add: &mut impl FnMut(Finding)) {
    #[cfg(feature = "cuda")]
    cuda::examine(ranks, add);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = ranks;
        add(without());
    }
}

/// Of a program that was built without CUDA: whether it should not have been.
#[cfg(not(feature = "cuda"))]
fn without() -> Finding {
    let driver = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    match driver.lines().next() {
        Some(line) => Finding::around(
            "card",
            Verdict::Warning,
            format!("there is a driver ({}), and this program was built without CUDA", line.trim()),
            "build with --features cuda to train on the card",
        ),
        None => Finding::not_here("card", "no NVIDIA driver on this machine; this program was built without CUDA"),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use comm::Ranks;
    use doctor::{Finding, Verdict};
    use model_qwen2vl::ops::nccl;

    use super::super::gib;
    use crate::common::cuda::{CudaPresence, memory, name, presence};

    pub(super) fn examine(ranks: &Ranks, add: &mut impl FnMut(Finding)) {
        let card = match presence() {
            CudaPresence::Absent => {
                return add(Finding::not_here("card", "no NVIDIA card was found, or no driver: a processor computes"));
            }
            CudaPresence::Unusable(why) => {
                let to_do = "install what is missing, or train with --backend flex";
                return add(Finding::around("card", Verdict::Error, why, to_do));
            }
            CudaPresence::There(card) => card,
        };
        let memory =
            memory().map_or("memory not told".into(), |[free, all]| format!("{} of {} free", gib(free), gib(all)));
        let [major, minor] = card.capability();
        let found = format!("{}, compute capability {major}.{minor}, {memory}", name().unwrap_or_default());
        add(match major < 8 {
            true => Finding::around(
                "card",
                Verdict::Warning,
                found,
                "tensor cores for bf16 begin with compute capability 8.0: set trainer.dtype=f32, or take another card",
            ),
            false => Finding::around("card", Verdict::Right, found, ""),
        });
        let (driver, compiler) = (card.driver(), card.compiler());
        let found =
            format!("the driver is for CUDA {}.{}, NVRTC is {}.{}", driver[0], driver[1], compiler[0], compiler[1]);
        add(match compiler > driver {
            true => Finding::around(
                "nvrtc",
                Verdict::Error,
                found,
                format!(
                    "the driver does not load what a newer compiler writes: update the driver, or put libnvrtc of CUDA {}.{} \
                     or older first into LD_LIBRARY_PATH",
                    driver[0], driver[1]
                ),
            ),
            false => Finding::around("nvrtc", Verdict::Right, found, ""),
        });
        add(match nccl::version() {
            Ok(version) => {
                let found = format!("NCCL {}.{}.{}", version / 10_000, version / 100 % 100, version % 100);
                Finding::around("nccl", Verdict::Right, found, "")
            }
            Err(missing) if ranks.is_solo() => {
                Finding::not_here("nccl", &format!("needed on several cards alone; {}", missing.0))
            }
            Err(missing) => {
                Finding::around("nccl", Verdict::Error, "not found, and there are several ranks", missing.0)
            }
        });
    }
}
