//! A study whose runs several ranks deal out among them, with models that learn nothing: what is trained, by whom, and
//! from which weights.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use analysis::study::{Ended, GateEnd, RowsFile, RunToTrain, Study, gate, runner};
use comm::{Ranks, threads};
use rl::config::Source;

/// The committed study, with three seeds and two rows, one of which has two of the seeds.
fn study() -> Study {
    let base = Source::new("base", include_str!("../../../configs/study.toml"));
    let mut rows = RowsFile::parse("rows", include_str!("../../../configs/study_rows.toml")).unwrap();
    rows.keep(&["dapo".into(), "vgpo".into()]).unwrap();
    rows.seeds = 3;
    rows.rows.iter_mut().for_each(|row| row.seeds = (row.name == "vgpo").then_some(2));
    Study::new(vec![base], rows, &[], false, None).unwrap()
}

/// What a run leaves: a log, weights, and outcomes that pass the gate.
fn leave(job: &RunToTrain) {
    let folder = job.config_file.parent().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("metrics.jsonl", "{\"step\": 1, \"reward\": 0.5}\n");
    write("checkpoints/global_step_1/trainer.json", "{}");
    write("checkpoints/global_step_1/hf/config.json", "{}");
    let none = r#"{"parts": 0, "wrong": 0}"#;
    let tenths = [none; 10].join(", ");
    let found = format!(
        r#"{{"items": 4, "right": "8", "tokens": 9.0, "answered": null, "forgetting": {{"rows": 1, "fresh": [{tenths}],
        "copied": [{tenths}], "early": {{"parts": 100, "wrong": 5}}, "late": {{"parts": 100, "wrong": 20}},
        "attention": {{"early": 0.5, "late": 0.25}}, "late_early_cosine": null, "exchanged_fresh": null,
        "exchanged_copied": null}}}}"#
    );
    write("outcomes.json", &found);
}

/// Where a run's model comes from.
fn begins_with(job: &RunToTrain) -> String {
    let config = std::fs::read_to_string(&job.config_file).unwrap();
    let config: toml::Value = toml::from_str(&config).unwrap();
    config["model"]["path"].as_str().unwrap().to_owned()
}

/// Gate and rows on all ranks: what was trained, as `folder: rank, weights it began with`, in order of folders.
fn whole(out: &Path, ranks: usize) -> Vec<String> {
    let (study, stop, trained) = (study(), AtomicBool::new(false), Mutex::new(vec![]));
    threads::run(ranks, |ranks: Ranks| {
        let train = |job: &RunToTrain| {
            let folder = job.config_file.parent().unwrap().strip_prefix(out).unwrap().display().to_string();
            let from = begins_with(job).replace(&out.display().to_string(), "OUT");
            assert_eq!(job.alone, folder.contains("/shared/"), "{folder}");
            trained.lock().unwrap().push(format!("{folder}: {from}"));
            leave(job);
            Ended::Done
        };
        let spec = study.rows.gate.as_ref().unwrap();
        let end = gate::measure(&ranks, (&study, spec), out, 1, &stop, train, |_| ()).unwrap();
        let GateEnd::Measured(verdict) = end else { panic!("{end:?}") };
        let setting = spec.settings.iter().find(|s| verdict.chosen.as_ref() == Some(&s.name)).unwrap();
        let study = gate::on(&ranks, &study, setting, out).unwrap();
        let outcome = runner::run(&ranks, &study, out, 1, &stop, train, |_| ()).unwrap();
        assert!(outcome.failed.is_empty() && !outcome.interrupted, "{outcome:?}");
        ranks.barrier("end").unwrap();
    });
    let mut trained = trained.into_inner().unwrap();
    trained.sort();
    trained
}

#[test]
fn shared_stages_are_trained_once_for_all_ranks() {
    for ranks in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        let (gate, weights) = ("gate/late_told", "checkpoints/global_step_1/hf");
        let shared = format!("OUT/{gate}/shared/runs/warm/seed_1001/{weights}");
        let warm = |folder: &str| format!("OUT/{folder}/{weights}");
        let expected = [
            format!("{gate}/runs/warm/seed_1001: {shared}"),
            format!("{gate}/runs/warm/seed_1002: {shared}"),
            format!("{gate}/shared/runs/warm/seed_1001: toy"),
            format!("runs/dapo/seed_1001: {}", warm(&format!("{gate}/runs/warm/seed_1001"))),
            format!("runs/dapo/seed_1002: {}", warm(&format!("{gate}/runs/warm/seed_1002"))),
            format!("runs/dapo/seed_1003: {}", warm("runs/warm/seed_1003")),
            format!("runs/vgpo/seed_1001: {}", warm(&format!("{gate}/runs/warm/seed_1001"))),
            format!("runs/vgpo/seed_1002: {}", warm(&format!("{gate}/runs/warm/seed_1002"))),
            format!("runs/warm/seed_1003: {shared}"),
        ];
        assert_eq!(whole(out, ranks), expected, "{ranks} ranks");
        assert_eq!(whole(out, ranks), [""; 0], "all of it was there");
        // Weights that no missing run needs are not made again; those that one needs are, from the shared stages on.
        std::fs::remove_dir_all(out.join("gate/late_told/shared/runs")).unwrap();
        std::fs::remove_dir_all(out.join("runs/warm")).unwrap();
        assert_eq!(whole(out, ranks), [""; 0], "{ranks} ranks");
        std::fs::remove_file(out.join("results/dapo/seed_1003.json")).unwrap();
        assert_eq!(whole(out, ranks), [2, 5, 8].map(|k| expected[k].clone()), "{ranks} ranks");
    }
}
