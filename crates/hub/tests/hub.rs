//! Against a small server that speaks the hub's language: no test asks the real one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hub::download::is_of_model;
use hub::name::RepoName;
use hub::upload::Commit;
use hub::{Hub, HubError, RepoKind};
use sha1::Digest;

/// What a client asks.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// What it is told. Of `body` the first `sent` bytes come, and then the connection ends.
struct Told {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    sent: usize,
}

impl Told {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], body: body.into(), sent: usize::MAX }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

type Log = Arc<Mutex<Vec<Asked>>>;

/// A server that answers with `answer`, and everything that it was asked.
fn serve(answer: impl Fn(&Asked, usize) -> Told + Send + Sync + 'static) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (log, answer) = (Log::default(), Arc::new(answer));
    let all = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (log, answer) = (log.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let mut words = line.split(' ').map(str::to_string);
                let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
                let mut headers = HashMap::new();
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).unwrap();
                    let Some((name, value)) = line.trim().split_once(": ") else { break };
                    headers.insert(name.to_ascii_lowercase(), value.to_string());
                }
                let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let asked = Asked { method, path, headers, body };
                let count = {
                    let mut log = log.lock().unwrap();
                    log.push(asked.clone());
                    log.iter().filter(|other| (&other.method, &other.path) == (&asked.method, &asked.path)).count()
                };
                let told = answer(&asked, count);
                let own_length = told.headers.iter().any(|(name, _)| *name == "content-length");
                let _ = write!(stream, "HTTP/1.1 {} X\r\nconnection: close\r\n", told.status);
                if !own_length {
                    let _ = write!(stream, "content-length: {}\r\n", told.body.len());
                }
                for (name, value) in &told.headers {
                    let _ = write!(stream, "{name}: {value}\r\n");
                }
                let _ = stream.write_all(b"\r\n");
                if asked.method != "HEAD" {
                    let _ = stream.write_all(&told.body[..told.sent.min(told.body.len())]);
                }
            });
        }
    });
    (address, all)
}

fn client(endpoint: &str, cache: &Path) -> Hub {
    Hub {
        endpoint: endpoint.into(),
        token: Some("secret".into()),
        cache: cache.into(),
        offline: false,
        pause: Duration::from_millis(1),
        note: |_| {},
    }
}

