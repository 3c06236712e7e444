//! Compiled kernels are kept between starts in the user's cache folder, or in the one that [`FOLDER`] names.
//!
//! CubeCL keys what it keeps by a kernel's Rust name and compile-time arguments alone: a kernel whose source has
//! changed since, another card or compiler would be given what does not belong to it. So each program's build, card,
//! driver and compiler have a folder of their own: `visual-rl/kernels/KEY/SLOT`. CubeCL does not expect a file that was
//! cut off or damaged either: the length and checksum of what a program left behind are kept beside it, and what does
//! not agree is dropped. A slot belongs to one running program at a time.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// The environment variable that names another folder.
const FOLDER: &str = "VISUAL_RL_CACHE";
/// Programs that may use one key at the same time; what starts after these compiles for itself.
const SLOTS: usize = 16;
/// Keys that were not used for so long go.
const OLD: Duration = Duration::from_secs(30 * 24 * 3600);

/// The slot of this program, until its end.
static SLOT: OnceLock<KernelSlot> = OnceLock::new();

struct KernelSlot {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

/// What this program keeps between its starts.
fn cache() -> Option<PathBuf> {
    let named = std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(dirs::cache_dir()?.join("visual-rl")))
}

/// The folder that CubeCL may keep kernels in; none where the system has no cache folder, or no room in it, which is
/// said.
pub(crate) fn open(card: &impl std::fmt::Display) -> Option<PathBuf> {
    let take = || -> io::Result<KernelSlot> {
        let kernels =
            cache().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no cache folder"))?.join("kernels");
        let key = kernels.join(format!("{card}-{}", build()?));
        let slot = (0..SLOTS).find_map(|i| KernelSlot::lock(&key.join(i.to_string())).transpose()).transpose()?;
        let slot = slot.ok_or_else(|| io::Error::other("all of its slots are in use"))?;
        slot.check()?;
        forget_old(&kernels, &key);
        Ok(slot)
    };
    match take() {
        Ok(slot) => Some(SLOT.get_or_init(|| slot).folder.clone()),
        Err(e) => {
            eprintln!("warning: compiled kernels are not kept for the next start: {e}");
            None
        }
    }
}

/// Notes what is in the slot, so that the next start trusts it. At the end of a program, however it ends.
pub(crate) fn seal() {
    if let Some(slot) = SLOT.get()
        && let Err(e) = slot.seal()
    {
        eprintln!("warning: compiled kernels are not kept for the next start: {e}");
    }
}

/// Length and checksum of this program's file: other kernels, another file.
fn build() -> io::Result<String> {
    let [length, sum] = measure(&std::env::current_exe()?, u64::MAX)?;
    Ok(format!("{length:x}-{sum:08x}"))
}

/// Length and CRC-32 of the first `most` bytes.
fn measure(file: &Path, most: u64) -> io::Result<[u64; 2]> {
    let mut file = File::open(file)?.take(most);
    let (mut sum, mut buffer) = (crc32fast::Hasher::new(), vec![0; 1 << 20]);
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok([length, u64::from(sum.finalize())]),
            n => {
                sum.update(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}

impl KernelSlot {
    /// None where another program has it.
    fn lock(folder: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { folder: folder.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    fn sum(&self) -> PathBuf {
        self.folder.join("sum")
    }

    /// CubeCL's file of kernels; none before the first one.
    fn chunk(&self) -> Option<PathBuf> {
        let versions = fs::read_dir(self.folder.join("cuda")).ok()?;
        versions.flatten().map(|version| version.path().join("ptx/chunk0.cbor")).find(|chunk| chunk.exists())
    }

    /// Drops what the last program did not note, or what has changed since.
    fn check(&self) -> io::Result<()> {
        let Some(chunk) = self.chunk() else { return Ok(()) };
        // Which file has which kernel: there is one file only, and it is read whole.
        let contents = chunk.with_file_name("toc.json.log");
        if contents.exists() {
            fs::remove_file(contents)?;
        }
        let noted = fs::read_to_string(self.sum()).unwrap_or_default();
        let noted: Vec<u64> = noted.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match noted[..] {
            [length, sum] if measure(&chunk, length)? == [length, sum] => {
                File::options().write(true).open(&chunk)?.set_len(length)
            }
            _ => {
                if !noted.is_empty() {
                    eprintln!("warning: {} is damaged; its kernels are compiled again", chunk.display());
                }
                fs::remove_file(chunk)
            }
        }
    }

    fn seal(&self) -> io::Result<()> {
        let Some(chunk) = self.chunk() else { return Ok(()) };
        let [length, sum] = measure(&chunk, u64::MAX)?;
        let new = self.folder.join("sum.new");
        File::create(&new)?.write_all(format!("{length} {sum}\n").as_bytes())?;
        fs::rename(new, self.sum())
    }
}

/// Removes the folders of builds that are not started any more. One that cannot be removed does no harm.
fn forget_old(kernels: &Path, own: &Path) {
    let is_old = |sum: PathBuf| {
        let age = sum.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        age.is_some_and(|age| age > OLD)
    };
    for key in fs::read_dir(kernels).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if key != own && is_old(key.join("0/sum")) && matches!(KernelSlot::lock(&key.join("0")), Ok(Some(_))) {
            let _ = fs::remove_dir_all(key);
        }
    }
}
