//! Many requests at once, half of which are cut off: nothing leaks, nothing is mixed up.

use std::io::Read;

use serde_json::json;
use serve::ServerOptions;

use crate::support::*;

const REQUESTS: u64 = 200;

/// Requests of all kinds.
fn ask(i: u64) -> Ask {
    let mut ask = Ask::new(&format!("Question {}: what is this?", i * 7919 % 101), i);
    ask.picture = i.is_multiple_of(3).then(|| fixture(["images/wide.png", "images/small.png"][(i / 3 % 2) as usize]));
    ask.n = [1, 1, 2, 3][(i % 4) as usize];
    ask.max_tokens = 5 + (i * 37 % 60) as usize;
    ask.sampling.temperature = [1.0, 0.0, 0.7, 1.3][(i / 4 % 4) as usize];
    ask.sampling.top_p = [1.0, 0.9][(i / 2 % 2) as usize];
    ask
}

#[test]
fn two_hundred_requests_half_of_them_cut_off() {
    let server = TestServer::start(ServerOptions { max_batch_rows: 24, ..options() });
    let address = server.address();
    let clients: Vec<_> = (0..REQUESTS)
        .map(|i| {
            std::thread::spawn(move || {
                let (ask, stream) = (ask(i), i % 5 < 2);
                let is_cut = i % 2 == 1;
                // Whoever is cut off would have gone on for longer.
                let ask = if is_cut { Ask { max_tokens: 600, ..ask } } else { ask };
                let body = ask.body(&json!({ "stream": stream })).to_string();
                let mut connection = send(address, "POST", "/v1/chat/completions", JSON, body.as_bytes());
                if is_cut {
                    // At once, or after some of the answer, or while nothing has come.
                    match i % 6 {
                        1 => {}
                        3 => _ = connection.read(&mut [0; 2000]),
                        _ => std::thread::sleep(std::time::Duration::from_millis(30 * (i % 9))),
                    }
                    return None;
                }
                Some((ask, stream, receive(connection)))
            })
        })
        .collect();
    let answers: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap()).collect();
    wait_until("nothing is left", || server.is_empty());
    assert_eq!(answers.len(), REQUESTS as usize / 2);
    let alone = Alone::new();
    for (ask, stream, answer) in answers {
        let expected: Vec<String> = alone.responses(&ask).iter().map(|response| alone.text(response)).collect();
        let mut texts = vec![String::new(); ask.n];
        if stream {
            for choice in answer.events().iter().flat_map(|event| event["choices"].as_array().unwrap().clone()) {
                texts[choice["index"].as_u64().unwrap() as usize] += choice["delta"]["content"].as_str().unwrap();
            }
        } else {
            for (choice, text) in answer.json()["choices"].as_array().unwrap().iter().zip(&mut texts) {
                *text = choice["message"]["content"].as_str().unwrap().into();
            }
        }
        assert_eq!(texts, expected, "{ask:?}");
    }
    let answered = server.metric("serve_answered_seconds_count");
    let cut = server.metric("serve_cut_off_total{reason=\"disconnected\"}");
    // On a busy machine most of those that go have gone before their requests were prepared, and are not counted.
    assert!(answered >= 100.0 && cut > 5.0, "{answered} answered, {cut} cut off");
}
