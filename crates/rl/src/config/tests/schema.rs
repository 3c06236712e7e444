//! The schema that editors read, asked by a validator: it takes what the program takes, and refuses what it refuses.

use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};

use super::*;
use crate::config::moved::MOVED;
use crate::config::schema;

struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("file:///config.schema.json", serde_json::from_str(&schema()).unwrap()).unwrap();
        let index = compiler.compile("file:///config.schema.json", &mut schemas).unwrap();
        Self { schemas, index }
    }

    /// Why a file is refused; none where it is not.
    fn problem(&self, text: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(text).unwrap();
        let value = serde_json::to_value(table).unwrap();
        self.schemas.validate(&value, self.index).err().map(|error| error.to_string())
    }
}

#[test]
fn files_of_configs_and_what_is_printed_are_right() {
    let validator = Validator::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // It has rows and tables of a study, and is no configuration.
        let is_configuration = !path.ends_with("study_rows.toml");
        assert_eq!(validator.problem(&text).is_none(), is_configuration, "{}", path.display());
        // An editor finds the schema beside the file, without a network.
        assert_eq!(text.contains("\n#:schema ../docs/config.schema.json\n"), is_configuration, "{}", path.display());
        files += usize::from(is_configuration);
    }
    assert!(files >= 9, "{files}");
    assert_eq!(validator.problem(&Config::default().to_toml()), None);
    for bundle in crate::config::bundles::BUNDLES {
        assert_eq!(validator.problem(bundle.text), None, "{}", bundle.name);
        let printed = resolve(&[Source::new("small.toml", SMALL)], &[format!("algorithm.name={}", bundle.name)]);
        assert_eq!(validator.problem(&printed.unwrap().to_toml()), None, "{}", bundle.name);
    }
}

#[test]
fn what_the_program_refuses_in_one_key_is_refused() {
    let validator = Validator::new();
    for text in [
        "[rolout]\nn = 8",
        "[rollout]\nm = 8",
        "[rollout]\nn = \"8\"",
        "[rollout]\nn = 0",
        "[rollout]\nn = -1",
        "[rollout]\nn = 1000000000000",
        "[rollout]\nn = 2.5",
        "rollout = 3",
        "[actor]\nclip_ratio_low = 2.0",
        "[actor]\nrecompute = \"sometimes\"",
        "[actor]\nloss_type = \"pppo\"",
        "[actor.optim]\nbetas = [0.9]",
        "[actor.optim]\nmaster_weights = \"yes\"",
        "[algorithm]\nname = \"vgppo\"",
        "[algorithm]\nadv_estimator = \"gae\"",
        "[algorithm.vgpo]\nbetta = 0.3",
        "[algorithm.vgpo]\nbeta = \"high\"",
        "[data]\ntrain_files = [{ weight = 2.0 }]",
        "[data]\ntrain_files = [{ path = \"a\", wait = 2.0 }]",
        "[data]\ntrain_files = 3",
        "[trainer]\nbackend = \"tpu\"",
        "[[stages]]\nstage = \"sft\"",
        "[[stages]]\nstage = \"sft\"\nsteps = 0",
        "[[stages]]\nsteps = 3",
        "[[stages]]\nstage = \"rl\"\nbatch_size = 3",
        "[[stages]]\nstage = \"rf\"",
    ] {
        assert!(validator.problem(text).is_some(), "the schema takes {text:?}");
        assert!(with(text).is_err(), "the program takes {text:?}");
    }
}

#[test]
fn every_way_to_write_a_value_is_right() {
    let validator = Validator::new();
    for text in [
        "[data]\ntrain_files = \"toy:sum\"",
        "[data]\ntrain_files = [\"toy:sum\", { path = \"toy:read\", weight = 2 }]",
        "[actor.optim]\nlr = 1",
        "[model]\npath = \"m\"\n[model.lora]\nenable = true\nexclude_modules = [\"q_proj\"]",
        "[reward]\nfunction = \"judge\"\nfunction_kwargs = { a = 1 }\n[reward.judge]\nurl = \"http://a/v1\"\nmodel = \"m\"",
        "[[stages]]\nstage = \"sft\"\nsteps = 3\n[[stages]]\nstage = \"rl\"",
    ] {
        assert_eq!(validator.problem(text), None, "{text:?}");
        with(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    }
    for (before, _) in MOVED {
        let (section, key) = before.split_once('.').unwrap();
        let wrong = format!("[{section}]\n{key} = [[[]]]");
        let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
        let found = &schema["properties"][section]["properties"][key];
        assert_eq!(found["deprecated"], true, "{before}: {found}");
        assert!(validator.problem(&wrong).is_some(), "{before}");
    }
}

#[test]
fn each_key_says_what_it_means() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let mut keys = 0;
    for section in Config::default().sections().iter().filter(|section| !section.header.starts_with("[[")) {
        let path = section.header.trim_matches(['[', ']']).replace('.', "/properties/");
        for key in &section.keys {
            let found = schema.pointer(&format!("/properties/{path}/properties/{}", key.name)).unwrap();
            assert_eq!(found["description"], key.doc.as_str());
            assert!(found.get("default").is_some(), "{} {}", section.header, key.name);
            assert!(found.get("type").or(found.get("anyOf")).is_some(), "{} {}: {found}", section.header, key.name);
            keys += 1;
        }
    }
    assert!(keys > 150, "{keys}");
}

#[test]
fn the_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/config.schema.json");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, schema()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == schema(),
        "docs/config.schema.json does not match the keys; write it anew with UPDATE_DOCS=1 cargo test --workspace --lib -- config"
    );
}