fn model(text: &str) -> RepoName {
    RepoName::parse(text).unwrap()
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONFIG: &str = "{\"model_type\": \"qwen2_5_vl\"}";

fn weights() -> Vec<u8> {
    (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn blob_sha1(bytes: &[u8]) -> String {
    let mut digest = sha1::Sha1::new();
    digest.update(format!("blob {}\0", bytes.len()));
    digest.update(bytes);
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hub with one model of a small and a large file; the large one lies on another host, `store`.
fn repository(store: String) -> impl Fn(&Asked, usize) -> Told {
    move |asked, _| match asked.path.as_str() {
        "/api/models/me/small/revision/main" | "/api/models/me/small/revision/v1" => {
            let files = ["config.json", "model.safetensors", "README.md", "pytorch_model.bin"];
            let files: Vec<String> = files.iter().map(|file| format!("{{\"rfilename\": \"{file}\"}}")).collect();
            Told::new(200, format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", files.join(",")))
        }
        path if path.ends_with("/config.json") => {
            Told::new(200, CONFIG).header("etag", format!("\"{}\"", blob_sha1(CONFIG.as_bytes())))
        }
        path if path.ends_with("/model.safetensors") => Told::new(302, "")
            .header("x-linked-etag", format!("\"{}\"", sha256(&weights())))
            .header("x-linked-size", weights().len().to_string())
            .header("x-repo-commit", COMMIT)
            .header("location", format!("{store}/store/weights?signature=1")),
        _ => Told::new(404, "").header("x-error-code", "RepoNotFound"),
    }
}

/// Bytes from where the client asks.
fn ranged(asked: &Asked, whole: &[u8]) -> Told {
    let start = asked.headers.get("range").map(|range| range["bytes=".len()..].trim_end_matches('-').parse().unwrap());
    match start {
        None => Told::new(200, whole),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", whole.len() - 1, whole.len());
            Told::new(206, &whole[start..]).header("content-range", range)
        }
    }
}

#[test]
fn a_model_is_fetched_once_into_the_shared_cache() {
    let (store, stored) = serve(|asked, count| match count {
        // Broken off, twice, and then the rest.
        1 | 2 => Told { sent: 700_000, ..ranged(asked, &weights()) },
        _ => ranged(asked, &weights()),
    });
    let (endpoint, asked) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&endpoint, cache.path());
    let folder = hub.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap();
    assert_eq!(folder, cache.path().join("models--me--small/snapshots").join(COMMIT).join(""));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(std::fs::read_to_string(folder.join("config.json")).unwrap(), CONFIG);
    assert!(!folder.join("README.md").exists() && !folder.join("pytorch_model.bin").exists());
    // As huggingface_hub lays it out.
    let repo = cache.path().join("models--me--small");
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read(repo.join("blobs").join(sha256(&weights()))).unwrap().len(), weights().len());
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(folder.join("config.json")).unwrap(),
        Path::new("../../blobs").join(blob_sha1(CONFIG.as_bytes()))
    );
    assert_eq!(std::fs::read_dir(repo.join("blobs")).unwrap().count(), 2, "nothing half is left");
    // What came before the connection ended was not asked for again, and the store never heard the token.
    let starts: Vec<Option<String>> =
        stored.lock().unwrap().iter().map(|asked| asked.headers.get("range").cloned()).collect();
    assert_eq!(starts, [None, Some("bytes=700000-".into()), Some("bytes=1400000-".into())]);
    assert!(stored.lock().unwrap().iter().all(|asked| !asked.headers.contains_key("authorization")));
    assert!(asked.lock().unwrap().iter().all(|asked| asked.headers["authorization"] == "Bearer secret"));
    // Again, and by another revision: only the list is asked for.
    let before = asked.lock().unwrap().len();
    for name in ["me/small", "me/small@v1"] {
        assert_eq!(hub.snapshot(RepoKind::Model, &model(name), is_of_model).unwrap(), folder);
    }
    assert_eq!(asked.lock().unwrap().len(), before + 2);
    // Offline, and without a network.
    let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..hub.clone() };
    let gone = Hub { endpoint: "http://127.0.0.1:1".into(), ..hub };
    for hub in [&offline, &gone] {
        for name in ["me/small".to_string(), "me/small@v1".into(), format!("me/small@{COMMIT}")] {
            let found = hub.snapshot(RepoKind::Model, &model(&name), is_of_model).unwrap();
            assert_eq!(found.canonicalize().unwrap(), folder.canonicalize().unwrap(), "{name}");
        }
    }
    let error = offline.snapshot(RepoKind::Model, &model("me/other"), is_of_model).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    let error = gone.snapshot(RepoKind::Model, &model("me/other"), is_of_model).unwrap_err().to_string();
    assert!(error.contains("http://127.0.0.1:1 cannot be reached"), "{error}");
}

#[test]
fn what_an_ended_process_left_is_gone_on_with() {
    let (store, stored) = serve(|asked, _| ranged(asked, &weights()));
    let (endpoint, _) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    let blobs = cache.path().join("models--me--small/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", sha256(&weights()))), &weights()[..1_000_000]).unwrap();
    let hub = client(&endpoint, cache.path());
    let folder = hub.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap();
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(stored.lock().unwrap()[0].headers["range"], "bytes=1000000-");
}

#[test]
fn bytes_that_are_not_what_was_promised_are_refused() {
    let (store, _) = serve(|asked, _| {
        let mut wrong = weights();
        wrong[77] ^= 1;
        ranged(asked, &wrong)
    });
    let (endpoint, _) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    let error = client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap_err();
    assert!(matches!(&error, HubError::Damaged { file, .. } if file == "model.safetensors"), "{error}");
    let left = cache.path().join("models--me--small/blobs").join(format!("{}.incomplete", sha256(&weights())));
    assert!(!left.exists(), "the next attempt begins anew");
}

