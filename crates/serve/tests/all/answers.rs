//! What is answered: the same as `generate` gives, whole and in parts.

use serde_json::{Value, json};

use crate::support::*;

/// The texts, reasons and further fields of the choices of a stream.
fn joined(events: &[Value], n: usize) -> Vec<(String, Value, Vec<Value>, Vec<Value>)> {
    let mut all = vec![(String::new(), Value::Null, vec![], vec![]); n];
    for choice in events.iter().flat_map(|event| event["choices"].as_array().unwrap()) {
        let (text, reason, log_probs, focus) = &mut all[choice["index"].as_u64().unwrap() as usize];
        assert!(reason.is_null(), "nothing follows the end of a choice");
        *text += choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap();
        *reason = choice["finish_reason"].clone();
        log_probs.extend(choice["logprobs"]["content"].as_array().cloned().unwrap_or_default());
        focus.extend(choice["visual_focus"].as_array().cloned().unwrap_or_default());
    }
    all
}

/// Text alone, pictures, several choices, greedy and sampled: ids, texts, reasons, numbers are those of `generate`, and
/// the parts of a stream are the whole.
#[test]
fn answers_are_those_of_generate_whole_and_in_parts() {
    let (server, alone) = (TestServer::start(options()), Alone::new());
    let base = Ask::new("What is this?", 3);
    let picture = Some(fixture("images/wide.png"));
    let mut greedy = Ask { max_tokens: 12, ..base.clone() };
    greedy.sampling.temperature = 0.0;
    let mut nucleus = Ask { n: 3, picture: picture.clone(), ..base.clone() };
    nucleus.sampling.top_p = 0.8;
    let many = Ask { n: 5, max_tokens: 90, ..base.clone() };
    let mut lengths = std::collections::BTreeSet::new();
    for mut ask in [base.clone(), greedy, Ask { picture, focus: true, ..base.clone() }, nucleus, many] {
        let expected = alone.responses(&ask);
        let more = json!({ "logprobs": true, "visual_focus": ask.focus });
        let whole = chat(server.address(), &ask.body(&more)).json();
        let plain = chat(server.address(), &ask.body(&json!({}))).json();
        let more = json!({ "logprobs": true, "visual_focus": ask.focus, "stream": true, "stream_options": { "include_usage": true } });
        let mut events = chat(server.address(), &ask.body(&more)).events();
        let usage = events.pop().unwrap();
        assert_eq!((&usage["choices"], &usage["usage"]), (&json!([]), &whole["usage"]));
        assert!(events.iter().all(|event| event["usage"].is_null() && event["object"] == "chat.completion.chunk"));
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        let parts = joined(&events, ask.n);
        let plain_parts = joined(&chat(server.address(), &ask.body(&json!({ "stream": true }))).events(), ask.n);
        assert_eq!(whole["choices"].as_array().unwrap().len(), ask.n);
        for (i, response) in expected.iter().enumerate() {
            let (choice, (text, reason, log_probs, focus)) = (&whole["choices"][i], &parts[i]);
            assert_eq!(choice["message"]["content"], alone.text(response), "{ask:?}");
            assert_eq!(
                (choice["index"].as_u64(), &choice["finish_reason"]),
                (Some(i as u64), &finish(response).into())
            );
            assert_eq!(
                (&plain["choices"][i]["message"], &plain["choices"][i]["logprobs"]),
                (&choice["message"], &Value::Null)
            );
            assert_eq!((text, reason), (&alone.text(response), &choice["finish_reason"]));
            assert_eq!((&plain_parts[i].0, &plain_parts[i].1), (text, reason));
            assert_eq!(Some(log_probs), choice["logprobs"]["content"].as_array());
            let close = |a: &Value, b: &f32| (a.as_f64().unwrap() - f64::from(*b)).abs() < 1e-4;
            assert_eq!(log_probs.len(), response.ids.len());
            for (entry, (id, log_prob)) in log_probs.iter().zip(response.ids.iter().zip(&response.log_probs)) {
                assert!(close(&entry["logprob"], log_prob), "{entry} is not {log_prob}");
                let token = alone.processor.decode(&[*id], false).unwrap();
                assert_eq!(entry["token"], token);
                assert_eq!(entry["bytes"].is_null(), token.contains('\u{FFFD}'));
            }
            assert_eq!(choice.get("visual_focus").is_some(), ask.focus);
            if let Some(expected) = &response.visual_focus {
                assert_eq!(Some(focus), choice["visual_focus"].as_array());
                assert_eq!(focus.len(), expected.len());
                assert!(focus.iter().zip(expected).all(|(a, b)| close(&a["focus"], b)), "{focus:?} {expected:?}");
            }
            lengths.insert(response.ids.len());
        }
        let tokens: usize = expected.iter().map(|response| response.ids.len()).sum();
        assert_eq!(whole["usage"]["completion_tokens"], tokens);
        assert_eq!(whole["seed"], 3);
        // Without a seed another one is drawn, and named.
        ask.max_tokens = 5;
        let mut body = ask.body(&json!({}));
        body.as_object_mut().unwrap().remove("seed");
        let first = chat(server.address(), &body).json();
        ask.sampling.seed = first["seed"].as_u64().unwrap();
        let again = chat(server.address(), &ask.body(&json!({}))).json();
        assert_eq!(first["choices"], again["choices"]);
    }
    assert!(lengths.len() > 3, "responses of several lengths: {lengths:?}");
    wait_until("nothing is kept", || server.is_empty());
}

