//! Reward functions of Python's: every signature, and every way in which one goes wrong.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use answer::{JudgeConfig, Request, RewardConfig, RewardError, RewardRow, Score, Scorer};

/// A folder with a script, `mine.py`.
struct Script(tempfile::TempDir);

impl Script {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.py"), text).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    fn config(&self, function: &str) -> RewardConfig {
        RewardConfig {
            functions: vec![format!("{}{function}", self.path("mine.py"))],
            command_timeout_s: 20.0,
            command_batch_size: 4,
            ..RewardConfig::default()
        }
    }
}

fn row() -> RewardRow {
    RewardRow {
        prompt: "what is 1 + 2?".into(),
        columns: BTreeMap::from([
            ("level".to_string(), "2".to_string()),
            ("data_source".to_string(), "geo".to_string()),
            ("extra_info".to_string(), r#"{"split": "train"}"#.to_string()),
        ]),
        images: vec![PathBuf::from("/pictures/a.png")],
    }
}

/// Scores `count` responses: `response k` of 10 k tokens, with the truth `k`.
fn score(config: &RewardConfig, count: usize) -> Result<Vec<Score>, RewardError> {
    let mut scorer = Scorer::new(config)?;
    let texts: Vec<[String; 3]> =
        (0..count).map(|k| [format!("id{k}"), format!("response {k}"), k.to_string()]).collect();
    let row = row();
    let requests: Vec<Request> = texts
        .iter()
        .enumerate()
        .map(|(k, [id, response, truth])| Request {
            response,
            ground_truth: truth,
            response_length: 10 * k,
            id,
            row: Some(&row),
        })
        .collect();
    let scores = scorer.score(&requests)?;
    scorer.finish()?;
    Ok(scores)
}

#[track_caller]
fn rewards(text: &str, function: &str) -> Vec<f64> {
    let script = Script::new(text);
    let scores = score(&script.config(function), 6).unwrap_or_else(|error| panic!("{error}"));
    scores.into_iter().map(|score| score.overall).collect()
}

#[track_caller]
fn fails(text: &str, function: &str, parts: &[&str]) {
    let script = Script::new(text);
    let said = score(&script.config(function), 3).unwrap_err().to_string();
    for part in parts {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    assert!(!said.contains("shim.py"), "frames of ours are shown: {said}");
}

const ALL: [f64; 6] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];

#[test]
fn easyr1s_batch() {
    let text = r#"
REWARD_NAME = "mine"
REWARD_TYPE = "batch"

def compute_score(reward_inputs, scale=1.0):
    assert len(reward_inputs) <= 4
    out = []
    for one in reward_inputs:
        k = int(one["ground_truth"])
        assert one["response"] == f"response {k}" and one["response_length"] == 10 * k and one["id"] == f"id{k}"
        assert one["prompt"] == "what is 1 + 2?" and one["level"] == "2" and one["images"] == ["/pictures/a.png"]
        assert one["extra_info"] == {"split": "train"}
        out.append({"overall": scale * k, "accuracy": k % 2, "format": None, "note": "x", "half": k / 2})
    return out
"#;
    assert_eq!(rewards(text, ":compute_score"), ALL);
    let script = Script::new(text);
    let mut config = script.config(":compute_score");
    config.function_kwargs.insert("scale".into(), 2.5.into());
    let scores = score(&config, 6).unwrap();
    assert_eq!((scores[3].overall, scores[3].accuracy, scores[3].extra["half"]), (7.5, 1.0, 1.5));
    // EasyR1 calls a function that is not named `main`.
    assert_eq!(rewards("def main(xs):\n    return [float(x['ground_truth']) for x in xs]\n", ""), ALL);
}

#[test]
fn easyr1s_sequential() {
    let said = "REWARD_TYPE = 'sequential'\ndef f(x):\n    return {'overall': int(x['ground_truth'])}\n";
    assert_eq!(rewards(said, ":f"), ALL);
    let by_name =
        "def f(reward_input, weight=1):\n    return {'overall': weight * int(reward_input['ground_truth'])}\n";
    assert_eq!(rewards(by_name, ":f"), ALL);
}

#[test]
fn verls() {
    let text = r#"
def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    assert data_source == "geo" and extra_info == {"split": "train"} and solution_str == f"response {ground_truth}"
    return float(ground_truth) if int(ground_truth) % 2 else {"score": int(ground_truth), "acc": 1}
"#;
    assert_eq!(rewards(text, ":compute_score"), ALL);
}

#[test]
fn trls() {
    let text = r#"
def right(prompts, completions, ground_truth, level, **kwargs):
    assert set(prompts) == {"what is 1 + 2?"} and set(level) == {"2"} and len(kwargs["completion_lengths"]) == len(prompts)
    return [float(truth) for completion, truth in zip(completions, ground_truth)]

def plain(completions, level):
    return [float(text.split()[-1]) for text in completions]
"#;
    assert_eq!(rewards(text, ":right"), ALL);
    assert_eq!(rewards(text, ":plain"), ALL);
}

#[test]
fn prints_do_not_disturb() {
    let text = r#"
import os, sys
print("loading")
def f(reward_input):
    print("at", reward_input["id"])
    os.write(1, b"from below\n")
    sys.stdout.write('{"overall": 7}\n')
    return {"overall": int(reward_input["ground_truth"])}
"#;
    assert_eq!(rewards(text, ":f"), ALL);
}

#[test]
fn files_beside_it_can_be_imported() {
    let script = Script::new("from helper import value\ndef f(xs):\n    return [value(x) for x in xs]\n");
    std::fs::write(script.path("helper.py"), "def value(x):\n    return int(x['ground_truth'])\n").unwrap();
    assert_eq!(score(&script.config(":f"), 2).unwrap()[1].overall, 1.0);
}

#[test]
fn one_that_raises_is_shown_with_its_row() {
    fails(
        "def f(reward_input):\n    return {'overall': 1 / (int(reward_input['ground_truth']) - 1)}\n",
        ":f",
        &["mine.py:f`: on response 2 (row 'id1'): it raised", "line 2, in f", "ZeroDivisionError: division by zero"],
    );
    fails(
        "def f(xs):\n    return [x['grund_truth'] for x in xs]\n",
        ":f",
        &["it raised on a batch of 3 (rows ['id0', 'id1', 'id2']):", "KeyError: 'grund_truth'"],
    );
}

#[test]
fn what_is_no_score_is_said() {
    for (returned, part) in [
        ("[1.0]", "it returned 1 scores for 3 responses"),
        ("None", "it returned None, and a list of one score for each of 3 responses is needed"),
        ("'abc'", "it returned 'abc', and a list"),
        ("[1, 2, float('nan')]", "on response 3 (row 'id2'): the score is nan; a reward is a finite number"),
        ("[1, None, 2]", "on response 2 (row 'id1'): the score is None, not a number"),
        ("['1', 2, 3]", "on response 1 (row 'id0'): the score is '1', not a number"),
        ("[{'acc': 1}] * 3", "the score has neither `overall` nor `score`, but acc"),
        ("[{'overall': 1, 'accuracy': 'yes'}] * 3", "`accuracy` is 'yes', not a number"),
        ("[{'overall': float('inf')}] * 3", "`overall` is inf"),
        ("[10 ** 400] * 3", "on response 1 (row 'id0'): the score is 1000000000"),
        ("[10 ** 9999] * 3", "the score is a value of the type int, not a number"),
        ("[Odd()] * 3", "the score is a value of the type Odd, not a number"),
    ] {
        let odd = "class Odd:\n    def __float__(self):\n        1 / 0\n    __repr__ = __float__\n";
        fails(&format!("{odd}def f(xs):\n    return {returned}\n"), ":f", &[part]);
    }
}

/// They ended the process, which was started again and asked again, and frames of this program's were shown.
#[test]
fn what_is_raised_above_exceptions_is_said() {
    fails(
        "import sys\ndef f(xs):\n    sys.exit(3)\n",
        ":f",
        &["it raised on a batch of 3", "line 3, in f", "SystemExit: 3"],
    );
    fails(
        "def f(reward_input):\n    raise KeyboardInterrupt\n",
        ":f",
        &["on response 1 (row 'id0'): it raised", "KeyboardInterrupt"],
    );
}

/// Standard input is the protocol's: a function that reads it waited for ever for what the program waited to be asked.
#[test]
fn standard_input_is_empty_for_a_function() {
    let read = "import os, sys\ndef f(xs):\n    assert sys.stdin.read() == '' and os.read(0, 1) == b''\n    return [float(x['ground_truth']) for x in xs]\n";
    assert_eq!(rewards(read, ":f"), ALL);
}

#[test]
fn halves_of_a_pair_are_no_bad_reply() {
    let text = "def f(xs):\n    return [{'overall': int(x['ground_truth']), 'extracted': '\\ud800', '\\ud800': 1} for x in xs]\n";
    assert_eq!(rewards(text, ":f"), ALL);
}

#[test]
fn one_that_is_not_there_names_what_is() {
    let text = "def compute_score(xs):\n    return xs\ndef _hidden():\n    pass\n";
    fails(text, ":compute_scores", &["it has no function compute_scores; did you mean compute_score?"]);
    fails(text, ":reward", &["it has no function reward; there are compute_score"]);
    fails(
        "import no_such_module\n",
        ":f",
        &["the file cannot be loaded:", "No module named 'no_such_module'", "line 1"],
    );
    fails("def f(:\n", ":f", &["the file cannot be loaded:", "SyntaxError"]);
    let script = Script::new(text);
    let mut config = script.config(":compute_score");
    config.functions = vec![script.path("mini.py:compute_score")];
    let error = score(&config, 1).unwrap_err();
    assert!(matches!(error, RewardError::FunctionLoad { .. }), "{error}");
    assert!(error.to_string().contains("mini.py; its folder has mine.py"), "{error}");
    config.functions = vec!["mine.txt:f".into()];
    assert!(score(&config, 1).unwrap_err().to_string().contains("write FILE.py:FUNCTION"));
}

#[test]
fn a_python_that_is_missing_is_named() {
    let script = Script::new("def f(xs):\n    return xs\n");
    let config = RewardConfig { python: "no-such-python".into(), ..script.config(":f") };
    let said = score(&config, 1).unwrap_err().to_string();
    assert!(said.starts_with("reward.python: cannot start `no-such-python`"), "{said}");
}

#[test]
fn one_that_hangs_is_ended_where_it_is() {
    let text = "import time\ndef f(reward_input):\n    if reward_input['ground_truth'] == '1':\n        time.sleep(60)\n    return {'overall': 0}\n";
    let script = Script::new(text);
    let config = RewardConfig { command_timeout_s: 1.5, ..script.config(":f") };
    let clock = Instant::now();
    let said = score(&config, 3).unwrap_err().to_string();
    assert!(clock.elapsed() < Duration::from_secs(20));
    for part in ["mine.py:f` gave 1 of 3 replies within 1.5 s", "raise reward.command_timeout_s", "line 4 in f"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
}

/// It was said to have failed before a restart, which it had not been, and not where it stood.
#[test]
fn one_that_is_never_ready_is_told() {
    let script = Script::new("import time\ntime.sleep(60)\n");
    let config = RewardConfig { command_timeout_s: 2.0, ..script.config(":f") };
    let error = score(&config, 3).unwrap_err();
    assert!(matches!(error, RewardError::FunctionLoad { .. }), "{error}");
    let said = error.to_string();
    for part in ["mine.py:f`: it was not ready within 2 s; raise reward.command_timeout_s", "line 2 in <module>"] {
        assert!(said.contains(part), "no {part:?} in: {said}");
    }
    let config = RewardConfig { python: "false".into(), ..script.config(":f") };
    let said = score(&config, 3).unwrap_err().to_string();
    assert!(said.contains("Python exited with status 1 before the function was ready"), "{said}");
}

#[test]
fn times_that_are_none_are_refused() {
    let script = Script::new("def f(xs):\n    return xs\n");
    for command_timeout_s in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        let said = score(&RewardConfig { command_timeout_s, ..script.config(":f") }, 1).unwrap_err().to_string();
        assert!(said.starts_with("reward.command_timeout_s: "), "{said}");
    }
}

#[test]
fn one_that_ends_is_told() {
    fails("import os\ndef f(xs):\n    os._exit(3)\n", ":f", &["mine.py:f` exited with status 3 after 0 of 3 replies"]);
}

#[test]
fn several_processes_share_the_batches() {
    let text = "import os, time\ndef f(reward_input):\n    begun = time.monotonic()\n    time.sleep(0.2)\n    \
        return {'overall': int(reward_input['ground_truth']), 'pid': os.getpid(), 'begun': begun, 'ended': time.monotonic()}\n";
    let script = Script::new(text);
    let config = RewardConfig { num_processes: 3, ..script.config(":f") };
    let scores = score(&config, 12).unwrap();
    let overall: Vec<f64> = scores.iter().map(|score| score.overall).collect();
    assert_eq!(overall, (0..12).map(f64::from).collect::<Vec<_>>());
    // Two of them at a time at some moment (the clock is the machine's, the same for all processes).
    let extra = |score: &Score, name: &str| score.extra[name];
    let at_once = |a: &Score, b: &Score| {
        extra(a, "pid") != extra(b, "pid")
            && extra(a, "begun") < extra(b, "ended")
            && extra(b, "begun") < extra(a, "ended")
    };
    assert!(scores.iter().any(|a| scores.iter().any(|b| at_once(a, b))), "{scores:?}");
}

#[test]
fn rewards_are_added_up() {
    let script = Script::new(
        "def brief(xs):\n    return [{'overall': 1 - x['response_length'] / 100, 'accuracy': 0.5} for x in xs]\n\
         def twice(xs):\n    return [2 * int(x['ground_truth']) for x in xs]\n",
    );
    let mut config = script.config(":brief");
    config.functions = vec![script.path("mine.py:brief"), script.path("mine.py:twice"), "rule".into()];
    config.function_weights = vec![1.0, 0.5, 10.0];
    let scores = score(&config, 3).unwrap();
    assert_eq!(scores[2].overall, 0.8 + 0.5 * 4.0);
    // Accuracy is the first's; each reward is a metric.
    assert_eq!(scores[2].accuracy, 0.5);
    assert_eq!((scores[2].extra["brief"], scores[2].extra["twice"], scores[2].extra["rule"]), (0.8, 4.0, 0.0));
    config.function_weights = vec![1.0];
    assert!(score(&config, 1).unwrap_err().to_string().contains("there are 1 weights for 3 rewards"));
}

/// Answers chat completions: the `k`-th request with the `k`-th status and text, the last one for ever.
fn server(replies: &'static [(u16, &'static str)]) -> (String, &'static AtomicUsize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let count: &'static AtomicUsize = Box::leak(Box::default());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&head).to_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.trim().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            assert!(text.starts_with("post /v1/chat/completions "), "{text}");
            assert!(String::from_utf8_lossy(&body).contains("what is 1 + 2?"), "the prompt is filled in");
            let k = count.fetch_add(1, Ordering::Relaxed).min(replies.len() - 1);
            let (status, content) = replies[k];
            let body = format!("{{\"choices\": [{{\"message\": {{\"content\": {content:?}}}}}]}}");
            let reply =
                format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    (address, count)
}

