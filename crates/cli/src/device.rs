//! What becomes of a fault of the device: one line and the end of the program, before another number is used.
//!
//! CubeCL gives work to a thread per device (`DSD-..`, `DSU-..`). A panic there (no memory, a driver that vanished) is
//! caught by the library and logged, nothing more: what the lost work should have written keeps what the memory pool
//! held, and the program goes on with it. [`watch`] ends the program instead, from the hook of the panic. Errors that
//! the library does report reach the program as texts of many lines; [`explain`] makes one line of them.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread::ThreadId;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::ranks;

/// What a program says about its device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceWatch {
    /// The settings of this program that need less memory, as words after "lower".
    pub lowers: &'static str,
    /// Bytes of device memory that are free, and that there are, where that can be asked from any thread.
    pub memory: fn() -> Option<[u64; 2]>,
    /// What is left to do when a fault ends the program; may run on any thread.
    pub at_end: fn(),
}

static WATCH: OnceLock<(DeviceWatch, ThreadId)> = OnceLock::new();
/// Set while a device is tried out: its faults are an answer then, not an end.
static TRYING: AtomicBool = AtomicBool::new(false);
/// The first fault of the device that is being tried out.
static FAULT: Mutex<Option<String>> = Mutex::new(None);
thread_local! {
    /// What the last panic of this thread said: the library's own word of it, which follows, has no cause.
    static SAID: RefCell<Option<Said>> = const { RefCell::new(None) };
}

/// A panic that the library will log.
struct Said {
    fault: String,
    /// Whether the device was being tried out. By the time of the library's word the trial may be over: what waits for
    /// a lost task wakes up as soon as the panic drops it, before that word.
    tried: bool,
}

/// From here on a panic on a thread of the device ends the program with one line and exit code 1. To be called on the
/// thread that uses the device, before it does; a second call changes nothing.
pub fn watch(watch: DeviceWatch) {
    if WATCH.set((watch, std::thread::current().id())).is_err() {
        return;
    }
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let library = panic.location().is_some_and(|place| is_library(place.file()));
        let tried = TRYING.load(Ordering::SeqCst) && is_own_thread();
        if !library && !tried && !is_device_thread() {
            return others(panic);
        }
        let fault = explain(&text(panic.payload()));
        let tried = trying(&fault);
        SAID.set(Some(Said { fault: fault.clone(), tried }));
        if tried {
            return;
        }
        match is_own_thread() {
            // It unwinds as any other panic, so that half-written files go.
            true => {
                last_word();
                ranks::end(1, &fault);
                eprintln!("error: {fault}");
            }
            false => end(&fault),
        }
    }));
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

/// Runs `work`, which finds out whether a device can be used.
///
/// # Errors
/// The first fault of the device in one line, or that of `work` itself where it panics.
pub fn try_out<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    *fault() = None;
    TRYING.store(true, Ordering::SeqCst);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    TRYING.store(false, Ordering::SeqCst);
    match (fault().take(), done) {
        (Some(fault), _) => Err(fault),
        (None, Ok(done)) => Ok(done),
        (None, Err(panic)) => Err(explain(&text(panic.as_ref()))),
    }
}

fn fault() -> std::sync::MutexGuard<'static, Option<String>> {
    FAULT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Keeps the fault of a device that is being tried out.
fn trying(text: &str) -> bool {
    let trying = TRYING.load(Ordering::SeqCst);
    if trying {
        fault().get_or_insert_with(|| text.to_owned());
    }
    trying
}

/// One line, and the end, unless the program is ending already: then there is nothing left that could use a number.
fn end(fault: &str) {
    if !is_first() {
        return;
    }
    if !ranks::several() {
        eprintln!("error: {fault}");
    }
    // On a thread that is not in a panic: what drivers do at the exit of a process may panic itself, and that would
    // abort.
    let fault = fault.to_owned();
    let exit = move || {
        if let Some((watch, _)) = WATCH.get() {
            (watch.at_end)();
        }
        ranks::end(1, &fault);
        std::process::exit(1)
    };
    if std::thread::Builder::new().spawn(exit).is_err() {
        std::process::abort();
    }
    loop {
        std::thread::park();
    }
}

