//! The program `serve`: what it refuses, and how it ends.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::*;

fn serve() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
    command.args(["--backend", "flex", "--model"]).arg(model_folder()).stdin(Stdio::null());
    command
}

/// A server and its address, once it is ready.
fn started(mut command: Command) -> (Child, SocketAddr) {
    let mut child = command.args(["--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.find_map(|line| Some(line.unwrap().strip_prefix("ready: http://")?.to_owned())).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    (child, ready.split('/').next().unwrap().parse().unwrap())
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn bad_usage_is_one_error_that_names_the_fix() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, parts) in [
        (&["--port", &port][..], &["is in use", "--port N"][..]),
        (&["--host", "198.51.100.1"], &["198.51.100.1", "--host"]),
        (&["--api-key", "NO_SUCH_VARIABLE"], &["NO_SUCH_VARIABLE", "is not set"]),
        (&["--allowed-media", "no/such/folder"], &["--allowed-media", "no folder"]),
        (&["--max-queue", "0"], &["--max-queue"]),
        (&["--model", "no/such/folder"], &["no/such/folder"]),
    ] {
        let mut command = serve();
        if arguments[0] == "--model" {
            command = Command::new(env!("CARGO_BIN_EXE_serve"));
        }
        let output = command.args(arguments).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert_eq!(message.matches("error:").count(), 1, "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in {message}"));
    }
}

/// A signal lets it finish what it answers and ends it with 0. What becomes of its folder meanwhile changes nothing.
#[cfg(unix)]
#[test]
fn a_signal_ends_it_and_its_folder_may_change() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(model_folder()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve"));
    command.args(["--backend", "flex", "--model"]).arg(&folder);
    let (mut child, address) = started(command);
    let ask = Ask::new("What is this?", 4);
    let body = || {
        let mut body = ask.body(&json!({}));
        body["model"] = "model".into();
        body
    };
    let before = chat(address, &body()).json();
    for entry in std::fs::read_dir(&folder).unwrap() {
        // In place, as a copy over it would: what is mapped changes with it.
        std::fs::write(entry.unwrap().path(), "gone").unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(chat(address, &body()).json()["choices"], before["choices"]);
    let mut long = body();
    (long["max_tokens"], long["min_tokens"]) = (600.into(), 600.into());
    let running = send(address, "POST", "/v1/chat/completions", JSON, long.to_string().as_bytes());
    wait_until("it runs", || get(address, "/metrics").text().contains("\nserve_rows 1\n"));
    signal(&child, "TERM");
    assert_eq!(receive(running).json()["usage"]["completion_tokens"], 600);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The text of the program `generate`, where it was built: the same seed and settings give the same.
#[test]
fn the_answer_is_what_the_program_generate_writes() {
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("generate");
    if !built.is_file() {
        // `cargo test --workspace` builds it, `cargo test --test serve` does not.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "{} is not built", built.display());
        println!("not compared: {} is not built", built.display());
        return;
    }
    let server = TestServer::start(options());
    for seed in [1, 2, 3] {
        let ask = Ask { picture: Some(fixture("images/wide.png")), ..Ask::new("What is this?", seed) };
        let mut command = Command::new(&built);
        command.args(["--backend", "flex", "--temperature", "1", "--max-new-tokens", "40", "--prompt", &ask.text]);
        command.args(["--seed", &seed.to_string(), "--model"]).arg(model_folder());
        command.arg("--image").arg(ask.picture.as_ref().unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let reply = chat(server.address(), &ask.body(&json!({}))).json();
        let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{text}\n"));
    }
}
