//! Files that are none, links that leave a folder, and files that are too large.
#![cfg(unix)]

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use guard::file::{in_model_folder, lies_in, open, read, read_model_file, read_model_text};
use guard::{Limit, limits};

const SMALL: Limit = Limit { name: "settings_bytes", value: 10 };

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let tmp = tempfile::tempdir().unwrap();
    let fifo = tmp.path().join("config.json");
    pipe(&fifo);
    let socket = tmp.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for (path, what) in [
        (fifo.as_path(), "a pipe"),
        (Path::new("/dev/zero"), "a device"),
        (tmp.path(), "a folder"),
        (socket.as_path(), "a socket"),
    ] {
        for error in [open(path).unwrap_err(), read(path, SMALL).unwrap_err()] {
            assert!(error.to_string().contains(what), "{}: {error}", path.display());
        }
    }
    // Through a link as well.
    symlink(&fifo, tmp.path().join("link")).unwrap();
    assert!(open(&tmp.path().join("link")).unwrap_err().to_string().contains("a pipe"));
    assert!(read_model_file(tmp.path(), "config.json").unwrap_err().to_string().contains("a pipe"));
    assert_eq!(read_model_file(tmp.path(), "none.json").unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_file_has_a_limit_that_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("a");
    fs::write(&path, [b'x'; 10]).unwrap();
    assert_eq!(read(&path, SMALL).unwrap().len(), 10);
    fs::write(&path, [b'x'; 11]).unwrap();
    let error = read(&path, SMALL).unwrap_err().to_string();
    assert!(error.contains("11 bytes") && error.contains("VISUAL_RL_LIMITS=settings_bytes="), "{error}");
    // A file of many gigabytes without a single block.
    let sparse = fs::File::create(tmp.path().join("config.json")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let error = read_model_file(tmp.path(), "config.json").unwrap_err().to_string();
    assert!(error.contains("1099511627776 bytes"), "{error}");
    // Its stated length is 0.
    if Path::new("/proc/kallsyms").exists() {
        assert!(read(Path::new("/proc/kallsyms"), SMALL).is_err());
    }
}

#[test]
fn links_of_a_model_folder() {
    let tmp = tempfile::tempdir().unwrap();
    let secret = tmp.path().join("secret");
    fs::write(&secret, "SECRET").unwrap();
    let folder = tmp.path().join("model");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("own.json"), "{}").unwrap();
    for (name, target) in [
        ("added_tokens.json", secret.clone()),
        ("merges.txt", "../secret".into()),
        ("chain.json", "merges.txt".into()),
        ("tokenizer.json", tmp.path().join("model/../secret")),
    ] {
        symlink(target, folder.join(name)).unwrap();
        let error = read_model_file(&folder, name).unwrap_err().to_string();
        assert!(error.contains("outside the model folder") && !error.contains("SECRET"), "{name}: {error}");
    }
    symlink("own.json", folder.join("alias.json")).unwrap();
    assert_eq!(read_model_text(&folder, "alias.json").unwrap(), "{}");
    symlink(&secret, folder.join("model.safetensors")).unwrap();
    assert_eq!(in_model_folder(&folder, "model.safetensors").unwrap(), secret.canonicalize().unwrap());
    // The folder itself may be reached through a link.
    symlink(&folder, tmp.path().join("alias")).unwrap();
    assert_eq!(read_model_text(&tmp.path().join("alias"), "own.json").unwrap(), "{}");
    assert!(read_model_file(&tmp.path().join("alias"), "merges.txt").is_err());
}

#[test]
fn the_hugging_face_cache_is_all_links() {
    let tmp = tempfile::tempdir().unwrap();
    let repository = tmp.path().join("models--Qwen--Qwen2.5-VL-3B-Instruct");
    let snapshot = repository.join("snapshots/66285546d2b821cf421d4f5eb2576359d3770cd3");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(repository.join("blobs")).unwrap();
    fs::write(repository.join("blobs/0a1b"), "{}").unwrap();
    fs::write(repository.join("secret"), "SECRET").unwrap();
    symlink("../../blobs/0a1b", snapshot.join("config.json")).unwrap();
    symlink("../../secret", snapshot.join("merges.txt")).unwrap();
    symlink("../../../secret", snapshot.join("vocab.json")).unwrap();
    fs::write(tmp.path().join("secret"), "SECRET").unwrap();
    assert_eq!(read_model_text(&snapshot, "config.json").unwrap(), "{}");
    assert!(read_model_file(&snapshot, "merges.txt").is_err());
    assert!(read_model_file(&snapshot, "vocab.json").is_err());
}

#[test]
fn paths_that_leave_a_folder() {
    let tmp = tempfile::tempdir().unwrap();
    let data = tmp.path().join("data");
    fs::create_dir_all(data.join("images")).unwrap();
    fs::write(data.join("images/a.png"), "").unwrap();
    fs::write(tmp.path().join("b.png"), "").unwrap();
    symlink("../b.png", data.join("link.png")).unwrap();
    let inside = |path: &str| lies_in(&data.join(path), &data).unwrap();
    assert!(
        inside("images/a.png")
            && inside("images/../images/a.png")
            && inside(data.join("images/a.png").to_str().unwrap())
    );
    assert!(!inside("../b.png") && !inside("link.png") && !inside("/dev/null"));
    assert_eq!(lies_in(&data.join("none.png"), &data).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(limits().settings_bytes.value > 1 << 20);
}
