//! A folder to the hub, as one commit: what is large goes to the hub's store of large files first, and nothing is
//! visible before the commit. What the store has already is not sent again, so that an upload that was broken off goes
//! on where it was, file by file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::download::hash;
use crate::http::{HubCall, json as json_of};
use crate::name::RepoName;
use crate::{Hub, HubError, at};

/// Bytes of a file's beginning, by which the hub decides how it is kept.
const SAMPLE: u64 = 512;
/// How git's large files are spoken of.
const LFS: &str = "application/vnd.git-lfs+json";

/// A file to be uploaded.
#[derive(Debug, Clone)]
struct Upload {
    name: String,
    path: PathBuf,
    bytes: u64,
    /// SHA-256, of those that go to the store of large files.
    oid: Option<String>,
}

/// What a commit is called.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Its first line.
    pub summary: &'a str,
    /// Whether a repository that is made for it is seen by its owner alone.
    pub private: bool,
}

impl Hub {
    /// Uploads the files of `folder`, not those of folders in it, to a model repository, which is made where it is not
    /// there. Returns the address of the commit.
    ///
    /// # Errors
    /// No token; a repository that this user may not write to; anything the hub or the file system refuses.
    pub fn upload(&self, folder: &Path, name: &RepoName, commit: &Commit) -> Result<String, HubError> {
        if self.offline {
            return Err(HubError::Usage("HF_HUB_OFFLINE forbids to upload".into()));
        }
        if self.token.is_none() {
            return Err(HubError::Usage(
                "an upload needs a token: set HF_TOKEN to one that may write, or run `hf auth login`".into(),
            ));
        }
        let mut files = files_of(folder)?;
        if files.is_empty() {
            return Err(HubError::Usage(format!("{}: the folder has no files", folder.display())));
        }
        self.make(name, commit)?;
        self.sort(name, &mut files)?;
        let large: Vec<&Upload> = files.iter().filter(|file| file.oid.is_some()).collect();
        if !large.is_empty() {
            self.store(name, &large)?;
        }
        self.commit(name, &files, commit)
    }

    /// Makes the repository.
    fn make(&self, name: &RepoName, commit: &Commit) -> Result<(), HubError> {
        let (owner, own) = name.id.split_once('/').unwrap_or(("", &name.id));
        let body = json!({"type": "model", "name": own, "organization": owner, "private": commit.private});
        let answer =
            self.told(name, HubCall::new("POST", format!("{}/api/repos/create", self.endpoint)).json(&body))?;
        match answer.status() {
            // It is there.
            200..300 | 409 => Ok(()),
            // One that may not make repositories may perhaps write to this one: its commit will tell.
            403 => Ok(()),
            _ => Err(self.refusal(answer, &name.id, &name.revision, "making the repository")),
        }
    }

    fn told(&self, name: &RepoName, ask: HubCall) -> Result<ureq::Response, HubError> {
        self.answer(&ask).map_err(|reason| HubError::Unreachable {
            endpoint: self.endpoint.clone(),
            id: name.id.clone(),
            reason,
        })
    }

    /// Asks which files are large, and hashes those.
    fn sort(&self, name: &RepoName, files: &mut [Upload]) -> Result<(), HubError> {
        let mut told = vec![];
        for file in files.iter() {
            let mut sample = vec![];
            let read = File::open(&file.path).and_then(|open| open.take(SAMPLE).read_to_end(&mut sample));
            read.map_err(at(&file.path))?;
            told.push(json!({"path": file.name, "size": file.bytes, "sample": BASE64_STANDARD.encode(sample)}));
        }
        let address = format!("{}/api/models/{}/preupload/{}", self.endpoint, name.id, name.revision_in_address());
        let answer = self.told(name, HubCall::new("POST", address).json(&json!({"files": told})))?;
        let what = "saying what is uploaded";
        if answer.status() != 200 {
            return Err(self.refusal(answer, &name.id, &name.revision, what));
        }
        let answer = json_of(answer, what)?;
        let large = |file: &Upload| {
            let mut all = answer["files"].as_array().into_iter().flatten();
            all.any(|said| said["path"] == file.name.as_str() && said["uploadMode"] == "lfs")
        };
        for file in files {
            if large(file) {
                let mut open = File::open(&file.path).map_err(at(&file.path))?;
                file.oid = Some(hash::<Sha256>(&mut open, b"").map_err(at(&file.path))?);
            }
        }
        Ok(())
    }

