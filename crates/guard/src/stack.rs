//! Work that may recurse deeply runs on a stack of its own, whatever the caller's is.

use std::panic::resume_unwind;

/// Runs `work` on a thread with a stack of `bytes` and waits for it. A panic of `work` goes on in the caller.
///
/// # Errors
/// A system that gives no thread or no room for its stack (`ulimit -u`, `ulimit -v`).
pub fn on_stack<T: Send>(bytes: usize, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, work).map_err(no_thread)?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// What to say where the system lets no thread be started.
pub fn no_thread(error: std::io::Error) -> String {
    format!("the system lets no thread be started ({error}); raise the limits of processes and memory (ulimit -u, -v)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(n: u64) -> u64 {
        let here = std::hint::black_box([n; 64]);
        if n == 0 { 0 } else { depth(n - 1) + here[0] / n }
    }

    #[test]
    fn deep_recursion_has_its_own_stack() {
        // 50,000 frames of more than 512 bytes: more than the 2 MiB that a test's thread has.
        assert_eq!(on_stack(256 << 20, || depth(50_000)), Ok(50_000));
        let error = on_stack(usize::MAX >> 1, || 0).unwrap_err();
        assert!(error.contains("ulimit"), "{error}");
    }
}
