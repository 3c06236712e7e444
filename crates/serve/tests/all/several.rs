//! Several prompts in one request, and the likeliest tokens beside those that were drawn.

use serde_json::{Value, json};
use serve::ServerOptions;

use crate::support::*;

/// The entries of one choice of a stream of `/v1/completions`: its text and the lists of its `logprobs`.
fn of_choice(events: &[Value], index: usize) -> (String, Value) {
    let mut text = String::new();
    let mut lists = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
    let all = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    for choice in all.filter(|choice| choice["index"] == index) {
        text += choice["text"].as_str().unwrap();
        for (name, list) in lists.as_object_mut().unwrap() {
            list.as_array_mut().unwrap().extend(choice["logprobs"][name].as_array().unwrap().clone());
        }
    }
    (text, lists)
}

/// Texts and token ids, each answered as it would be alone with the seeds that follow each other, whole and in parts.
#[test]
fn several_prompts_are_answered_as_each_alone() {
    let (server, alone) = (TestServer::start(options()), Alone::new());
    let base = Ask { n: 2, ..Ask::new("", 8) };
    let ids = alone.processor.encode_text("Three of them").unwrap();
    let prompts = json!(["One and one is", ids, "One and one is"]);
    let mut body = json!({ "model": "toy", "prompt": prompts, "n": 2, "seed": 8, "max_tokens": 40, "logprobs": 3 });
    let whole = post(server.address(), "/v1/completions", &body).json();
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    let mut events = post(server.address(), "/v1/completions", &body).events();
    assert_eq!(events.pop().unwrap()["usage"], whole["usage"]);
    assert_eq!(whole["choices"].as_array().unwrap().len(), 6);
    let (mut tokens, mut prompt_tokens) = (0, 0);
    for (i, text) in ["One and one is", "Three of them", "One and one is"].into_iter().enumerate() {
        let mut ask = base.clone();
        ask.sampling.seed += i as u64;
        let ids = alone.processor.encode_text(text).unwrap();
        prompt_tokens += ids.len();
        for (k, response) in alone.continued(ids, vec![], vec![], &ask).iter().enumerate() {
            let (index, choice) = (2 * i + k, &whole["choices"][2 * i + k]);
            assert_eq!(
                (choice["index"].as_u64(), &choice["finish_reason"]),
                (Some(index as u64), &finish(response).into())
            );
            assert_eq!(choice["text"], alone.text(response), "prompt {i}, response {k}");
            let (streamed, lists) = of_choice(&events, index);
            assert_eq!((&streamed.into(), &lists), (&choice["text"], &choice["logprobs"]));
            let tops = choice["logprobs"]["top_logprobs"].as_array().unwrap();
            assert_eq!(tops.len(), response.ids.len());
            assert!(tops.iter().all(|tops| (1..=3).contains(&tops.as_object().unwrap().len())), "{tops:?}");
            tokens += response.ids.len();
        }
    }
    assert_ne!(whole["choices"][0]["text"], whole["choices"][4]["text"], "the same prompt twice has two answers");
    assert_eq!(whole["usage"]["completion_tokens"], tokens);
    assert_eq!(whole["usage"]["prompt_tokens"], prompt_tokens);
    wait_until("nothing is kept", || server.is_empty());
}

