//! A device that computes wrongly on purpose, for tests; not in release programs, where [`touch`] does nothing.
//!
//! Wrong is an input: the device gets another number than the CPU, so that its answer is that of another question, as
//! it would be if an operation read where it should not.

#[cfg(debug_assertions)]
use std::cell::Cell;

#[cfg(debug_assertions)]
thread_local! {
    static CHECK: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Runs `work`, during which everything that the check of this name gives to the device is wrong in one place.
#[cfg(debug_assertions)]
pub fn wrong_in<T>(check: &'static str, work: impl FnOnce() -> T) -> T {
    struct Healed;
    impl Drop for Healed {
        fn drop(&mut self) {
            CHECK.set(None);
        }
    }
    let _restore = Healed;
    CHECK.set(Some(check));
    work()
}

/// The check that is to be wrong in this thread, or in the whole process by `VISUAL_RL_WRONG_CHECK`.
#[cfg(debug_assertions)]
fn is_wrong(check: &str) -> bool {
    static OF_PROCESS: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let of_process = OF_PROCESS.get_or_init(|| std::env::var("VISUAL_RL_WRONG_CHECK").ok());
    CHECK.get() == Some(check) || of_process.as_deref() == Some(check)
}

/// Moves the values on their way to the device, if this check is to be wrong.
#[cfg(debug_assertions)]
pub(crate) fn touch(check: &str, values: &mut [f32]) {
    let len = values.len();
    if len > 0 && is_wrong(check) {
        // In the middle and not at an end, which may be padding; a block and not one value, which a gate may shut out.
        values[len / 3..(2 * len).div_ceil(3)].iter_mut().for_each(|v| *v = 0.5 - 1.5 * *v);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn touch(_check: &str, _values: &mut [f32]) {}
