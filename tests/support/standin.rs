//! The stand-in for CUDA of tools/standin, for tests: built once, set in the environment of a program, its log read.
#![allow(dead_code)] // each test binary uses a part

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The stand-in, built.
pub(crate) struct Standin {
    folder: PathBuf,
}

impl Standin {
    /// Builds it with gcc on the first call; none, which is said (a failure where `CI` is set), where there is no gcc.
    pub(crate) fn built() -> Option<&'static Self> {
        static BUILT: OnceLock<Option<Standin>> = OnceLock::new();
        BUILT.get_or_init(Self::build).as_ref()
    }

    fn build() -> Option<Self> {
        if Command::new("gcc").arg("--version").stdout(Stdio::null()).status().is_err() {
            super::skipped("the stand-in for CUDA is built with gcc, and there is none");
            return None;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("standin");
        // From the tests of a crate, too.
        let roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut scripts = roots.map(|root| root.join("tools/standin/build.sh"));
        let script = scripts.find(|script| script.exists()).expect("tools/standin");
        let built = Command::new("bash").arg(script).arg(&folder).status().unwrap();
        assert!(built.success(), "tools/standin/build.sh failed");
        Some(Self { folder })
    }

    /// Lets `command` find the stand-in, write its log to `place/log` and keep its kernels in `place/cache`.
    pub(crate) fn under<'a>(&self, command: &'a mut Command, place: &Path) -> &'a mut Command {
        let [driver, nvrtc] = ["driver", "nvrtc"].map(|part| self.folder.join(part));
        // What is set outside is for the program's own start, not for this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STANDIN_")) {
            command.env_remove(name);
        }
        let libraries = std::env::join_paths([driver, nvrtc]).unwrap();
        command.env("LD_LIBRARY_PATH", libraries).env("CUDA_PATH", self.folder.join("cuda"));
        command.env("STANDIN_LOG", place.join("log")).env("STANDIN_NVRTC_LOG", place.join("compiled"));
        command.env("XDG_CACHE_HOME", place.join("cache")).stdin(Stdio::null())
    }
}

impl Standin {
    /// Lets a `command` that is [`under`](Self::under) it find a stand-in for NCCL, too.
    pub(crate) fn with_nccl(&self, command: &mut Command) {
        let folders = ["driver", "nvrtc", "nccl"].map(|part| self.folder.join(part));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap());
    }
}

/// Names of the kernels that were compiled under the stand-in of NVRTC in `place`, all starts together.
pub(crate) fn compiled(place: &Path) -> Vec<String> {
    let names = std::fs::read_to_string(place.join("compiled")).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// One line of the driver's log (tools/standin/cuda.c).
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// Seconds since the start.
    pub at: f64,
    /// Its letter.
    pub kind: char,
    /// What follows.
    pub details: String,
}

impl Event {
    /// The first word of the details as a number; 0 without one.
    pub(crate) fn bytes(&self) -> u64 {
        self.details.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// The name of the kernel of a launch.
    pub(crate) fn kernel(&self) -> &str {
        self.details.split('@').next().unwrap_or_default()
    }
}

/// The log of one start.
pub(crate) struct DriverLog(pub Vec<Event>);

impl DriverLog {
    /// The log of what last ran in `place`.
    pub(crate) fn read(place: &Path) -> Self {
        let text = std::fs::read_to_string(place.join("log")).unwrap();
        let event = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let at = words.next()?.parse().ok()?;
            let kind = words.next()?.chars().next()?;
            Some(Event { at, kind, details: words.next().unwrap_or_default().to_owned() })
        };
        Self(text.lines().filter_map(event).collect())
    }

    /// Highest bytes of device memory in use.
    pub(crate) fn peak(&self) -> u64 {
        let used = |event: &Event| event.details.rsplit(' ').next().and_then(|word| word.parse().ok());
        self.0.iter().filter(|event| event.kind == 'A').filter_map(used).max().unwrap_or(0)
    }

    /// Where the downloads of `bytes` are.
    pub(crate) fn downloads(&self, bytes: u64) -> Vec<usize> {
        let is_it = |(_, event): &(usize, &Event)| event.kind == 'D' && event.bytes() == bytes;
        self.0.iter().enumerate().filter(is_it).map(|(i, _)| i).collect()
    }
}

/// Events by kind.
pub(crate) fn count(events: &[Event], kind: char) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}

/// Launches by the name of the kernel.
pub(crate) fn kernels(events: &[Event]) -> BTreeMap<&str, usize> {
    let mut names = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == 'L') {
        *names.entry(event.kernel()).or_default() += 1;
    }
    names
}