#[test]
fn a_refusal_says_what_to_do() {
    let cases: [(u16, &str, &[&str]); 6] = [
        (404, "RepoNotFound", &["me/small is not on", "HF_TOKEN"]),
        (401, "", &["me/small is not on", "private"]),
        (404, "RevisionNotFound", &["no revision \"main\""]),
        (403, "GatedRepo", &["gated", "/me/small", "HF_TOKEN"]),
        (403, "Other", &["refuses the token (403)"]),
        (500, "", &["the hub answers 500 (out of order)"]),
    ];
    for (status, code, needles) in cases {
        let (endpoint, asked) = serve(move |_, _| {
            let told = Told::new(status, "out of order");
            if code.is_empty() { told } else { told.header("x-error-code", code) }
        });
        let cache = tempfile::tempdir().unwrap();
        let hub = client(&endpoint, cache.path());
        let error = hub.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap_err().to_string();
        assert!(needles.iter().all(|needle| error.contains(needle)), "{status} {code}: {error}");
        let tries = asked.lock().unwrap().len();
        assert_eq!(tries, if status == 500 { 5 } else { 1 }, "{status}: a server's own fault is tried again");
    }
}

#[test]
fn a_server_that_is_busy_is_asked_again() {
    let (endpoint, asked) = serve(|asked, count| match count {
        1 => Told::new(503, ""),
        2 => Told::new(429, ""),
        _ => repository(String::new())(asked, count),
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&endpoint, cache.path());
    hub.snapshot(RepoKind::Model, &model("me/small"), |file| file == "config.json").unwrap();
    assert_eq!(asked.lock().unwrap().len(), 9, "the list, the promise and the file, three times each");
}

#[test]
fn a_hostile_name_is_refused() {
    let (endpoint, _) = serve(|_, _| {
        Told::new(200, format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{{\"rfilename\": \"../../x.json\"}}]}}"))
    });
    let cache = tempfile::tempdir().unwrap();
    let error = client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), |_| true).unwrap_err();
    assert!(matches!(error, HubError::BadName(_)), "{error}");
}

