//! What is printed reads back, and the reference is what the program knows.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::config::field::Field;
use crate::config::section::Node;
use ::data::DataSpec;
use ::data::dataset::WeightedSpec;

use crate::config::{RlStage, SftStage, Stage, reference};

/// Reads a printed file without checking its values.
fn read(text: &str) -> Config {
    let mut config = Config::default();
    let table: toml::Table = toml::from_str(text).unwrap();
    config.apply("", &toml::Value::Table(table)).unwrap();
    config
}

#[test]
fn the_printed_file_reads_back() {
    let mut config = Config::default();
    assert_eq!(read(&config.to_toml()), config);
    config.data.train_files = vec![
        DataSpec::from("a \"quoted\" \\ path"),
        DataSpec::Weighted(WeightedSpec { path: "b".to_string(), weight: 0.5 }),
    ];
    config.data.system_prompt = "two\nlines\tand a bell \u{7}".to_string();
    config.actor.optim.lr = 1e-7;
    config.stages = vec![
        Stage::Sft(SftStage { steps: 3, until_accuracy: 0.25, ..SftStage::default() }),
        Stage::Rl(RlStage { train_files: vec![DataSpec::from("toy:sum")], ..RlStage::default() }),
    ];
    assert_eq!(read(&config.to_toml()), config);
    assert_eq!(read(&config.to_toml()).to_toml(), config.to_toml());
}

#[test]
fn every_key_is_printed_under_its_meaning() {
    let text = Config::default().to_toml();
    for section in Config::default().sections() {
        for key in &section.keys {
            assert!(!key.doc.is_empty(), "{} {} has no documentation", section.header, key.name);
            if section.header != "[[stages]]" {
                assert!(text.contains(&format!("\n{} = {}\n", key.name, key.default)), "{}", key.name);
            }
        }
    }
    assert!(text.contains("# Equation (5): strength of the compensation of late tokens.\nbeta = 0.3\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let expected = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/configuration.md does not match the keys; write it anew with UPDATE_DOCS=1 cargo test --workspace --lib -- config"
    );
}

proptest! {
    #[test]
    fn any_string_survives(text in any::<String>()) {
        let printed = text.to_text();
        let table: toml::Table = toml::from_str(&format!("v = {printed}")).unwrap();
        prop_assert_eq!(String::from_value(&table["v"]), Ok(text.clone()));
        let list = vec![text.clone(), text];
        let table: toml::Table = toml::from_str(&format!("v = {}", list.to_text())).unwrap();
        prop_assert_eq!(Vec::<String>::from_value(&table["v"]), Ok(list));
    }

    #[test]
    fn any_finite_number_survives(number in any::<f64>().prop_filter("finite", |n| n.is_finite())) {
        let table: toml::Table = toml::from_str(&format!("v = {}", number.to_text())).unwrap();
        prop_assert_eq!(f64::from_value(&table["v"]).map(f64::to_bits), Ok(number.to_bits()));
    }

    #[test]
    fn no_text_makes_it_panic(file in any::<String>(), text in "[a-z.]{0,12}=?.{0,12}") {
        let _ = resolve(&[Source::new("f", file)], &[text]);
    }
}
