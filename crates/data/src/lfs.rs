//! Pointers of Git LFS: what lies in the place of a large file in a repository that was cloned without Git LFS.

/// Why such a file cannot be used, and the way out.
pub(crate) const REASON: &str = "is a Git LFS pointer, not the file itself, which was never fetched; run `git lfs pull` in its repository (git-lfs must be installed)";

/// Whether `bytes`, the beginning of a file or all of it, are a pointer.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(b"version https://git-lfs.github.com/spec/")
}
