//! Downloading a data set of the Hugging Face hub into the shared cache, split by split.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiBuilder;

use super::resolve::{FileKind, kind, split_of};

/// Downloads the files of `split` (of all splits with `None`) and returns the snapshot's folder. Files that are in the
/// cache already are not fetched again. `endpoint` replaces `https://huggingface.co`; `cache` is the hub's folder.
pub(super) fn download(
    id: &str,
    split: Option<&str>,
    endpoint: Option<String>,
    cache: &Path,
) -> Result<PathBuf, String> {
    let mut builder = ApiBuilder::from_env().with_cache_dir(cache.to_path_buf()).with_retries(3);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let fail = |e: hf_hub::api::sync::ApiError| format!("cannot be downloaded from the Hugging Face hub: {e}");
    let repo = builder.build().map_err(fail)?.dataset(id.to_owned());
    let siblings = repo.info().map_err(fail)?.siblings;
    let mut files: Vec<&str> = siblings.iter().map(|s| s.rfilename.as_str()).collect();
    files.retain(|f| kind(Path::new(f)).is_some() && !f.starts_with('.'));
    if files.iter().any(|f| kind(Path::new(f)) == Some(FileKind::Parquet)) {
        files.retain(|f| kind(Path::new(f)) == Some(FileKind::Parquet));
    }
    // Only the wanted split; a file that names no split belongs to every one.
    files.retain(|f| split.is_none_or(|split| split_of(Path::new(f), Some(split)).is_none_or(|s| s == split)));
    let mut folder = None;
    for file in files {
        let path = repo.get(file).map_err(fail)?;
        folder = path.ancestors().nth(Path::new(file).components().count()).map(Path::to_path_buf);
    }
    folder.ok_or_else(|| match split {
        Some(split) => {
            format!("has no parquet or JSON file of split {split:?} on the Hugging Face hub")
        }
        None => "has no parquet or JSON file on the Hugging Face hub".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    /// As much of the hub as a download needs: the list of files, and files by ranges. Ends with the test.
    fn hub(files: &'static [(&'static str, &'static str)]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let request = lines.next().unwrap().unwrap();
                    let mut range = None;
                    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
                        let line = line.to_ascii_lowercase();
                        if let Some(bytes) = line.strip_prefix("range: bytes=") {
                            let (a, b) = bytes.split_once('-').unwrap();
                            range = Some((a.parse::<usize>().unwrap(), b.parse::<usize>().ok()));
                        }
                    }
                    let path = request.split(' ').nth(1).unwrap();
                    let found = files.iter().find(|f| path.ends_with(&format!("/resolve/main/{}", f.0)));
                    let (status, extra, body) = if path.starts_with("/api/datasets/me/tiny") {
                        let siblings: Vec<String> =
                            files.iter().map(|f| format!("{{\"rfilename\": \"{}\"}}", f.0)).collect();
                        (
                            "200 OK",
                            String::new(),
                            format!("{{\"sha\": \"abc\", \"siblings\": [{}]}}", siblings.join(",")),
                        )
                    } else if let Some((name, content)) = found {
                        let (a, b) = range.unwrap_or((0, None));
                        let b = b.unwrap_or(usize::MAX).min(content.len() - 1);
                        let extra = format!(
                            "x-repo-commit: abc\r\netag: \"{}\"\r\ncontent-range: bytes {a}-{b}/{}\r\n",
                            name.replace('/', "_"),
                            content.len()
                        );
                        ("206 Partial Content", extra, content[a..=b].to_owned())
                    } else {
                        ("404 Not Found", String::new(), String::new())
                    };
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                });
            }
        });
        format!("http://{address}")
    }

    #[test]
    fn the_wanted_split_is_downloaded() {
        const ROW: &str = "{\"problem\": \"p\", \"answer\": 1}\n";
        let endpoint = hub(&[("README.md", "hello"), ("data/train.jsonl", ROW), ("data/test.jsonl", ROW)]);
        let tmp = tempfile::tempdir().unwrap();
        let folder = download("me/tiny", Some("test"), Some(endpoint.clone()), tmp.path()).unwrap();
        assert!(folder.join("data/test.jsonl").is_file() && !folder.join("data/train.jsonl").exists());
        assert_eq!(std::fs::read_to_string(folder.join("data/test.jsonl")).unwrap(), ROW);
        // All of it.
        let folder = download("me/tiny", None, Some(endpoint.clone()), tmp.path()).unwrap();
        assert!(folder.join("data/train.jsonl").is_file() && !folder.join("README.md").exists());
        let error = download("me/tiny", Some("dev"), Some(endpoint.clone()), tmp.path()).unwrap_err();
        assert!(error.contains("no parquet or JSON file of split \"dev\""), "{error}");
        let error = download("me/other", None, Some(endpoint), tmp.path()).unwrap_err();
        assert!(error.contains("cannot be downloaded"), "{error}");
    }
}
