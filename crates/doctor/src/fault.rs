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

/// Moves the values on their way to the device, if this check is to be wrong.
#[cfg(debug_assertions)]
pub(crate) fn touch(check: &str, values: &mut [f32]) {
    let len = values.len();
    if CHECK.get() == Some(check) && len > 0 {
        // In the middle and not at an end, which may be padding; a block and not one value, which a gate may shut out.
        values[len / 3..(2 * len).div_ceil(3)].iter_mut().for_each(|v| *v = 0.5 - 1.5 * *v);
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn touch(_check: &str, _values: &mut [f32]) {}
