//! Reward commands: small scripts that behave, and scripts that do not.
#![cfg(unix)]

use std::path::Path;
use std::time::{Duration, Instant};

use answer::{Request, RewardConfig, RewardError, Score, Scorer};

/// A reward whose command is `interpreter` with this script.
fn reward_of(interpreter: &str, script: &str, timeout_s: f64, batch: usize) -> Scorer {
    Scorer::new(&RewardConfig {
        command: vec![interpreter.into(), "-c".into(), script.into()],
        command_timeout_s: timeout_s,
        command_batch_size: batch,
        ..RewardConfig::default()
    })
    .unwrap()
}

fn python(script: &str) -> Scorer {
    reward_of("python3", script, 20.0, 4)
}

fn shell(script: &str) -> Scorer {
    reward_of("sh", script, 20.0, 4)
}

/// Scores so many responses: `response k` with the truth `k`, of 10 k tokens.
fn score(reward: &mut Scorer, count: usize) -> Result<Vec<Score>, RewardError> {
    let texts: Vec<[String; 3]> =
        (0..count).map(|k| [format!("id{k}"), format!("response {k}"), k.to_string()]).collect();
    let requests: Vec<Request> = texts
        .iter()
        .enumerate()
        .map(|(k, [id, response, truth])| Request {
            response,
            ground_truth: truth,
            response_length: 10 * k,
            id,
            row: None,
        })
        .collect();
    reward.score(&requests)
}

fn failure(reward: &mut Scorer, count: usize) -> String {
    score(reward, count).unwrap_err().to_string()
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// Lines of a file that a script writes to.
fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

const ECHO: &str = r#"
import json, os, sys
for line in sys.stdin:
    row = json.loads(line)
    assert sorted(row) == ["ground_truth", "id", "response", "response_length"], row
    k = int(row["ground_truth"])
    assert row["response"] == f"response {k}" and row["response_length"] == 10 * k
    print(json.dumps({"id": row["id"], "overall": k / 2, "accuracy": k % 2, "format": True, "extracted": row["response"],
                      "pid": os.getpid(), "note": "text is ignored"}), flush=True)
"#;

#[test]
fn batches_are_scored_in_order_by_one_process() {
    let mut reward = python(ECHO);
    let first = score(&mut reward, 11).unwrap();
    let second = score(&mut reward, 3).unwrap();
    assert_eq!((first.len(), second.len()), (11, 3));
    for (k, score) in first.iter().enumerate() {
        assert_eq!((score.overall, score.accuracy, score.format), (k as f64 / 2.0, (k % 2) as f64, 1.0));
        assert_eq!(score.extracted.as_deref(), Some(&*format!("response {k}")));
        assert_eq!(score.extra.keys().collect::<Vec<_>>(), ["pid"]);
        assert_eq!(score.extra["pid"], second[0].extra["pid"], "it was started again");
    }
    assert_eq!(score(&mut reward, 0).unwrap(), []);
}

#[test]
fn a_batch_is_at_most_what_was_configured() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // Reads what is there, waits a little for more, and says how many lines came before it answered.
    let script = format!(
        r#"
import json, os, select, sys
pending = b""
while True:
    data = os.read(0, 1 << 20)
    if not data: break
    pending += data
    while select.select([0], [], [], 0.2)[0]:
        data = os.read(0, 1 << 20)
        if not data: break
        pending += data
    count = pending.count(b"\n")
    pending = b""
    open({log:?}, "a").write(f"{{count}}\n")
    sys.stdout.write('{{"overall": 1}}\n' * count)
    sys.stdout.flush()
"#
    );
    let scores = score(&mut python(&script), 10).unwrap();
    assert_eq!(scores.len(), 10);
    // What is not said: accuracy is the reward, format is 0.
    assert!(scores.iter().all(|s| (s.overall, s.accuracy, s.format) == (1.0, 1.0, 0.0) && s.extra.is_empty()));
    assert_eq!(lines(&log), ["4", "4", "2"]);
}

/// Megabytes in both directions, written before the other side reads: a program without threads on both pipes would
/// stop.
#[test]
fn long_lines_in_both_directions_do_not_block() {
    let script = r#"
import json, sys
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"overall": len(row["response"]), "extracted": row["response"]}), flush=True)
"#;
    let response = "é\"\\\n".repeat(100_000);
    let requests = vec![Request { response: &response, ground_truth: "1", response_length: 1, id: "x", row: None }; 12];
    let scores = reward_of("python3", script, 60.0, 12).score(&requests).unwrap();
    assert_eq!(scores.len(), 12);
    assert!(scores.iter().all(|s| s.overall == 400_000.0 && s.extracted.as_deref() == Some(&*response)));
    // And one that answers before it reads anything at all.
    let eager = "i=0; while [ $i -lt 12 ]; do echo '{\"overall\": 3}'; i=$((i+1)); done; cat > /dev/null";
    let scores = reward_of("sh", eager, 60.0, 12).score(&requests);
    // Those lines may come before the batch is sent, which is refused, or after it.
    assert!(
        matches!(&scores, Ok(scores) if scores.len() == 12)
            || matches!(&scores, Err(RewardError::CommandSurplus { .. }))
    );
}

