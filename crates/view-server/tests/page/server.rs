//! What the server answers, and to whom.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use serde_json::Value;
use view::ViewedRun;
use view_server::{ServeError, Server};

use crate::invented::{HOSTILE, Invented};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server of `paths` in a thread of this test.
pub(crate) fn serve(paths: &[&Path]) -> SocketAddr {
    let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
    let runs = ViewedRun::open(&paths).unwrap();
    let server = Server::bind(runs, HERE, 0, vec!["known.example".into()]).unwrap();
    let address = server.address();
    std::thread::spawn(move || server.serve());
    address
}

/// An answer: its status, its head, its body.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Asks as it stands: no client of ours cleans the path.
fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    let host = if host.is_empty() { String::new() } else { format!("Host: {host}\r\n") };
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head, body: bytes.get(end + 4..).unwrap_or_default().to_vec() }
}

fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, "GET", path, &address.to_string())
}

#[test]
fn the_page_and_all_of_a_run_are_served() {
    let place = tempfile::tempdir().unwrap();
    let address = serve(&[&Invented::default().write(place.path())]);
    let page = get(address, "/");
    assert!(page.head.contains("content-security-policy: default-src 'none'") && page.head.contains("nosniff"));
    assert!(!page.head.contains("unsafe"), "{}", page.head);
    for name in String::from_utf8(page.body).unwrap().split('"').filter(|part| part.starts_with("assets/")) {
        assert_eq!(get(address, &format!("/{name}")).status, 200, "{name}");
    }
    let runs = get(address, "/api/runs").json();
    assert_eq!(runs["runs"][0]["about"]["state"], "finished");
    let first = &runs["sections"][0]["metrics"][0];
    assert_eq!((&first["name"], &first["meaning"]), (&"step".into(), &"number of the step over all stages".into()));
    let curves = get(address, "/api/runs/0/metrics").json();
    assert_eq!(curves["steps"].as_array().unwrap().len(), 120);
    assert_eq!(curves["columns"]["reward"].as_array().unwrap().len(), 120);
    assert_eq!(curves["stages"], serde_json::json!([[0, "warm_start"], [29, "vgpo"]]));
    assert_eq!(get(address, "/api/runs/0/steps").json()["training"], serde_json::json!([20, 40, 60, 80, 100, 120]));
    let list = get(address, "/api/runs/0/rollouts/120").json();
    let flat: Vec<_> = list["groups"].as_array().unwrap().iter().map(|group| group["flat"].clone()).collect();
    assert_eq!(flat, [false, true, true]);
    assert_eq!(list["groups"][1]["responses"][1]["disagree"], true);
    assert_eq!(list["groups"][2]["tokens"], false);
    let group = get(address, "/api/runs/0/rollouts/120/1").json();
    assert_eq!(group["responses"][2]["stream"]["line"], 6);
    assert_eq!(group["responses"][1]["disagree"]["kind"], "unreduced_fraction");
    let picture = get(address, "/api/runs/0/pictures/bars.png");
    assert!(picture.head.contains("image/png") && picture.body.starts_with(b"\x89PNG"));
    assert_eq!(get(address, "/api/runs/0/validation/0").json()["rows"].as_array().unwrap().len(), 20);
    assert_eq!(get(address, "/api/runs/0/set_aside").json()["rows"][0]["id"], "q-3");
    let keys = get(address, "/api/runs/0/config").json();
    assert_eq!(
        keys["keys"][1],
        serde_json::json!({"key": "algorithm.beta", "value": "0.5", "meaning": "Strength of the shaping."})
    );
}

#[test]
fn hostile_text_is_data() {
    let place = tempfile::tempdir().unwrap();
    let address = serve(&[&Invented::default().write(place.path())]);
    let answer = get(address, "/api/runs/0/rollouts/120/2");
    assert!(answer.head.contains("content-type: application/json"));
    assert_eq!(answer.json()["responses"][0]["row"]["problem"], HOSTILE);
    // What is echoed of a request is plain text.
    let echoed = get(address, "/api/runs/0/pictures/%3Cscript%3E.png");
    assert!(echoed.status == 404 && echoed.head.contains("text/plain"));
}