/// The weights go to the store in parts, the card is in the commit itself.
#[test]
fn a_folder_is_uploaded_as_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("README.md"), "# A model\n").unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights()).unwrap();
    std::fs::write(folder.path().join(".hidden"), "x").unwrap();
    let (store, stored) = serve(|asked, _| Told::new(200, "").header("etag", format!("\"{}\"", asked.path.len())));
    let own = store.clone();
    let (endpoint, asked) = serve(move |asked, _| match asked.path.as_str() {
        "/api/repos/create" => Told::new(409, "{}"),
        "/api/models/me/new/preupload/main" => Told::new(
            200,
            r#"{"files": [{"path": "README.md", "uploadMode": "regular"}, {"path": "model.safetensors", "uploadMode": "lfs"}]}"#,
        ),
        "/me/new.git/info/lfs/objects/batch" => {
            let header =
                serde_json::json!({"chunk_size": "2000000", "00001": format!("{own}/a"), "00002": format!("{own}/bb")});
            let upload = serde_json::json!({"href": format!("{own}/complete"), "header": header});
            let object = serde_json::json!({"oid": sha256(&weights()), "actions": {"upload": upload}});
            Told::new(200, serde_json::json!({"objects": [object]}).to_string())
        }
        "/api/models/me/new/commit/main" => Told::new(200, r#"{"commitUrl": "https://there/commit/1"}"#),
        _ => Told::new(404, ""),
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&endpoint, cache.path());
    let commit = Commit { summary: "step 5", private: true };
    assert_eq!(hub.upload(folder.path(), &model("me/new"), &commit).unwrap(), "https://there/commit/1");
    let stored = stored.lock().unwrap();
    let parts: Vec<(&str, usize)> = stored.iter().map(|asked| (asked.path.as_str(), asked.body.len())).collect();
    assert_eq!(parts[..2], [("/a", 2_000_000), ("/bb", 1_000_000)]);
    assert_eq!([&stored[0].body[..], &stored[1].body[..]].concat(), weights());
    let completed: serde_json::Value = serde_json::from_slice(&stored[2].body).unwrap();
    assert_eq!(completed["parts"][1], serde_json::json!({"partNumber": 2, "etag": "\"3\""}));
    let asked = asked.lock().unwrap();
    let made: serde_json::Value = serde_json::from_slice(&asked[0].body).unwrap();
    assert_eq!(made, serde_json::json!({"type": "model", "name": "new", "organization": "me", "private": true}));
    let lines: Vec<serde_json::Value> = String::from_utf8(asked.last().unwrap().body.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["value"]["summary"], "step 5");
    assert_eq!((&lines[1]["key"], &lines[1]["value"]["content"]), (&"file".into(), &"IyBBIG1vZGVsCg==".into()));
    let large = serde_json::json!({"path": "model.safetensors", "algo": "sha256", "oid": sha256(&weights()), "size": 3_000_000});
    assert_eq!((&lines[2]["key"], &lines[2]["value"]), (&"lfsFile".into(), &large));

    let nobody = Hub { token: None, ..hub };
    let error = nobody.upload(folder.path(), &model("me/new"), &commit).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");
}

/// Regression: processes that fetched the same model at once took each other's half-written reference away.
#[test]
fn many_at_once_fetch_a_model_once() {
    let (store, stored) = serve(|asked, _| ranged(asked, &weights()));
    let (endpoint, _) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let fetch = || client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model);
        let all: Vec<_> = (0..12).map(|_| scope.spawn(fetch)).collect();
        for one in all {
            assert_eq!(std::fs::read(one.join().unwrap().unwrap().join("model.safetensors")).unwrap(), weights());
        }
    });
    assert_eq!(stored.lock().unwrap().len(), 1);
    assert_eq!(std::fs::read_to_string(cache.path().join("models--me--small/refs/main")).unwrap(), COMMIT);
}

/// Regression: a cache that many share and may only read, with the whole model in it, was refused for its reference; a
/// hub that has no time was asked five times and then the model in the cache was not taken.
#[test]
fn what_is_in_the_cache_is_enough() {
    let (store, _) = serve(|asked, _| ranged(asked, &weights()));
    let (endpoint, _) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    let hub = client(&endpoint, cache.path());
    let folder = hub.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap();
    // What cannot be written: a folder in its place, which stops a superuser, too.
    let reference = cache.path().join("models--me--small/refs/main");
    std::fs::remove_file(&reference).unwrap();
    std::fs::create_dir_all(reference.join("x")).unwrap();
    assert_eq!(hub.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap(), folder);
    std::fs::remove_dir_all(&reference).unwrap();
    std::fs::write(&reference, COMMIT).unwrap();
    for status in [429, 503] {
        let (endpoint, _) = serve(move |_, _| Told::new(status, ""));
        let busy = client(&endpoint, cache.path());
        assert_eq!(
            busy.snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap().canonicalize().unwrap(),
            folder.canonicalize().unwrap()
        );
        assert!(busy.snapshot(RepoKind::Model, &model("me/other"), is_of_model).is_err());
    }
    // One that is not there any more is no reason to take an old one.
    let (endpoint, _) = serve(|_, _| Told::new(404, "").header("x-error-code", "RepoNotFound"));
    assert!(client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model).is_err());
}