/// A text prompt is continued as it stands.
#[test]
fn completions_continue_a_text() {
    let (server, alone) = (TestServer::start(options()), Alone::new());
    let ask = Ask { n: 2, ..Ask::new("One and one is", 8) };
    let ids = alone.processor.encode_text(&ask.text).unwrap();
    let expected = alone.continued(ids, vec![], vec![], &ask);
    let mut body = json!({ "model": "alias", "prompt": ask.text, "n": 2, "seed": 8, "max_tokens": 40, "logprobs": 0 });
    let whole = post(server.address(), "/v1/completions", &body).json();
    assert_eq!((&whole["object"], &whole["model"]), (&"text_completion".into(), &"toy".into()));
    body["stream"] = true.into();
    let parts = joined(&post(server.address(), "/v1/completions", &body).events(), 2);
    for (i, response) in expected.iter().enumerate() {
        let choice = &whole["choices"][i];
        assert_eq!(
            (&choice["text"], &choice["finish_reason"]),
            (&alone.text(response).into(), &finish(response).into())
        );
        assert_eq!(choice["logprobs"]["token_logprobs"].as_array().unwrap().len(), response.ids.len());
        assert_eq!(parts[i].0, alone.text(response));
    }
}

/// Stop strings are taken from the middle of texts, across tokens and characters: the text ends before them, whole and
/// in parts.
#[test]
fn stop_strings_end_a_text_across_tokens() {
    let (server, alone) = (TestServer::start(options()), Alone::new());
    let ask = Ask { n: 2, max_tokens: 60, ..Ask::new("Say something.", 21) };
    let texts: Vec<String> = alone.responses(&ask).iter().map(|response| alone.text(response)).collect();
    let mut cut = 0;
    for start in (3..40).step_by(4) {
        // Four characters of the first text: mostly of several tokens, as tokens are bytes.
        let stop: String = texts[0].chars().skip(start).take(4).collect();
        let before =
            |text: &str| text.split_once(stop.as_str()).map_or(text.to_owned(), |(before, _)| before.to_owned());
        let whole = chat(server.address(), &ask.body(&json!({ "stop": stop }))).json();
        let events = chat(server.address(), &ask.body(&json!({ "stop": [stop, "<never>"], "stream": true }))).events();
        let parts = joined(&events, 2);
        for (i, text) in texts.iter().enumerate() {
            let choice = &whole["choices"][i];
            assert_eq!(choice["message"]["content"], before(text), "{stop:?} in {text:?}");
            assert_eq!(parts[i].0, before(text), "{stop:?} in {text:?}");
            if text.contains(&stop) {
                assert_eq!((&choice["finish_reason"], &parts[i].1), (&"stop".into(), &"stop".into()));
                cut += 1;
            }
        }
        // What was drawn before the stop string has its numbers, and no more is drawn.
        let numbers = chat(server.address(), &ask.body(&json!({ "stop": stop, "logprobs": true }))).json();
        assert_eq!(numbers["choices"][0]["message"], whole["choices"][0]["message"]);
        let tokens = |i: usize| numbers["choices"][i]["logprobs"]["content"].as_array().unwrap().len();
        assert_eq!(numbers["usage"]["completion_tokens"], tokens(0) + tokens(1));
        assert_eq!(numbers["usage"], whole["usage"]);
        assert!(tokens(0) < 60, "it ends with the stop string");
    }
    assert!(cut >= 10, "{cut}");
    wait_until("nothing is kept", || server.is_empty());
}

