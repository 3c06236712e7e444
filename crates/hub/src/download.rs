//! From the hub into the cache. A file is fetched once on a machine, whoever asks for it; what a broken connection or
//! an ended process has left is gone on with; and what came is compared with the hash that the hub named before.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cache::{RepoCache, make_folder_of};
use crate::http::{HubCall, TRIES, is_for_later, json};
use crate::name::RepoName;
use crate::{Hub, HubError, RepoKind, at};

/// Files above this many bytes are said to be under way.
const LARGE: u64 = 32 << 20;

/// Bytes of one connection that count as progress: a connection that brings less is one that failed.
const PROGRESS: u64 = 64 << 10;

/// What the hub says of a file before it is fetched.
#[derive(Debug, Clone, PartialEq)]
struct Promise {
    /// SHA-256 of a large file, git's SHA-1 of a small one.
    etag: String,
    bytes: u64,
}

/// What a repository holds at a revision.
struct Listing {
    commit: String,
    files: Vec<String>,
}

/// Whether a model folder's loader may want a file: descriptions, tokenizers, weights as safetensors.
pub fn is_of_model(file: &str) -> bool {
    let known = [".json", ".safetensors", ".jinja", ".txt"];
    !file.contains('/') && !file.starts_with('.') && known.iter().any(|ending| file.ends_with(ending))
}

impl Hub {
    /// The folder with the files of a repository that `wanted` chooses, fetched as far as they are not here. Where the
    /// hub cannot be reached, has no time (429, 5xx) or may not be asked, the snapshot that is here has to do.
    ///
    /// # Errors
    /// A repository or revision that is not there, gated or private; no network and nothing in the cache; files that
    /// are not what the hub said; a disk that refuses.
    pub fn snapshot(
        &self,
        kind: RepoKind,
        name: &RepoName,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<PathBuf, HubError> {
        let here = self.cached_snapshot(kind, name);
        if self.offline {
            return here.ok_or_else(|| HubError::Offline { id: name.to_string(), cache: self.cache.clone() });
        }
        let from_cache = |why: String| {
            (self.note)(&format!("warning: {} {why}; {name} is taken from the cache", self.endpoint));
        };
        let listing = match (self.list(kind, name), here) {
            (Err(HubError::Unreachable { reason, .. }), Some(here)) => {
                from_cache(format!("cannot be reached ({reason})"));
                return Ok(here);
            }
            (Err(HubError::Answer { status, .. }), Some(here)) if is_for_later(status) => {
                from_cache(format!("answers {status}"));
                return Ok(here);
            }
            (listing, _) => listing?,
        };
        let cache = self.cached(kind, name);
        let mut any = false;
        for file in listing.files.iter().filter(|file| wanted(file)) {
            safe(file)?;
            self.file(kind, name, &cache, &listing.commit, file)?;
            any = true;
        }
        if !any {
            return Err(HubError::NoSuchFiles { id: name.to_string(), endpoint: self.endpoint.clone() });
        }
        // All that was asked for is here: a cache that may only be read, shared by many, is no reason to stop.
        if let Err(error) = cache.set_reference(&name.revision, &listing.commit) {
            (self.note)(&format!("warning: {error}; without the network {name} will not be found in the cache"));
        }
        Ok(cache.entry(&listing.commit, ""))
    }

    /// What a repository holds.
    fn list(&self, kind: RepoKind, name: &RepoName) -> Result<Listing, HubError> {
        let RepoName { id, revision } = name;
        let address = format!("{}/api/{}/{id}/revision/{}", self.endpoint, kind.plural(), name.revision_in_address());
        let unreachable =
            |reason| HubError::Unreachable { endpoint: self.endpoint.clone(), id: name.to_string(), reason };
        let answer = self.answer(&HubCall::new("GET", address)).map_err(unreachable)?;
        if answer.status() != 200 {
            return Err(self.refusal(answer, id, revision, &format!("the files of {name}")));
        }
        let what = format!("the files of {name}");
        let value = json(answer, &what)?;
        let files = value["siblings"].as_array().into_iter().flatten();
        let files = files.filter_map(|file| file["rfilename"].as_str().map(str::to_string)).collect();
        // It becomes the name of a folder.
        let is_hash =
            |commit: &&str| (1..=64).contains(&commit.len()) && commit.chars().all(|c| c.is_ascii_alphanumeric());
        match value["sha"].as_str().filter(is_hash) {
            Some(commit) => Ok(Listing { commit: commit.to_string(), files }),
            None => Err(HubError::Answer { what, status: 200, detail: " without a commit".into() }),
        }
    }

    /// Brings one file of a commit into the cache.
    fn file(
        &self,
        kind: RepoKind,
        name: &RepoName,
        cache: &RepoCache,
        commit: &str,
        file: &str,
    ) -> Result<(), HubError> {
        if cache.entry(commit, file).exists() {
            return Ok(());
        }
        let encoded = file.split('/').map(percent).collect::<Vec<_>>().join("/");
        let address = format!("{}/{}{}/resolve/{commit}/{encoded}", self.endpoint, kind.prefix(), name.id);
        let promise = self.promise(name, &address, file)?;
        let blob = cache.blob(&promise.etag);
        make_folder_of(&blob)?;
        // Another process, or another rank, may be fetching it.
        let _turn = cache.lock(&promise.etag)?;
        if !blob.exists() && !cache.entry(commit, file).exists() {
            self.fetch(&address, file, &promise, &blob)?;
        }
        cache.link(commit, file, &promise.etag)
    }

    /// Asks what a file is, without fetching it.
    fn promise(&self, name: &RepoName, address: &str, file: &str) -> Result<Promise, HubError> {
        let unreachable =
            |reason| HubError::Unreachable { endpoint: self.endpoint.clone(), id: name.to_string(), reason };
        // Where the file lies says nothing of its hash: the hub's own answer does.
        let ask = HubCall { elsewhere: false, ..HubCall::new("HEAD", address.to_string()) }
            .header("Accept-Encoding", "identity");
        let answer = self.answer(&ask).map_err(unreachable)?;
        if answer.status() >= 400 {
            return Err(self.refusal(answer, &name.id, &name.revision, &format!("{file} of {name}")));
        }
        let of = |header: &str| answer.header(header).map(str::to_string);
        let etag = of("x-linked-etag").or_else(|| of("etag")).unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_string();
        let bytes = of("x-linked-size").or_else(|| of("content-length")).and_then(|size| size.parse().ok());
        match bytes {
            Some(bytes) if etag.len() >= 8 && etag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
                Ok(Promise { etag, bytes })
            }
            _ => Err(HubError::Answer {
                what: format!("{file} of {name}"),
                status: answer.status(),
                detail: " without size and etag; is HF_ENDPOINT a mirror of the hub?".into(),
            }),
        }
    }

