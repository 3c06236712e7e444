//! How requests end that are not answered: clients that go, full queues, time that is over, a server that ends.

use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::json;
use serve::ServerOptions;

use crate::support::*;

/// A request that takes as long as the model lets it.
fn endless(seed: u64) -> Ask {
    // No end token is drawn before its time.
    Ask { max_tokens: 3000, ..Ask::new("Go on.", seed) }
}

fn long() -> ServerOptions {
    ServerOptions { max_new_tokens: 3000, ..options() }
}

/// Whoever goes away is forgotten within a token, streamed to or not, running or waiting.
#[test]
fn clients_that_go_away_are_forgotten() {
    let server = TestServer::start(ServerOptions { max_batch_rows: 4, ..long() });
    for stream in [true, false] {
        let connections: Vec<_> = (0..7)
            .map(|seed| {
                let body = endless(seed).body(&json!({ "stream": stream, "min_tokens": 3000 })).to_string();
                send(server.address(), "POST", "/v1/chat/completions", JSON, body.as_bytes())
            })
            .collect();
        wait_until("four rows are drawn and three requests wait", || {
            server.metric("serve_rows") == 4.0 && server.metric("serve_requests_running") == 7.0
        });
        drop(connections);
        wait_until("nothing is left", || server.is_empty());
    }
    let cut = server.metric("serve_cut_off_total{reason=\"disconnected\"}");
    assert_eq!(cut, 14.0);
    chat(server.address(), &Ask::new("a", 1).body(&json!({}))).json();
}

/// Beyond the queue clients are sent away, and told when to come back.
#[test]
fn a_full_queue_is_told() {
    let server = TestServer::start(ServerOptions { max_batch_rows: 1, max_queue: 2, ..long() });
    let body = endless(1).body(&json!({ "stream": true, "min_tokens": 3000 })).to_string();
    let start = || send(server.address(), "POST", "/v1/chat/completions", JSON, body.as_bytes());
    let first = start();
    wait_until("one runs", || server.metric("serve_rows") == 1.0);
    let waiting = [start(), start()];
    wait_until("two wait", || server.metric("serve_requests_running") == 3.0);
    let answer = chat(server.address(), &Ask::new("a", 1).body(&json!({})));
    assert_eq!(answer.error(429)["code"], "queue_full");
    assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    drop((first, waiting));
    wait_until("nothing is left", || server.is_empty());
    chat(server.address(), &Ask::new("a", 1).body(&json!({}))).json();
}

/// What takes too long ends with an error: a status, or an event in a stream that has begun.
#[test]
fn time_is_limited() {
    let server = TestServer::start(ServerOptions { request_time: Duration::from_millis(400), ..long() });
    let body = endless(1).body(&json!({ "min_tokens": 3000 }));
    assert_eq!(chat(server.address(), &body).error(504)["code"], "timeout");
    let body = endless(1).body(&json!({ "min_tokens": 3000, "stream": true }));
    let answer = chat(server.address(), &body);
    let last = answer.text().trim_end().rsplit("\n\n").next().unwrap().to_owned();
    assert!(answer.status == 200 && last.starts_with("data: {\"error\"") && last.contains("timeout"), "{last}");
    // A body that does not come.
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    use std::io::Write;
    write!(stream, "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 10\r\n\r\n{{").unwrap();
    assert_eq!(receive(stream).error(408)["code"], "timeout");
    wait_until("nothing is left", || server.is_empty());
}

/// What is being answered is finished, and nothing new is begun.
#[test]
fn a_server_ends_when_all_is_answered() {
    let mut server = TestServer::start(long());
    let ask = Ask { max_tokens: 400, ..Ask::new("a", 1) };
    let body = ask.body(&json!({ "min_tokens": 400 })).to_string();
    let running = send(server.address(), "POST", "/v1/chat/completions", JSON, body.as_bytes());
    wait_until("it runs", || server.metric("serve_rows") == 1.0);
    let address = server.address();
    let answer = std::thread::spawn(move || receive(running));
    server.end().unwrap();
    let reply = answer.join().unwrap().json();
    assert_eq!(reply["usage"]["completion_tokens"], 400);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// What is not finished within the grace is cut off, with a reason.
#[test]
fn the_grace_of_an_ending_server_is_limited() {
    let mut server = TestServer::start(ServerOptions { grace: Duration::from_millis(100), ..long() });
    let start = |stream: bool| {
        let body = endless(1).body(&json!({ "min_tokens": 3000, "stream": stream })).to_string();
        send(server.address(), "POST", "/v1/chat/completions", JSON, body.as_bytes())
    };
    let (mut streamed, whole) = (start(true), start(false));
    wait_until("both run", || server.metric("serve_rows") == 2.0);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        streamed.read_to_string(&mut text).unwrap();
        text
    });
    let whole = std::thread::spawn(move || receive(whole));
    let started = Instant::now();
    server.end().unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    let message = whole.join().unwrap().error(503)["message"].clone();
    assert!(message.as_str().unwrap().contains("ending"), "{message}");
    let text = reader.join().unwrap();
    assert!(text.contains("the server is ending") && !text.contains("[DONE]"), "{}", &text[text.len() - 300..]);
}

/// Whoever does not finish a head or a body is sent away after a time, and holds nobody's place any longer.
#[test]
fn clients_that_send_slowly_are_sent_away() {
    use std::io::Write;
    let slow = Duration::from_secs(3);
    let server = TestServer::start(ServerOptions { max_queue: 2, slow_reader: slow, ..options() });
    let connect = || {
        let stream = std::net::TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let heads: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect();
            write!(stream, "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let bodies: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect();
            let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
            write!(stream, "{head}{JSON}Content-Length: 99\r\n\r\n").unwrap();
            // The server asks for the body once the request has its place.
            let mut goes_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
            stream.read_exact(&mut goes_on).unwrap();
            stream.write_all(b"{").unwrap();
            stream
        })
        .collect();
    let ask = || chat(server.address(), &Ask::new("a", 1).body(&json!({ "max_tokens": 3 })));
    assert_eq!(ask().error(429)["code"], "queue_full", "both hold a place");
    let started = Instant::now();
    wait_until("a place is free", || ask().status == 200);
    assert!(started.elapsed() < Duration::from_secs(30));
    for body in bodies {
        let error = receive(body).error(408);
        assert!(error["message"].as_str().unwrap().contains("only 1 bytes of the body"), "{error}");
    }
    for mut head in heads {
        let mut rest = Vec::new();
        head.read_to_end(&mut rest).unwrap();
    }
    // Who sends slowly but goes on has time for it.
    let body = Ask::new("a", 1).body(&json!({ "max_tokens": 3, "user": "x".repeat(60_000) })).to_string();
    let mut stream = connect();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{JSON}");
    write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len()).unwrap();
    for part in body.as_bytes().chunks(body.len().div_ceil(4)) {
        stream.write_all(part).unwrap();
        std::thread::sleep(slow * 2 / 5);
    }
    receive(stream).json();
}