/// What was left is no beginning of the file, or the rest that comes is another one: the whole is fetched.
#[test]
fn a_beginning_that_is_of_no_use_is_fetched_again() {
    type Answers = fn(&Asked, usize) -> Told;
    let plain: Answers = |asked, _| ranged(asked, &weights());
    let beyond: Answers = |asked, _| match asked.headers.contains_key("range") {
        true => Told::new(416, ""),
        false => ranged(asked, &weights()),
    };
    let shifted: Answers = |asked, count| match count {
        1 => Told::new(206, weights()).header("content-range", "bytes 0-2999999/3000000"),
        _ => ranged(asked, &weights()),
    };
    for (answers, left) in
        [(plain, vec![0; 5000]), (beyond, weights()[..5000].to_vec()), (shifted, weights()[..5000].to_vec())]
    {
        let (store, _) = serve(answers);
        let (endpoint, _) = serve(repository(store));
        let cache = tempfile::tempdir().unwrap();
        let blobs = cache.path().join("models--me--small/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{}.incomplete", sha256(&weights()))), left).unwrap();
        let folder =
            client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap();
        assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    }
}

/// Regression: a store that gave a byte a connection was asked for ever, with pauses that doubled each time.
#[test]
fn connections_that_bring_nothing_to_speak_of_end() {
    let (store, stored) = serve(|asked, _| Told { sent: 1, ..ranged(asked, &weights()) });
    let (endpoint, _) = serve(repository(store));
    let cache = tempfile::tempdir().unwrap();
    let error = client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap_err();
    assert!(error.to_string().contains("of 3000000 bytes are here"), "{error}");
    assert_eq!(stored.lock().unwrap().len(), 5);
    // One that breaks off often brings it in the end.
    let (store, stored) = serve(|asked, _| Told { sent: 100_000, ..ranged(asked, &weights()) });
    let (endpoint, _) = serve(repository(store));
    client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), is_of_model).unwrap();
    assert_eq!(stored.lock().unwrap().len(), 30);
}

/// A commit becomes the name of a folder.
#[test]
fn a_commit_that_is_none_is_refused() {
    for commit in ["a/b", "..", "", &"a".repeat(65)] {
        let listing = format!("{{\"sha\": \"{commit}\", \"siblings\": []}}");
        let (endpoint, _) = serve(move |_, _| Told::new(200, listing.clone()));
        let cache = tempfile::tempdir().unwrap();
        let error =
            client(&endpoint, cache.path()).snapshot(RepoKind::Model, &model("me/small"), |_| true).unwrap_err();
        assert!(error.to_string().contains("without a commit"), "{commit}: {error}");
    }
}

/// Regression: parts numbered 0 or beyond all bounds ended the program, and with too few of them half a file was
/// committed.
#[test]
fn parts_that_are_not_those_of_the_file_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors"), weights()).unwrap();
    let size = |bytes: u64, keys: &[&str]| {
        let mut header = serde_json::json!({"chunk_size": bytes});
        keys.iter().for_each(|key| header[key] = "http://127.0.0.1:1/part".into());
        header
    };
    for header in [
        size(2_000_000, &["0", "1"]),
        size(2_000_000, &["1"]),
        size(2_000_000, &["1", "3"]),
        size(2_000_000, &["1", "2", "3"]),
        size(2_000_000, &["1", "01"]),
        size(u64::MAX, &["9999999999"]),
    ] {
        let (endpoint, asked) = serve(move |asked, _| match asked.path.as_str() {
            "/api/models/me/new/preupload/main" => {
                Told::new(200, r#"{"files": [{"path": "model.safetensors", "uploadMode": "lfs"}]}"#)
            }
            "/me/new.git/info/lfs/objects/batch" => {
                let upload = serde_json::json!({"href": "http://127.0.0.1:1/complete", "header": header});
                let object = serde_json::json!({"oid": sha256(&weights()), "actions": {"upload": upload}});
                Told::new(200, serde_json::json!({"objects": [object]}).to_string())
            }
            _ => Told::new(200, "{}"),
        });
        let cache = tempfile::tempdir().unwrap();
        let commit = Commit { summary: "step 5", private: true };
        let error = client(&endpoint, cache.path()).upload(folder.path(), &model("me/new"), &commit).unwrap_err();
        assert!(error.to_string().contains("are not the"), "{error}");
        assert!(asked.lock().unwrap().iter().all(|asked| !asked.path.contains("/commit/")));
    }
}
