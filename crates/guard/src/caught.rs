//! Libraries that read foreign files panic on some of them; here such a panic becomes an error.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use crate::echo::echo;

thread_local! {
    /// Whether this thread is in foreign code whose panics are caught.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`.
///
/// # Errors
/// The text of its panic, which is printed nowhere.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                others(panic);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    // What `work` leaves half done is its own: nothing of it is used after a panic.
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    done.map_err(|panic| panic_text(panic.as_ref()))
}

/// What a panic says, cut to one line.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => echo(text),
        (None, Some(text)) => echo(text),
        (None, None) => "a panic without a text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| -> u8 { panic!("as text") }), Err("as text".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("with {}", 2) }), Err("with 2".to_owned()));
        assert_eq!(caught(|| caught(|| -> u8 { panic!("inside") }).is_err() && CAUGHT.get()), Ok(true));
        assert!(!CAUGHT.get());
    }
}
