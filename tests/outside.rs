//! A model and data from elsewhere: `configs/qwen2_5_vl_3b.toml` and VGPO with a data file of ViRL39K's shape.
//!
//! With OUTSIDE_DIR set to a folder that `tools/make_outside_fixture.py` made, its model (the real vocabulary) and data
//! are taken instead of the small ones.

mod support;

use std::path::{Path, PathBuf};

use data::write::{JsonImages, SampleWriter};
use data::{ImageSource, Keys, Sample};
use support::{Bench, checkpoints, metrics, stderr, succeeded, toy_rows};

/// Rows as ViRL39K has them: Hugging Face image structs without paths, problems with one picture, with two, without
/// any, and a row whose picture is cut off.
fn write_data(path: &Path) {
    let picture = |i: usize| toy_rows("toy:chart?size=4")[i % 4].images[0].load().unwrap().into_owned();
    let cut = {
        let whole = picture(0);
        whole[..whole.len() / 2].to_vec()
    };
    let rows: [(&str, &str, Vec<Vec<u8>>); 6] = [
        ("<image>How tall is the highest bar?", "7", vec![picture(0)]),
        ("<image>Which choice is right?\nA. 3\nB. 5", "B", vec![picture(1)]),
        ("<image> and <image>: what is the sum of both highest bars?", "$\\frac{1}{2}$", vec![picture(2), picture(3)]),
        ("What is 12 + 30?", "42", vec![]),
        ("<image>What is shown?", "5", vec![cut]),
        ("<image>How many bars are there?", "$4$", vec![picture(1)]),
    ];
    let mut writer = SampleWriter::create(path, &Keys::default(), JsonImages::Base64).unwrap();
    for (index, (problem, answer, images)) in rows.into_iter().enumerate() {
        let images = images.into_iter().map(ImageSource::from).collect();
        writer
            .write(&Sample {
                id: format!("virl-{index}"),
                index,
                problem: problem.into(),
                answer: answer.into(),
                images,
                task: None,
                solution: None,
                extra: Default::default(),
            })
            .unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_vgpo_preset_runs_on_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bench = Bench::new(&std::fs::read_to_string(root.join("configs/qwen2_5_vl_3b.toml")).unwrap());
    let outside = std::env::var_os("OUTSIDE_DIR").map(PathBuf::from);
    let (model, data) = match &outside {
        Some(dir) => (dir.join("model"), dir.join("virl39k_shaped.parquet")),
        None => {
            write_data(&bench.path("virl39k_shaped.parquet"));
            (root.join("tests/fixtures/models/tied_gqa"), bench.path("virl39k_shaped.parquet"))
        }
    };
    let mut overrides = vec![
        "algorithm.name=vgpo".into(),
        format!("model.path={}", model.display()),
        format!("data.train_files={}", data.display()),
        format!("data.val_files={}", data.display()),
        "trainer.output_dir=run".into(),
        "trainer.max_steps=2".into(),
        "data.rollout_batch_size=3".into(),
        "rollout.n=2".into(),
        "data.max_response_length=12".into(),
        // A model of random weights solves nothing, and the preset would sample for as long as it takes.
        "algorithm.online_filtering=false".into(),
    ];
    if outside.is_none() {
        overrides.push("data.min_pixels=50176".into()); // 256 image tokens are slow on two cores
    }
    let output = bench.train(&overrides);
    succeeded(&output);
    let (said, printed) = (stderr(&output), String::from_utf8(output.stdout).unwrap());
    println!("{said}{printed}");
    assert!(said.contains("set aside: ") && said.contains("cannot decode the image"), "{said}");
    assert!(
        printed.contains("2 steps in")
            && printed.contains("rows set aside")
            && printed.contains("run/checkpoints/global_step_2/hf"),
        "{printed}"
    );

    let run = bench.path("run");
    let lines = metrics(&run);
    assert_eq!(lines.iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for line in &lines {
        for key in ["reward", "accuracy", "actor/loss", "actor/grad_norm", "actor/lr", "response_length/mean"] {
            assert!(line[key].as_f64().is_some_and(f64::is_finite), "{key} of {line:?}");
        }
        assert!(
            line.keys().any(|k| k.starts_with("vgpo/") || k.contains("focus")),
            "VGPO's metrics: {:?}",
            line.keys()
        );
    }
    assert!(lines[0].contains_key("val_before/accuracy") && lines[1].contains_key("val/accuracy"));
    assert_eq!(checkpoints(&run), [2]);
    let hf = run.join("checkpoints/global_step_2/hf");
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "preprocessor_config.json",
        "generation_config.json",
    ] {
        assert!(hf.join(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::read_to_string(run.join("rollouts/step_2.jsonl")).unwrap().lines().count(), 6);
    assert!(run.join("rollouts/validation_step_2.jsonl").is_file());

    // The kept configuration is complete: the preset's values and the overrides.
    let kept: toml::Table = std::fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(kept["algorithm"]["shaping"].as_str(), Some("vgpo"));
    assert_eq!(kept["algorithm"]["vgpo"]["beta"].as_float(), Some(0.3));
    assert_eq!(kept["rollout"]["n"].as_integer(), Some(2));
    assert_eq!(kept["actor"]["clip_ratio_high"].as_float(), Some(0.28));

    // The saved model is a model to start from.
    let again = bench.train(
        &[
            &overrides[1..],
            &[format!("model.path={}", hf.display()), "trainer.output_dir=again".into(), "trainer.max_steps=1".into()],
        ]
        .concat(),
    );
    succeeded(&again);
}