    /// Fetches the rest of a file, checks the whole, and gives it its name.
    fn fetch(&self, address: &str, file: &str, promise: &Promise, blob: &Path) -> Result<(), HubError> {
        let mut partial = blob.as_os_str().to_owned();
        partial.push(".incomplete");
        let partial = PathBuf::from(partial);
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial);
        let mut target = open.map_err(at(&partial))?;
        if promise.bytes > LARGE {
            (self.note)(&format!("downloading {file} ({:.1} GiB)", promise.bytes as f64 / (1u64 << 30) as f64));
        }
        let found = target.metadata().map_err(at(&partial))?.len();
        self.whole(address, file, promise, (&mut target, &partial))?;
        let mut reason = differs(&partial, promise)?;
        if reason.is_some() && found > 0 {
            // What an earlier attempt had left was of no use: once more without it.
            target.set_len(0).map_err(at(&partial))?;
            self.whole(address, file, promise, (&mut target, &partial))?;
            reason = differs(&partial, promise)?;
        }
        target.sync_all().map_err(at(&partial))?;
        drop(target);
        if let Some(reason) = reason {
            let _ = std::fs::remove_file(&partial); // the error is the one that matters
            return Err(HubError::Damaged { file: file.into(), reason });
        }
        std::fs::rename(&partial, blob).map_err(at(blob))
    }

    /// Fetches what is missing of a file, over as many connections as it takes.
    fn whole(
        &self,
        address: &str,
        file: &str,
        promise: &Promise,
        (target, partial): (&mut File, &Path),
    ) -> Result<(), HubError> {
        let (mut failures, mut pause) = (0, self.pause);
        loop {
            let before = target.metadata().map_err(at(partial))?.len();
            if before == promise.bytes {
                return Ok(());
            }
            let start = if before > promise.bytes { 0 } else { before };
            let failed = self.part(address, file, start, promise, (target, partial))?;
            let got = target.metadata().map_err(at(partial))?.len();
            if failed.is_none() && got == promise.bytes {
                return Ok(());
            }
            if got >= start + PROGRESS {
                (failures, pause) = (0, self.pause);
            }
            failures += 1;
            if failures >= TRIES {
                let reason = failed.unwrap_or_else(|| "it ends early".into());
                let left = format!("{got} of {} bytes are here ({reason}); start again to go on", promise.bytes);
                return Err(HubError::Usage(format!("{file}: {left}")));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
    }

    /// Appends what comes of a file from byte `start` on; returns why it ended early.
    fn part(
        &self,
        address: &str,
        file: &str,
        start: u64,
        promise: &Promise,
        (target, path): (&mut File, &Path),
    ) -> Result<Option<String>, HubError> {
        let mut ask = HubCall::new("GET", address.to_string()).header("Accept-Encoding", "identity");
        if start > 0 {
            ask = ask.header("Range", format!("bytes={start}-"));
        }
        let answer = match self.answer(&ask) {
            Ok(answer) => answer,
            Err(reason) => return Ok(Some(reason)),
        };
        let start = match answer.status() {
            206 if begins_at(&answer, start) => start,
            206 => return Ok(Some("other bytes came than were asked for".into())),
            200 => 0, // a server without ranges begins again
            416 if start > 0 => {
                // What is here is no beginning of what is there.
                target.set_len(0).map_err(at(path))?;
                return Ok(Some("the rest is not there".into()));
            }
            status => return Err(HubError::Answer { what: file.into(), status, detail: String::new() }),
        };
        target.set_len(start).and_then(|()| target.seek(std::io::SeekFrom::Start(start))).map_err(at(path))?;
        let mut reader = answer.into_reader().take(promise.bytes - start);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(read) => target.write_all(&buffer[..read]).map_err(at(path))?,
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
    }
}

/// Whether a part of a file is the one from `start` on, as far as its server says which it is.
fn begins_at(answer: &ureq::Response, start: u64) -> bool {
    let range = answer.header("content-range").and_then(|range| range.trim().strip_prefix("bytes "));
    range.is_none_or(|range| range.split('-').next().and_then(|first| first.parse().ok()) == Some(start))
}

/// Refuses a name that leads out of its folder, or that no terminal should be shown.
fn safe(file: &str) -> Result<(), HubError> {
    let sound = !file.is_empty()
        && !file.contains(|c: char| c == '\\' || c.is_control())
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)));
    if sound { Ok(()) } else { Err(HubError::BadName(file.into())) }
}