fn judged(url: String, retries: usize) -> RewardConfig {
    let judge =
        JudgeConfig { url, model: "m".into(), retries, concurrency: 1, timeout_s: 5.0, ..JudgeConfig::default() };
    RewardConfig { functions: vec!["judge".into()], judge, ..RewardConfig::default() }
}

#[test]
fn a_judge_is_asked_again_where_it_is_busy() {
    let (url, count) = server(&[(503, ""), (200, "Well done: 7"), (200, "I cannot judge this."), (200, "99")]);
    let scores = score(&judged(url, 2), 3).unwrap();
    let overall: Vec<f64> = scores.iter().map(|score| score.overall).collect();
    assert_eq!(overall, [0.7, 0.0, 1.0]);
    assert_eq!((scores[0].extra["retries"], scores[1].extra["refused"], scores[2].extra["refused"]), (1.0, 1.0, 0.0));
    assert_eq!(count.load(Ordering::Relaxed), 4);
}

#[test]
fn a_judge_that_does_not_answer_is_an_error() {
    let (url, count) = server(&[(401, "no key")]);
    let said = score(&judged(url, 2), 1).unwrap_err().to_string();
    assert!(said.contains("gave no answer in 1 try: status 401"), "{said}");
    assert_eq!(count.load(Ordering::Relaxed), 1, "a wrong key is not tried again");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = score(&judged(format!("http://{closed}/v1"), 0), 1).unwrap_err().to_string();
    assert!(said.contains("gave no answer in 1 try") && said.contains("refused"), "{said}");
    let mut config = judged("http://localhost/v1".into(), 0);
    config.judge.api_key_env = "NO_SUCH_KEY_OF_MINE".into();
    let said = Scorer::new(&config).unwrap_err().to_string();
    assert!(said.contains("NO_SUCH_KEY_OF_MINE (reward.judge.api_key_env) is not set"), "{said}");
    config.judge.url = "localhost".into();
    assert!(Scorer::new(&config).unwrap_err().to_string().contains("reward.judge.url: is no address"));
}