#[test]
fn only_the_run_is_read() {
    let place = tempfile::tempdir().unwrap();
    let root = Invented::default().write(&place.path().join("run"));
    std::fs::write(place.path().join("secret.png"), b"\x89PNG\r\n\x1a\nsecret").unwrap();
    std::fs::write(place.path().join("secret.jsonl"), "{\"step\":1,\"secret\":1}\n").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(place.path().join("secret.png"), root.join("pictures/link.png")).unwrap();
        symlink(place.path().join("secret.jsonl"), root.join("rollouts/step_999.jsonl")).unwrap();
        std::fs::remove_file(root.join("set_aside.jsonl")).unwrap();
        symlink(place.path().join("secret.jsonl"), root.join("set_aside.jsonl")).unwrap();
    }
    std::fs::write(root.join("pictures/page.png"), "<script>alert(1)</script>").unwrap();
    let address = serve(&[&root]);
    for path in [
        "/api/runs/0/pictures/link.png",
        "/api/runs/0/pictures/page.png",
        "/api/runs/0/pictures/../../secret.png",
        "/api/runs/0/pictures/..%2f..%2fsecret.png",
        "/api/runs/0/pictures/.png",
        "/api/runs/0/rollouts/999",
        "/api/runs/0/rollouts/..",
        "/api/runs/0/rollouts/18446744073709551616",
        "/api/runs/1/metrics",
        "/api/runs/-1/metrics",
        "/api/runs/0/metrics?from=x",
        "/assets/../lib.rs",
        "/config.toml",
        "/../../etc/passwd",
        "//etc/passwd",
    ] {
        let answer = get(address, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret\""), "{path}");
    }
    assert_eq!(get(address, "/api/runs/0/set_aside").json(), Value::Null);
}

#[test]
fn a_name_that_is_not_ours_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let address = serve(&[&Invented::default().write(place.path())]);
    let port = address.port();
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "a b",
        "127.0.0.1@evil.example",
    ] {
        let status = ask(address, "GET", "/api/runs", host).status;
        assert!([400, 403].contains(&status), "{host:?}: {status}");
    }
    for host in ["127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8", "10.1.2.3", &format!("known.example:{port}")] {
        assert_eq!(ask(address, "GET", "/api/runs", host).status, 200, "{host}");
    }
    assert_eq!(ask(address, "POST", "/api/runs", "localhost").status, 405);
    assert_eq!(ask(address, "DELETE", "/api/runs/0/metrics", "localhost").status, 405);
    assert!(ask(address, "HEAD", "/", "localhost").body.is_empty());
}

#[test]
fn half_a_line_is_waited_for_and_a_log_that_was_cut_is_read_anew() {
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("metrics.jsonl");
    std::fs::write(&log, "{\"step\":1,\"reward\":1}\nno JSON\n{\"step\":2,\"reward\":null}\n{\"step\":3,\"rew")
        .unwrap();
    let address = serve(&[place.path()]);
    let first = get(address, "/api/runs/0/metrics").json();
    assert_eq!(first["steps"], serde_json::json!([1, 2]));
    assert_eq!(first["columns"]["reward"], serde_json::json!([1.0, null]));
    assert_eq!((&first["bad"]["count"], &first["not_finite"]["reward"]), (&1.into(), &1.into()));
    assert!(first["bad"]["first"].as_str().unwrap().starts_with("line 2: "), "{first}");
    let from = |next: &Value| get(address, &format!("/api/runs/0/metrics?from={next}")).json();
    assert_eq!(from(&first["next"])["steps"], serde_json::json!([]));
    let mut text = std::fs::read_to_string(&log).unwrap();
    text += "ard\":3}\n";
    std::fs::write(&log, text).unwrap();
    let second = from(&first["next"]);
    assert_eq!((&second["steps"], &second["restart"]), (&serde_json::json!([3]), &false.into()));
    // A run that was resumed from its first step.
    std::fs::write(&log, "{\"step\":1,\"reward\":5}\n").unwrap();
    let third = from(&second["next"]);
    assert_eq!((&third["steps"], &third["restart"]), (&serde_json::json!([1]), &true.into()));
}

#[test]
fn a_run_that_has_nothing_yet_and_one_that_is_damaged_are_shown() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("config.toml"), "seed = [").unwrap();
    std::fs::write(place.path().join("run.json"), "{\"version\": ").unwrap();
    std::fs::create_dir(place.path().join("rollouts")).unwrap();
    std::fs::write(place.path().join("rollouts/step_1.jsonl"), "{\"response\":\"a\"}\n[1]\n{\"response\":").unwrap();
    let address = serve(&[place.path()]);
    assert_eq!(get(address, "/api/runs/0/metrics").json()["steps"], serde_json::json!([]));
    assert!(
        get(address, "/api/runs").json()["runs"][0]["problem"].as_str().unwrap().starts_with("run.json cannot be read")
    );
    assert!(get(address, "/api/runs/0/config").json()["problem"].as_str().unwrap().contains("is no TOML"));
    let list = get(address, "/api/runs/0/rollouts/1").json();
    assert_eq!((list["groups"].as_array().unwrap().len(), &list["bad"]["count"]), (1, &1.into()));
    assert_eq!(get(address, "/api/runs/0/rollouts/1/7").status, 404);
}

#[test]
fn a_port_in_use_is_one_error() {
    let taken = std::net::TcpListener::bind((HERE, 0)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let runs = ViewedRun::open(&[Invented::default().write(place.path())]).unwrap();
    let refused = Server::bind(runs, HERE, taken.local_addr().unwrap().port(), vec![]).unwrap_err();
    assert!(matches!(refused, ServeError::PortInUse(_)) && refused.to_string().contains("--port"), "{refused}");
}