/// A word of a path in an address.
pub(crate) fn percent(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    word.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// How the file at `path` differs from what was promised; a hash of a kind that is not known is not compared.
fn differs(path: &Path, promise: &Promise) -> Result<Option<String>, HubError> {
    let mut file = File::open(path).map_err(at(path))?;
    let bytes = file.metadata().map_err(at(path))?.len();
    if bytes != promise.bytes {
        return Ok(Some(format!("{bytes} bytes came, {} were announced", promise.bytes)));
    }
    let hexadecimal = promise.etag.chars().all(|c| c.is_ascii_hexdigit());
    let found = match promise.etag.len() {
        64 if hexadecimal => hash::<Sha256>(&mut file, b""),
        40 if hexadecimal => hash::<Sha1>(&mut file, format!("blob {bytes}\0").as_bytes()),
        _ => return Ok(None),
    };
    let found = found.map_err(at(path))?;
    Ok((!found.eq_ignore_ascii_case(&promise.etag))
        .then(|| format!("its hash is {found}, {} was announced", promise.etag)))
}

/// The hash of `before` and a file, in hexadecimal digits.
pub(crate) fn hash<D: Digest>(file: &mut File, before: &[u8]) -> std::io::Result<String> {
    let mut digest = D::new();
    digest.update(before);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => digest.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for name in ["", "/etc/passwd", "../x", "a/../../x", "a\\b", "a\0b", "a\nb", "./a/.."] {
            assert!(safe(name).is_err(), "{name:?}");
        }
        assert!(safe("data/train-00000-of-00001.parquet").is_ok());
        assert_eq!(percent("a b%ü"), "a%20b%25%C3%BC");
    }

    #[test]
    fn a_model_is_its_descriptions_and_weights() {
        let all = ["config.json", "model-00001-of-00002.safetensors", "merges.txt", "chat_template.jinja"];
        assert!(all.into_iter().all(is_of_model));
        assert!(!["pytorch_model.bin", "README.md", ".gitattributes", "onnx/model.json"].into_iter().any(is_of_model));
    }
}