#[test]
fn prompts_that_are_too_many_or_none_are_refused() {
    let server = TestServer::start(ServerOptions { max_queue: 3, max_batch_rows: 1, ..options() });
    let ask = |prompt: Value, tokens: usize| {
        let body = json!({ "model": "toy", "prompt": prompt, "max_tokens": tokens, "min_tokens": tokens });
        post(server.address(), "/v1/completions", &body)
    };
    assert_eq!(ask(json!(["a", "b", "c"]), 3).json()["choices"].as_array().unwrap().len(), 3);
    assert!(
        ask(json!(["a", "b", "c", "d"]), 3).error(400)["message"].as_str().unwrap().contains("4 prompts; 3 at most")
    );
    let picture = Alone::new().processor.image_pad_id();
    for id in [json!(picture), json!(1 << 20)] {
        let error = ask(json!([1, id]), 3).error(400);
        assert!(error["message"].as_str().unwrap().contains(&format!("no text token {id}")), "{error}");
    }
    // One prompt runs, and the other two wait: two more have no room, one has.
    let body =
        json!({ "model": "toy", "prompt": ["a", "b", "c"], "max_tokens": 900, "min_tokens": 900, "stream": true });
    let running = send(server.address(), "POST", "/v1/completions", JSON, body.to_string().as_bytes());
    wait_until("one runs", || server.metric("serve_rows") == 1.0);
    let error = ask(json!(["a", "b"]), 3).error(429);
    assert_eq!(error["code"], "queue_full");
    drop(running);
    wait_until("nothing is left, of those that waited either", || server.is_empty());
    ask(json!("a"), 3).json();
}

/// The likeliest first, the greedy choice among them; the same alone, in parts, and among others that ask for more, for
/// fewer, or for none.
#[test]
fn the_likeliest_tokens_are_named() {
    let server = TestServer::start(ServerOptions { max_batch_rows: 16, ..options() });
    let address = server.address();
    let ask = move |i: u64| {
        let mut ask = Ask { n: 1 + (i % 2) as usize, max_tokens: 20 + i as usize, ..Ask::new("What is this?", i) };
        ask.sampling.temperature = [0.0, 1.0, 0.6][(i % 3) as usize];
        ask.picture = i.is_multiple_of(4).then(|| fixture("images/small.png"));
        let tops = [5, 0, 20, 1][(i % 4) as usize];
        (tops, ask.body(&json!({ "logprobs": true, "top_logprobs": tops })))
    };
    let single: Vec<Value> = (0..12).map(|i| chat(address, &ask(i).1).json()).collect();
    let together: Vec<_> = (0..12).map(|i| std::thread::spawn(move || chat(address, &ask(i).1).json())).collect();
    let together: Vec<Value> = together.into_iter().map(|one| one.join().unwrap()).collect();
    let number = |value: &Value| value["logprob"].as_f64().unwrap();
    for (i, (single, together)) in single.iter().zip(&together).enumerate() {
        let (tops, mut body) = ask(i as u64);
        body["stream"] = true.into();
        let events = chat(address, &body).events();
        for (k, choice) in single["choices"].as_array().unwrap().iter().enumerate() {
            let entries = choice["logprobs"]["content"].as_array().unwrap();
            let of_stream = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
            let of_stream = of_stream.filter(|choice| choice["index"] == k);
            let of_stream: Vec<&Value> =
                of_stream.flat_map(|choice| choice["logprobs"]["content"].as_array().into_iter().flatten()).collect();
            assert_eq!(of_stream, entries.iter().collect::<Vec<_>>());
            let others = together["choices"][k]["logprobs"]["content"].as_array().unwrap();
            assert_eq!(entries.len(), others.len());
            for (entry, other) in entries.iter().zip(others) {
                let all = entry["top_logprobs"].as_array().unwrap();
                assert_eq!((all.len(), &entry["token"]), (tops, &other["token"]), "request {i}");
                assert!(all.windows(2).all(|pair| number(&pair[0]) >= number(&pair[1])), "{all:?}");
                assert!(all.iter().map(|top| number(top).exp()).sum::<f64>() < 1.0 + 1e-4);
                if let (Some(first), true) = (all.first(), i % 3 == 0) {
                    assert_eq!(first["token"], entry["token"], "greedy draws the likeliest");
                    assert!((number(first) - number(entry)).abs() < 1e-4, "{first} {entry}");
                }
                for (a, b) in all.iter().zip(other["top_logprobs"].as_array().unwrap()) {
                    assert!((number(a) - number(b)).abs() < 1e-3, "request {i}: {a} alone, {b} among others");
                }
            }
        }
    }
    wait_until("nothing is kept", || server.is_empty());
}
