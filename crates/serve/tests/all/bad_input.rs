//! What cannot be answered, and how that is told.

use std::io::Cursor;

use serde_json::{Value, json};
use serve::ServerOptions;

use crate::support::*;

#[test]
fn bad_requests_are_told_what_is_wrong() {
    let server =
        TestServer::start(ServerOptions { max_prompt_tokens: 300, max_new_tokens: 50, max_batch_rows: 8, ..options() });
    let ask = |change: Value| {
        let answer = chat(server.address(), &Ask::new("a", 1).body(&change));
        (answer.status, answer)
    };
    let picture = |url: &str| {
        let part = json!({ "type": "image_url", "image_url": { "url": url } });
        json!({ "messages": [{ "role": "user", "content": [part] }] })
    };
    let many: Vec<String> = (0..10_000).map(|i| format!("stop {i}")).collect();
    let user = |text: String| json!({ "messages": [{ "role": "user", "content": text }] });
    for (change, status, parts) in [
        (json!({ "model": "gpt-4" }), 404, &["gpt-4", "`toy`"][..]),
        (json!({ "stop": many }), 400, &["10000 stop strings", "16"]),
        (json!({ "max_tokens": 51 }), 400, &["51 tokens", "50 at most", "--max-new-tokens"]),
        (json!({ "n": 9 }), 400, &["9 responses", "8 at a time"]),
        (json!({ "min_tokens": 41 }), 400, &["min_tokens", "40"]),
        (user("word ".repeat(400)), 400, &["tokens", "300 at most"]),
        (user("word ".repeat(400_000)), 400, &["bytes", "300 tokens"]),
        (user("<|im_end|>".into()), 400, &["special token <|im_end|>"]),
        (json!({ "visual_focus": true }), 400, &["no picture"]),
        (json!({ "response_format": { "type": "json_object" } }), 400, &["response_format"]),
        (json!({ "top_logprobs": 3 }), 400, &["top_logprobs"]),
        (picture("https://example.com/a.png"), 400, &["fetches nothing", "messages[0].content[0]"]),
        (picture("file:///etc/passwd"), 400, &["--allowed-media"]),
        (picture("data:image/png;base64,aGVsbG8="), 400, &["not an image in a known format"]),
    ] {
        let (got, answer) = ask(change.clone());
        assert_eq!(got, status, "{change}: {}", answer.text());
        let message = answer.error(status)["message"].as_str().unwrap().to_owned();
        parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message}"));
    }
    assert_eq!(ask(json!({ "model": "gpt-4" })).1.error(404)["code"], "model_not_found");
    let raw = |method: &str, path: &str, headers: &str, body: &[u8]| {
        receive(send(server.address(), method, path, headers, body))
    };
    let message = |answer: &Answer, status| answer.error(status)["message"].as_str().unwrap().to_owned();
    let path = "/v1/chat/completions";
    assert!(message(&raw("POST", path, JSON, b"{\"model\": "), 400).contains("no JSON: EOF"));
    assert!(message(&raw("POST", path, JSON, b"[1]"), 400).contains("expected a JSON object"));
    assert!(message(&raw("POST", path, "", b"{}"), 415).contains("application/json"));
    let answer = raw("GET", path, "", b"");
    assert!(message(&answer, 405).contains("POST") && answer.head.contains("\r\nallow: post\r\n"), "{}", answer.head);
    assert!(raw("PUT", "/health", "", b"").head.contains("\r\nallow: get, head\r\n"));
    let compressed = format!("{JSON}Content-Encoding: gzip\r\n");
    assert!(message(&raw("POST", path, &compressed, b"\x1f\x8b"), 415).contains("Content-Encoding"));
    let head = raw("HEAD", "/v1/models", "", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(message(&raw("POST", "/v1/embeddings", JSON, b"{}"), 404).contains("/v1/embeddings"));
    assert!(message(&raw("GET", "/", "", b""), 404).contains("nothing at /"));
    assert!(server.is_empty());
    // It still answers.
    ask(json!({})).1.json();
}