/// Conversations, system messages, pictures within them: the chat template has them all.
#[test]
fn a_conversation_is_told_in_order() {
    let server = TestServer::start(options());
    let picture = data_url(&fixture("images/wide.png"));
    let ask = |messages: Value| {
        let body = json!({ "model": "toy", "messages": messages, "seed": 1, "max_tokens": 8, "temperature": 0 });
        chat(server.address(), &body).json()
    };
    let image = json!({ "type": "image_url", "image_url": { "url": picture } });
    let user = |text: &str| json!({ "role": "user", "content": text });
    let short = ask(json!([user("a")]));
    let long = ask(json!([user("a"), { "role": "assistant", "content": "b" }, user("c")]));
    let system = ask(json!([{ "role": "system", "content": "Be brief." }, user("a")]));
    let developer =
        ask(json!([{ "role": "developer", "content": [{ "type": "text", "text": "Be brief." }] }, user("a")]));
    let pictured = ask(json!([
        { "role": "user", "content": [{ "type": "text", "text": "a" }, image] },
        { "role": "assistant", "content": "b" },
        { "role": "user", "content": [image, { "type": "text", "text": "c" }] },
    ]));
    let tokens = |reply: &Value| reply["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&long) > tokens(&short) && tokens(&pictured) > tokens(&long) + 8);
    assert_eq!((tokens(&system), &system["choices"]), (tokens(&developer), &developer["choices"]));
    // The server's own system message stands where a conversation has none.
    let other = TestServer::start(serve::ServerOptions { system: Some("Be brief.".into()), ..options() });
    let body = json!({ "model": "toy", "messages": [user("a")], "seed": 1, "max_tokens": 8, "temperature": 0 });
    assert_eq!(chat(other.address(), &body).json()["choices"], system["choices"]);
}

#[test]
fn the_model_and_the_state_are_told() {
    let server = TestServer::start(options());
    assert_eq!(get(server.address(), "/health").json(), json!({ "status": "ok" }));
    let models = get(server.address(), "/v1/models").json();
    assert_eq!((models["data"][0]["id"].as_str(), models["data"][1]["id"].as_str()), (Some("toy"), Some("alias")));
    assert_eq!(get(server.address(), "/v1/models/alias").json()["object"], "model");
    assert_eq!(get(server.address(), "/v1/models/other").error(404)["code"], "model_not_found");
    chat(server.address(), &Ask::new("a", 1).body(&json!({}))).json();
    assert!(server.metric("serve_response_tokens_total") > 0.0);
    assert_eq!(server.metric("serve_answers_total{path=\"/v1/chat/completions\",status=\"200\"}"), 1.0);
    assert_eq!(server.metric("serve_answered_seconds_count"), 1.0);
    assert_eq!(server.metric("serve_first_token_seconds_count"), 1.0);
}