/// Whether this is the first thread that ends the program. What another one would say follows from the first fault.
fn is_first() -> bool {
    static FIRST: OnceLock<ThreadId> = OnceLock::new();
    let own = std::thread::current().id();
    *FIRST.get_or_init(|| own) == own
}

/// Returns where no other thread is ending the program; waits for that end otherwise. To be called before a program
/// says why it ends.
pub fn last_word() {
    while !is_first() {
        std::thread::park();
    }
}

fn is_own_thread() -> bool {
    WATCH.get().is_some_and(|(_, own)| *own == std::thread::current().id())
}

fn is_device_thread() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("DSD-") || name.starts_with("DSU-"))
}

/// Whether a source file belongs to what drives devices.
fn is_library(file: &str) -> bool {
    ["cubecl", "cubek", "cudarc", "wgpu", "burn-cubecl"].iter().any(|name| file.contains(&format!("/{name}-")))
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// Shows what the libraries below the kernels warn of, and ends the program where they lost work.
struct DeviceLog;
static LOGGER: DeviceLog = DeviceLog;

impl Log for DeviceLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let ours = ["cubecl", "cubek", "burn"].iter().any(|name| metadata.target().starts_with(name));
        ours && metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        // A task whose panic was caught; its hook has ended the program, unless the panic was passed on without one.
        if let Some(task) = text.strip_prefix("Task failed: ") {
            if let Some(fault) = of_lost_task(task) {
                end(&fault);
            }
        } else if !TRYING.load(Ordering::SeqCst) {
            eprintln!("warning: {}{}: {}", ranks::prefix(), record.target(), guard::echo(&text));
        }
    }

    fn flush(&self) {}
}

/// The fault that ends the program where the library says that it lost a task, on the thread of that task.
fn of_lost_task(task: &str) -> Option<String> {
    let without_hook = || {
        let fault = format!("the device failed: lost work ({})", guard::echo(task));
        Said { tried: trying(&fault), fault }
    };
    let said = SAID.take().unwrap_or_else(without_hook);
    (!said.tried).then_some(said.fault)
}

/// One line for what the libraries say of a fault in many: the bytes that could not be had, the kernel that does not
/// compile, the driver's error, or else the first line that says something.
pub fn explain(text: &str) -> String {
    if let Some(bytes) = after(text, "allocate buffer of size: ").and_then(number) {
        return out_of_memory(Some(bytes));
    }
    if text.contains("CUDA_ERROR_OUT_OF_MEMORY") {
        return out_of_memory(None);
    }
    if let Some(log) = after(text, "[Compilation Error]") {
        let source = after(text, "[Source]").unwrap_or_default();
        let reason = log.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason is given");
        return format!("the device failed: kernel {} does not compile: {}", kernel(source), guard::echo(reason));
    }
    if let Some(rest) = after(text, "CUDA_ERROR_") {
        let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let what = if text.contains("during launch") { "a kernel could not be launched: " } else { "" };
        return format!("the device failed: {what}CUDA_ERROR_{name}");
    }
    let dull = ["Caused by:", "Backtrace", "An error happened", "The server is in", "An execution error", "["];
    let line = text.lines().map(str::trim).find(|line| {
        let line = line.trim_start_matches("the device failed: ");
        !line.is_empty() && !dull.iter().any(|start| line.starts_with(start))
    });
    let line = line.unwrap_or("no reason is given").trim_start_matches("the device failed: ");
    format!("the device failed: {}", guard::echo(line))
}

/// The message of an error that may be a device's: that one in one line, any other as it is.
pub fn message(text: String) -> String {
    match text.contains("the device failed: ") && text.contains('\n') {
        true => explain(&text),
        false => text,
    }
}

fn out_of_memory(bytes: Option<u64>) -> String {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let asked = bytes.map_or(String::new(), |bytes| format!(": {:.3} GiB were asked for", gib(bytes)));
    let watch = WATCH.get().map(|(watch, _)| *watch);
    let there = watch.and_then(|watch| (watch.memory)()).map_or(String::new(), |[free, all]| {
        format!("{}{:.3} of {:.3} GiB were free", if asked.is_empty() { ": " } else { ", " }, gib(free), gib(all))
    });
    let lowers = watch.map_or(String::new(), |watch| format!("; lower {}", watch.lowers));
    format!("the device is out of memory{asked}{there}{lowers}")
}

fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

fn number(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

/// The name of the kernel in a CUDA source: what stands before its parameters, after attributes with parentheses of
/// their own.
fn kernel(source: &str) -> &str {
    let mut rest = after(source, "__global__").unwrap_or_default();
    while let Some((words, parameters)) = rest.split_once('(') {
        let name = words.split_whitespace().last().unwrap_or_default();
        if !name.starts_with("__") && !name.is_empty() {
            return name;
        }
        rest = after(parameters, ")").unwrap_or_default();
    }
    "without a name"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts as CubeCL 0.10 writes them.
    #[test]
    fn a_fault_is_one_line_with_its_cause() {
        for (text, line) in [
            (
                "called `Result::unwrap()` on an `Err` value: can't allocate buffer of size: 1610612736\nNo backtrace",
                "the device is out of memory: 1.500 GiB were asked for",
            ),
            (
                "the device failed: An error happened during execution\nCaused by:\n  The server is in an invalid state\n\
                 Caused by:\n  [An execution error happened during profiling\nCaused by:\n  can't allocate buffer of \
                 size: 536870912\nNo backtrace available]",
                "the device is out of memory: 0.500 GiB were asked for",
            ),
            (
                "A compilation error happened during launch\nCaused by:\n  An error caused the compilation to fail\n\
                 Caused by:\n  [Compilation Error] \n    default_program(3): error: no such thing\n    1 error\n[Source]  \n\
                 extern \"C\" __global__ void __launch_bounds__(256)\nadd_one(\nfloat* x) {",
                "the device failed: kernel add_one does not compile: default_program(3): error: no such thing",
            ),
            (
                "An unknown error happened during launch\nCaused by:\n  DriverError(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, \
                 \"too many resources\")",
                "the device failed: a kernel could not be launched: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
            ),
            (
                "called `Result::unwrap()` on an `Err` value: DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"illegal\")",
                "the device failed: CUDA_ERROR_ILLEGAL_ADDRESS",
            ),
            ("the device failed: it went away\nfar away", "the device failed: it went away"),
            (
                "the device failed: An error happened during execution\nCaused by:\n  a cable",
                "the device failed: a cable",
            ),
            ("", "the device failed: no reason is given"),
        ] {
            assert_eq!(explain(text), line, "{text}");
        }
        let said = "backend cuda: its first computation fails: the device failed: CUDA_ERROR_UNKNOWN; --backend flex";
        assert_eq!(message(said.into()), said);
        assert_eq!(message("no file\nof that name".into()), "no file\nof that name");
        assert_eq!(message("the device failed: a\nb".into()), "the device failed: a");
    }

    #[test]
    fn a_kernel_has_the_name_before_its_parameters() {
        assert_eq!(
            kernel("extern \"C\" __global__ void __launch_bounds__(64) __cluster_dims__(1, 1) k_1 (int a)"),
            "k_1"
        );
        assert_eq!(kernel("__global__ void plain(int a)"), "plain");
        assert_eq!(kernel("nothing"), "without a name");
    }

    #[test]
    fn libraries_of_devices_are_known_by_their_files() {
        assert!(is_library("/registry/src/x/cubecl-cuda-0.10.0/src/compute/server.rs"));
        assert!(!is_library("crates/kernels/src/ops/cube/launch.rs"));
    }

    #[test]
    fn a_device_that_panics_while_it_is_tried_out_is_an_answer() {
        assert_eq!(try_out(|| 3), Ok(3));
        assert_eq!(try_out(|| -> u8 { panic!("no driver") }), Err("the device failed: no driver".to_owned()));
        // The library's word of a lost task comes after the panic, and the trial may be over by then.
        let said = |tried| Some(Said { fault: "no memory".into(), tried });
        SAID.set(said(true));
        assert_eq!(of_lost_task("Any"), None);
        SAID.set(said(false));
        assert_eq!(of_lost_task("Any").as_deref(), Some("no memory"));
        assert_eq!(of_lost_task("Any").as_deref(), Some("the device failed: lost work (Any)"));
        assert_eq!(try_out(|| of_lost_task("Any")), Err("the device failed: lost work (Any)".to_owned()));
    }
}