/// Python's own way is to ask the other address without the question, and to take the key along.
#[test]
fn a_judge_that_sends_on_is_not_followed() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, there) = (format!("http://{}/v1", listener.local_addr().unwrap()), other.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let reply = format!(
                "HTTP/1.1 302 x\r\nlocation: http://{there}/v1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let said = score(&judged(url, 2), 1).unwrap_err().to_string();
    assert!(
        said.contains(&format!("in 1 try: status 302: it sends on to http://{there}/v1, which is not followed")),
        "{said}"
    );
    assert!(!said.contains("Traceback"), "{said}");
    assert!(other.accept().is_err(), "the other address was asked");
}

/// A byte now and then kept the limit of the socket from ever being reached.
#[test]
fn a_judge_that_answers_in_drops_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let mut sent = stream.write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n");
            while sent.is_ok() {
                std::thread::sleep(Duration::from_millis(100));
                sent = stream.write_all(b" ");
            }
        }
    });
    let mut config = judged(url, 0);
    config.judge.timeout_s = 1.0;
    let clock = Instant::now();
    let said = score(&config, 1).unwrap_err().to_string();
    assert!(said.contains("gave no answer in 1 try: TimeoutError: the answer was not complete within 1 s"), "{said}");
    assert!(clock.elapsed() < Duration::from_secs(20));
}

#[test]
fn grade_takes_a_function() {
    let script =
        Script::new("def f(xs):\n    return [len(x['response']) + int(x['level']) + len(x['prompt']) for x in xs]\n");
    let rows = script.path("rows.jsonl");
    std::fs::write(&rows, "{\"response\": \"abc\", \"ground_truth\": \"1\", \"level\": 5, \"problem\": \"??\"}\n")
        .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_grade"))
        .args([rows.as_str(), "--function", &script.path("mine.py:f")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\"overall\": 10.0"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(Path::new(&rows).exists());
}