#[test]
fn a_process_that_died_is_started_again_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // Dies within the first batch of its first life.
    let script = format!(
        r#"
import json, os, sys
lives = open({log:?}, "a+"); lives.write("life\n"); lives.flush(); lives.seek(0)
life = len(lives.readlines())
for n, line in enumerate(sys.stdin):
    if life == 1 and n == 2:
        sys.exit(3)
    print(json.dumps({{"overall": float(json.loads(line)["ground_truth"]), "life": life}}), flush=True)
"#
    );
    let mut reward = python(&script);
    let scores = score(&mut reward, 6).unwrap();
    assert_eq!(scores.iter().map(|s| s.overall).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(scores.iter().all(|s| s.extra["life"] == 2.0), "the whole batch comes from one process");
    assert_eq!(lines(&log).len(), 2);
}

#[test]
fn one_that_ends_after_each_batch_is_started_for_the_next() {
    let script = "for i in 1 2 3 4; do read line; echo '{\"overall\": 1}'; done";
    let mut reward = shell(script);
    assert_eq!(score(&mut reward, 8).unwrap().len(), 8);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(score(&mut reward, 4).unwrap().len(), 4);
}

#[test]
fn a_process_that_keeps_dying_is_an_error_with_its_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "echo started >> {}; echo warming up >&2; read line; echo '{{\"overall\": 1}}'; echo 'no such file: weights' >&2; exit 7",
        log.display()
    );
    let mut reward = shell(&script);
    let error = failure(&mut reward, 3);
    contains(
        &error,
        &[
            "reward.command: `sh -c ",
            "exited with status 7 after 1 of 3 replies",
            "restart",
            "its stderr ends:",
            "\n  | warming up\n  | no such file: weights",
        ],
    );
    assert_eq!(lines(&log).len(), 2, "started twice, no more");
    contains(
        &failure(&mut shell("kill -9 $$"), 1),
        &["was ended by signal 9 after 0 of 1", "it wrote nothing to stderr"],
    );
    contains(&failure(&mut shell("exec >&-; sleep 20"), 1), &["closed its output without ending"]);
    contains(
        &failure(&mut python("import sys\nsys.stdout.write('{\"overall\": 1}')"), 1),
        &["exited with status 0 after 0 of 1"],
    );
    contains(&failure(&mut python("import missing_module_of_mine"), 1), &["No module named 'missing_module_of_mine'"]);
}

/// Only the end of a long stderr is shown, and what is not UTF-8 does not hide the rest.
#[test]
fn stderr_is_cut_to_its_end() {
    let script = r#"
import sys
for n in range(100000): print("line", n, file=sys.stderr)
sys.stderr.flush()
sys.stderr.buffer.write(b"bad \xff byte\n" + b"x" * 5000 + b"\nlast\n")
"#;
    let error = failure(&mut python(script), 1);
    contains(&error, &["| bad \u{fffd} byte", "\n  | last"]);
    assert!(!error.contains("line 99000") && error.len() < 12_000, "{} bytes", error.len());
}

#[test]
fn a_hang_is_killed_and_named_with_its_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    // The sleep is a process of its own, which has to go too.
    let script =
        format!("echo $$ >> {}; echo thinking >&2; read line; echo '{{\"overall\": 1}}'; sleep 1000; :", log.display());
    let start = Instant::now();
    let error = failure(&mut reward_of("sh", &script, 0.5, 4), 2);
    contains(&error, &["gave 1 of 2 replies within 0.5 s and was killed", "reward.command_timeout_s", "| thinking"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let pids = lines(&log);
    assert_eq!(pids.len(), 2, "started twice, no more");
    for pid in pids {
        assert_group_is_gone(&pid);
    }
}

/// No live process is left in the group of `pid`.
fn assert_group_is_gone(pid: &str) {
    let alive = || {
        std::fs::read_dir("/proc").is_ok_and(|processes| {
            processes.flatten().any(|entry| {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                // After the name in brackets: state, parent, group. A zombie waits only for its parent to notice.
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
                fields.get(2) == Some(&pid) && fields[0] != "Z"
            })
        })
    };
    let until = Instant::now() + Duration::from_secs(5);
    while alive() {
        assert!(Instant::now() < until, "process group {pid} is still alive");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_hang_that_a_restart_cures_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script = format!(
        "if [ ! -e {0} ]; then touch {0}; sleep 1000; fi; while read line; do echo '{{\"overall\": 2}}'; done",
        mark.display()
    );
    let scores = score(&mut reward_of("sh", &script, 1.0, 4), 5).unwrap();
    assert!(scores.len() == 5 && scores.iter().all(|s| s.overall == 2.0));
}

#[test]
fn it_ends_with_the_reward() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "echo $$ >> {}; sleep 1000 & while read line; do echo '{{\"overall\": 2}}'; done; sleep 1000",
        log.display()
    );
    let mut reward = shell(&script);
    score(&mut reward, 2).unwrap();
    drop(reward);
    assert_group_is_gone(&lines(&log)[0]);
}

