//! From the URL of a picture to its bytes: data URLs, and files of the one folder that may be read.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use data::ImageSource;
use guard::Limit;

use crate::options::ServerOptions;

/// Base64 with or without its padding: encoders differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The picture that a URL names. Nothing is fetched.
///
/// # Errors
/// The reason, for the client.
pub(crate) fn picture(url: &str, options: &ServerOptions) -> Result<ImageSource, String> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("data") => inline(&url["data:".len()..]),
        Some("http" | "https") => Err(
            "this server fetches nothing from a network; send the picture as a data URL (data:image/png;base64,...)"
                .into(),
        ),
        Some("file") => file(&file_path(url)?, options),
        _ => file(Path::new(url), options),
    }
}

fn inline(rest: &str) -> Result<ImageSource, String> {
    let Some((head, body)) = rest.split_once(',') else {
        return Err("the data URL has no comma before its data".into());
    };
    let mut words = head.split(';').map(str::trim);
    let kind = words.next().unwrap_or_default().to_ascii_lowercase();
    if !kind.starts_with("image/") && kind != "application/octet-stream" {
        return Err(format!("the data URL is of type {:?}; expected image/...", guard::echo(&kind)));
    }
    if !words.any(|word| word.eq_ignore_ascii_case("base64")) {
        return Err("the data URL is not in base64 (data:image/png;base64,...)".into());
    }
    let compact: String;
    let body = match body.contains(|c: char| c.is_ascii_whitespace()) {
        true => {
            compact = body.split_ascii_whitespace().collect();
            &compact
        }
        false => body,
    };
    let bytes = BASE64.decode(body).map_err(|reason| format!("the data URL is no base64: {reason}"))?;
    Ok(ImageSource::from(bytes))
}

/// The path of a `file:` URL of this machine.
fn file_path(url: &str) -> Result<PathBuf, String> {
    let rest = &url["file:".len()..];
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(rest) => {
            let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            if !host.is_empty() && !host.eq_ignore_ascii_case("localhost") {
                return Err("the file URL names another machine; it begins with file:///".into());
            }
            path
        }
    };
    unescaped(path).map(PathBuf::from)
}

/// A path without the `%20` of URLs.
///
/// # Errors
/// Bytes that are no text.
pub(crate) fn unescaped(path: &str) -> Result<String, String> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: &u8| char::from(*digit).to_digit(16);
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                out.push((hex(high).unwrap_or(0) * 16 + hex(low).unwrap_or(0)) as u8);
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).map_err(|_| "the URL is not UTF-8".into())
}

/// A picture's file, read now: what becomes of the file afterwards changes nothing.
fn file(path: &Path, options: &ServerOptions) -> Result<ImageSource, String> {
    let Some(folder) = &options.allowed_media else {
        return Err(
            "this server reads no files; send the picture as a data URL, or start it with --allowed-media DIR".into()
        );
    };
    // One answer for what is not there and for what may not be read: nobody learns which files there are.
    let refused = || "there is no such picture in the folder of --allowed-media".to_owned();
    let folder = folder.canonicalize().map_err(|_| refused())?;
    let real = folder.join(path).canonicalize().map_err(|_| refused())?;
    if !guard::file::lies_in(&real, &folder).unwrap_or(false) {
        return Err(refused());
    }
    let limit = Limit { name: "--max-body", value: options.max_body_bytes as u64 };
    match guard::file::read(&real, limit) {
        Ok(bytes) => Ok(ImageSource::from(bytes)),
        Err(_) if real.metadata().is_ok_and(|found| found.is_file() && found.len() > limit.value) => {
            Err(format!("the picture's file has more than {} bytes (--max-body)", limit.value))
        }
        Err(_) => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(url: &str, options: &ServerOptions) -> Result<Vec<u8>, String> {
        picture(url, options).map(|source| source.load().unwrap().into_owned())
    }

    #[test]
    fn data_urls_in_the_forms_that_clients_write() {
        let options = ServerOptions::default();
        for url in [
            "data:image/png;base64,aGVsbG8=",
            "DATA:image/jpeg;charset=x;Base64,aGVsbG8",
            "data:image/webp;base64,aGVs\nbG8=",
        ] {
            assert_eq!(bytes(url, &options).unwrap(), b"hello", "{url}");
        }
        for (url, part) in [
            ("data:image/png;base64", "no comma"),
            ("data:image/png,hello", "not in base64"),
            ("data:text/plain;base64,aGVsbG8=", "text/plain"),
            ("data:image/png;base64,a*b", "no base64"),
            ("https://example.com/a.png", "fetches nothing"),
            ("HTTP://example.com/a.png", "fetches nothing"),
            ("file:///etc/passwd", "reads no files"),
            ("/etc/passwd", "reads no files"),
            ("iVBORw0KGgo", "reads no files"),
        ] {
            let reason = bytes(url, &options).unwrap_err();
            assert!(reason.contains(part), "{url}: {reason}");
        }
    }

    #[test]
    fn files_are_those_of_the_folder_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("media");
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("sub/a b.png"), "inside").unwrap();
        std::fs::write(folder.join("large.png"), "x".repeat(2000)).unwrap();
        std::fs::write(place.path().join("secret.png"), "outside").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(place.path().join("secret.png"), folder.join("link.png")).unwrap();
        let options = ServerOptions { allowed_media: Some(folder.clone()), max_body_bytes: 1000, ..Default::default() };
        let whole = folder.join("sub/a b.png");
        let urls = [
            "sub/a b.png".to_owned(),
            format!("file://{}", whole.display()).replace(' ', "%20"),
            format!("file://localhost{}", whole.display()),
            whole.display().to_string(),
        ];
        for url in urls {
            assert_eq!(bytes(&url, &options).unwrap(), b"inside", "{url}");
        }
        let secret = place.path().join("secret.png").display().to_string();
        for url in [
            "../secret.png",
            "sub/../../secret.png",
            "file:///etc/passwd",
            "file:../secret.png",
            "..%2fsecret.png",
            "link.png",
            "sub",
            "",
            "no.png",
            &secret,
        ] {
            assert!(bytes(url, &options).unwrap_err().contains("no such picture"), "{url}");
        }
        assert!(bytes("large.png", &options).unwrap_err().contains("more than 1000 bytes"));
        assert!(bytes("file://elsewhere/a.png", &options).unwrap_err().contains("another machine"));
    }
}