    /// Sends large files to the store that the hub names.
    fn store(&self, name: &RepoName, files: &[&Upload]) -> Result<(), HubError> {
        let objects: Vec<Value> = files.iter().map(|file| json!({"oid": file.oid, "size": file.bytes})).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256", "objects": objects,
            "ref": {"name": format!("refs/heads/{}", name.revision)},
        });
        let address = format!("{}/{}.git/info/lfs/objects/batch", self.endpoint, name.id);
        let ask = HubCall { body: body.to_string().into_bytes(), ..HubCall::new("POST", address) };
        let answer = self.told(name, ask.header("Accept", LFS).header("Content-Type", LFS))?;
        let what = "storing large files";
        if answer.status() != 200 {
            return Err(self.refusal(answer, &name.id, &name.revision, what));
        }
        let answer = json_of(answer, what)?;
        for file in files {
            let mut all = answer["objects"].as_array().into_iter().flatten();
            let Some(object) = all.find(|object| object["oid"].as_str() == file.oid.as_deref()) else {
                return Err(answered(&file.name, 200, " without a place for it".into()));
            };
            if let Some(error) = object["error"]["message"].as_str() {
                return Err(answered(&file.name, 200, format!(" ({error})")));
            }
            // One that is there already has no action.
            let actions = &object["actions"];
            if let Some(address) = actions["upload"]["href"].as_str() {
                (self.note)(&format!("uploading {} ({} bytes)", file.name, file.bytes));
                self.send(file, address, &actions["upload"]["header"])?;
            }
            if let Some(address) = actions["verify"]["href"].as_str() {
                let ask = HubCall::new("POST", address.to_string()).json(&json!({"oid": file.oid, "size": file.bytes}));
                done(&file.name, self.told(name, ask)?)?;
            }
        }
        Ok(())
    }

    /// Sends a large file, whole or in the parts that the store asks for.
    fn send(&self, file: &Upload, address: &str, header: &Value) -> Result<(), HubError> {
        let Some((size, parts)) = parts(file, header)? else {
            let ask = HubCall { body: piece(file, 0, file.bytes)?, ..HubCall::new("PUT", address.to_string()) };
            return done(&file.name, self.stored(file, &ask)?).map(drop);
        };
        let mut etags = vec![];
        for (number, part) in (1..).zip(parts) {
            let ask =
                HubCall { body: piece(file, (number - 1) * size, size)?, ..HubCall::new("PUT", part.to_string()) };
            let answer = done(&file.name, self.stored(file, &ask)?)?;
            let etag = answer.header("etag").unwrap_or_default().to_string();
            etags.push(json!({"partNumber": number, "etag": etag}));
        }
        let body = json!({"oid": file.oid, "parts": etags});
        let ask = HubCall { body: body.to_string().into_bytes(), ..HubCall::new("POST", address.to_string()) };
        done(&file.name, self.stored(file, &ask.header("Accept", LFS).header("Content-Type", LFS))?).map(drop)
    }

    fn stored(&self, file: &Upload, ask: &HubCall) -> Result<ureq::Response, HubError> {
        let fail = |reason: String| HubError::Usage(format!("{}: {reason}; start again to go on", file.name));
        self.answer(ask).map_err(fail)
    }

    /// Makes the commit.
    fn commit(&self, name: &RepoName, files: &[Upload], commit: &Commit) -> Result<String, HubError> {
        let mut lines = vec![json!({"key": "header", "value": {"summary": commit.summary, "description": ""}})];
        for file in files {
            lines.push(match &file.oid {
                Some(oid) => json!({"key": "lfsFile", "value":
                    {"path": file.name, "algo": "sha256", "oid": oid, "size": file.bytes}}),
                None => json!({"key": "file", "value": {"path": file.name, "encoding": "base64",
                    "content": BASE64_STANDARD.encode(piece(file, 0, file.bytes)?)}}),
            });
        }
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let address = format!("{}/api/models/{}/commit/{}", self.endpoint, name.id, name.revision_in_address());
        let ask = HubCall { body: body.into_bytes(), ..HubCall::new("POST", address) };
        let answer = self.told(name, ask.header("Content-Type", "application/x-ndjson"))?;
        let what = "making the commit";
        match answer.status() {
            200..300 => {
                let said = json_of(answer, what)?;
                let address = said["commitUrl"].as_str().map(str::to_string);
                Ok(address.unwrap_or_else(|| format!("{}/{}", self.endpoint, name.id)))
            }
            _ => Err(self.refusal(answer, &name.id, &name.revision, what)),
        }
    }
}

/// The size of a part, and where each goes, if the store wants the file in parts: they are numbered from 1 and must be
/// as many as make up the file.
///
/// # Errors
/// Parts that are not those of the file.
fn parts<'a>(file: &Upload, header: &'a Value) -> Result<Option<(u64, Vec<&'a str>)>, HubError> {
    let size = header["chunk_size"].as_u64().or_else(|| header["chunk_size"].as_str()?.parse().ok());
    let Some(size) = size.filter(|size| *size > 0) else { return Ok(None) };
    let numbered = header.as_object().into_iter().flatten();
    let mut all: Vec<(u64, &str)> =
        numbered.filter_map(|(key, part)| Some((key.parse().ok()?, part.as_str()?))).collect();
    all.sort_unstable();
    let wanted = file.bytes.div_ceil(size).max(1);
    match all.iter().map(|(number, _)| *number).eq(1..=wanted) {
        true => Ok(Some((size, all.into_iter().map(|(_, part)| part).collect()))),
        false if all.is_empty() => Ok(None),
        false => {
            let detail = format!(
                " with {} parts of {size} bytes that are not the {wanted} of a file of {} bytes",
                all.len(),
                file.bytes
            );
            Err(answered(&file.name, 200, detail))
        }
    }
}

fn answered(what: &str, status: u16, detail: String) -> HubError {
    HubError::Answer { what: what.into(), status, detail }
}

/// An answer of a store, if it says yes.
fn done(what: &str, answer: ureq::Response) -> Result<ureq::Response, HubError> {
    match answer.status() {
        200..300 => Ok(answer),
        status => Err(answered(what, status, String::new())),
    }
}

/// Up to `bytes` bytes of a file from `start` on.
fn piece(file: &Upload, start: u64, bytes: u64) -> Result<Vec<u8>, HubError> {
    let mut piece = vec![];
    let read = File::open(&file.path).and_then(|mut open| {
        open.seek(SeekFrom::Start(start))?;
        open.take(bytes).read_to_end(&mut piece)
    });
    read.map(|_| piece).map_err(at(&file.path))
}

/// The files of a folder by name, without hidden ones.
fn files_of(folder: &Path) -> Result<Vec<Upload>, HubError> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let about = std::fs::metadata(&path).map_err(at(&path))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_string();
        if about.is_file() && !name.is_empty() && !name.starts_with('.') {
            files.push(Upload { name, path, bytes: about.len(), oid: None });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