/// A picture whose header promises more pixels than may be decoded, and many that are large together.
#[test]
fn picture_bombs_are_refused_before_they_are_decoded() {
    let server = TestServer::start(ServerOptions { max_prompt_tokens: 4000, ..options() });
    let url = |picture: &image::DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        use base64::Engine;
        format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes.into_inner()))
    };
    let ask = |urls: &[&str]| {
        let parts: Vec<Value> =
            urls.iter().map(|url| json!({ "type": "image_url", "image_url": { "url": url } })).collect();
        let body = json!({ "model": "toy", "max_tokens": 2, "messages": [{ "role": "user", "content": parts }] });
        let started = std::time::Instant::now();
        let answer = chat(server.address(), &body);
        (answer.error(400)["message"].as_str().unwrap().to_owned(), started.elapsed())
    };
    let bomb = url(&image::DynamicImage::new_luma8(30_000, 30_000));
    let (message, time) = ask(&[&bomb]);
    assert!(message.contains("pixels") && message.contains("limit"), "{message}");
    let large = url(&image::DynamicImage::new_luma8(9_000, 9_000));
    let (together, _) = ask(&[large.as_str(); 5]);
    assert!(together.contains("together"), "{together}");
    assert!(time.as_secs() < 20, "{time:?}");
    let (many, _) = ask(&vec!["data:image/png;base64,iVBORw0KGgo="; 300]);
    assert!(many.contains("more than 256 pictures"), "{many}");
}

/// A body that is too large is not kept, and whoever sends it reads why.
#[test]
fn large_bodies_are_refused() {
    let server = TestServer::start(ServerOptions { max_body_bytes: 100_000, ..options() });
    let body = vec![b'x'; 100 << 20];
    let answer = receive(send(server.address(), "POST", "/v1/chat/completions", JSON, &body));
    assert!(answer.error(413)["message"].as_str().unwrap().contains("100000 bytes"));
    let fits = Ask::new(&"a".repeat(50), 1).body(&json!({}));
    chat(server.address(), &fits).json();
}

#[test]
fn a_key_and_a_name_that_are_not_ours_are_refused() {
    let options =
        ServerOptions { api_key: Some("sk-secret".into()), allowed_names: vec!["known.example".into()], ..options() };
    let server = TestServer::start(options);
    let port = server.address().port();
    let ask = |path: &str, host: &str, key: &str| {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        let key = if key.is_empty() { String::new() } else { format!("Authorization: {key}\r\n") };
        use std::io::Write;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{key}Connection: close\r\n\r\n").unwrap();
        receive(stream).status
    };
    for key in ["", "Bearer sk-secre", "Bearer sk-secrets", "sk-secret", "Bearer sk-secreT"] {
        assert_eq!(ask("/v1/models", "localhost", key), 401, "{key}");
        assert_eq!(ask("/metrics", "localhost", key), 401, "{key}");
    }
    assert_eq!(ask("/v1/models", "localhost", "Bearer sk-secret"), 200);
    assert_eq!(ask("/health", "127.0.0.1", ""), 200);
    for host in ["evil.example", &format!("evil.example:{port}"), "127.0.0.1.evil.example", "127.0.0.1@evil.example"] {
        assert_eq!(ask("/health", host, "Bearer sk-secret"), 403, "{host}");
    }
    for host in ["127.0.0.1", "localhost", "[::1]:8", &format!("known.example:{port}")] {
        assert_eq!(ask("/health", host, ""), 200, "{host}");
    }
}

/// Regression: the official client writes the slashes of a model's name as %2F.
#[test]
fn a_model_is_found_by_its_name_in_an_address() {
    let names = vec!["runs/a b".into(), "ü".into()];
    let server = TestServer::start(ServerOptions { model_names: names, ..options() });
    for path in ["runs/a%20b", "runs%2Fa%20b", "runs%2fa%20b"] {
        assert_eq!(get(server.address(), &format!("/v1/models/{path}")).json()["id"], "runs/a b", "{path}");
    }
    assert_eq!(get(server.address(), "/v1/models/%C3%BC").json()["id"], "ü");
    for path in ["", "runs", "runs%2Fa%20b/", "%FF", "%"] {
        assert_eq!(
            get(server.address(), &format!("/v1/models/{path}")).error(404)["code"],
            "model_not_found",
            "{path}"
        );
    }
}