#[test]
fn garbage_is_quoted_and_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!(
        "echo started >> {}; echo '{{\"overall\": 1}}'; echo 'Loading model...'; cat > /dev/null",
        log.display()
    );
    let mut reward = shell(&format!("read a; {script}"));
    let error = failure(&mut reward, 2);
    contains(
        &error,
        &["bad reply for response 1", "it is not JSON", "notes to stderr", "the line was: Loading model..."],
    );
    assert_eq!(lines(&log).len(), 1, "started once");

    let reply = |line: &str| failure(&mut shell(&format!("read a; printf '{line}\\n'; cat > /dev/null")), 1);
    contains(&reply(r#"{"accuracy": 1}"#), &["response 0", "it has no `overall`", r#"the line was: {"accuracy": 1}"#]);
    contains(&reply(r#"{"overall": NaN}"#), &["NaN and Infinity are no JSON numbers"]);
    contains(&reply(r#"{"overall": null}"#), &["`overall` is null, not a number"]);
    contains(&reply(r#"[1]"#), &["it is a list, not a JSON object"]);
    contains(&reply(""), &["it is empty"]);
    contains(&reply(r#"{"overall": 1, "id": "other"}"#), &["its `id` is \"other\", the request's is \"id0\""]);
    contains(&reply(r#"{"overall": 1, "note": "\377"}"#), &["it is not UTF-8 (byte 25)", "\u{fffd}"]);
    let long = failure(&mut python("input()\nprint('x' * 100000, flush=True)\ninput()"), 1);
    contains(&long, &["xxx... (100000 bytes)"]);
    assert!(long.len() < 1500);
    let endless = failure(&mut python("input()\nprint('x' * (20 << 20), flush=True)\ninput()"), 1);
    contains(&endless, &["it is longer than 16 MiB"]);
}

#[test]
fn a_wrong_number_of_lines_is_an_error() {
    let two = "while read line; do printf '{\"overall\": 1}\\n{\"overall\": 2}\\n'; done";
    // Two lines per response: what is left over is found at the end of the batch or, when it comes late, before the
    // next.
    let mut reward = shell(two);
    let error = match score(&mut reward, 4) {
        Err(error) => error.to_string(),
        Ok(_) => {
            std::thread::sleep(Duration::from_millis(300));
            failure(&mut reward, 4)
        }
    };
    contains(&error, &["a line too many", "the line was: {\"overall\": 1}"]);
    // A script that repeats the ids is found out at once.
    let two =
        "while read line; do printf '{\"overall\": 1, \"id\": \"id0\"}\\n{\"overall\": 2, \"id\": \"id0\"}\\n'; done";
    contains(
        &failure(&mut shell(two), 4),
        &["bad reply for response 1: its `id` is \"id0\", the request's is \"id1\""],
    );
    let none = "while read line; do :; done";
    contains(&failure(&mut reward_of("sh", none, 0.3, 4), 3), &["gave 0 of 3 replies within 0.3 s"]);
    // A line that comes late is found when the next batch begins.
    let late = "read a; echo '{\"overall\": 1}'; sleep 0.2; echo late; cat > /dev/null";
    let mut reward = reward_of("sh", late, 5.0, 1);
    score(&mut reward, 1).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    contains(&failure(&mut reward, 1), &["a line too many before", "the line was: late"]);
}

/// One reply too many after the last batch: nothing tells which of them was meant.
#[test]
fn a_second_reply_to_the_last_line_is_found_at_the_end() {
    let late = r#"
import json, sys, time
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"overall": 1}), flush=True)
    time.sleep(0.3)
    print(json.dumps({"overall": 0}), flush=True)
"#;
    let mut reward = python(late);
    assert_eq!(score(&mut reward, 1).unwrap().len(), 1);
    let error = reward.finish().unwrap_err();
    assert!(matches!(error, RewardError::CommandSurplus { .. }), "{error}");
    contains(&error.to_string(), &["too many", "last reply", r#"{"overall": 0}"#]);
    let mut behaved = python(ECHO);
    score(&mut behaved, 5).unwrap();
    behaved.finish().unwrap();
    behaved.finish().unwrap();
}

#[test]
fn after_an_error_the_next_call_starts_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let script = format!(
        "if [ ! -e {0} ]; then touch {0}; echo garbage; fi; while read line; do echo '{{\"overall\": 2}}'; done",
        mark.display()
    );
    let mut reward = shell(&script);
    score(&mut reward, 2).unwrap_err();
    assert_eq!(score(&mut reward, 2).unwrap().len(), 2);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let missing = RewardConfig { command: vec!["./no/such program".into(), "x".into()], ..RewardConfig::default() };
    let mut reward = Scorer::new(&missing).unwrap();
    contains(&failure(&mut reward, 1), &["cannot start `\"./no/such program\" x`", "check that the program exists"]);
}
