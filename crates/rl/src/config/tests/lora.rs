//! `[model.lora]`: names and expressions, and what contradicts it.

use ::policy::ModuleNames;

use super::*;

fn ends(names: &[&str]) -> ModuleNames {
    ModuleNames::Ends(names.iter().map(|name| name.to_string()).collect())
}

/// With the least that adapters need.
fn adapted(overrides: &[&str]) -> Result<Config, ConfigError> {
    overridden(&[&["model.lora.enable=true", "model.path=folder"], overrides].concat())
}

#[test]
fn a_list_has_ends_of_names_and_a_string_is_an_expression() {
    let names =
        |text: &str| adapted(&[&format!("model.lora.target_modules={text}")]).unwrap().model.lora.target_modules;
    assert_eq!(names("[q_proj,v_proj]"), ends(&["q_proj", "v_proj"]));
    assert_eq!(names("[\"q_proj\", \"v_proj\"]"), ends(&["q_proj", "v_proj"]));
    assert_eq!(names("all-linear"), ModuleNames::Pattern("all-linear".into()));
    assert_eq!(names("[qv]_proj"), ModuleNames::Pattern("[qv]_proj".into()));
    let file =
        with("[model]\npath = \"folder\"\n[model.lora]\nenable = true\nexclude_modules = [\"o_proj\"]\n").unwrap();
    assert_eq!(file.model.lora.exclude_modules, ends(&["o_proj"]));
    assert!(file.to_toml().contains("exclude_modules = [\"o_proj\"]\n"));
    assert!(
        file.to_toml().contains("target_modules = [\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", ")
    );
    assert_eq!(resolve(&[Source::new("again.toml", file.to_toml())], &[]).unwrap(), file);
    let lora = adapted(&["model.lora.rslora=true", "model.lora.rank=4", "model.lora.alpha=8"]).unwrap().model.lora();
    assert_eq!(lora.unwrap().scale(), 4.0);
    assert_eq!(overridden(&[]).unwrap().model.lora(), None);
    let error = with("[model.lora]\ntarget_modules = 3\n").unwrap_err().to_string();
    assert!(error.contains("`model.lora.target_modules`: expected a list of strings or a string"), "{error}");
}

#[test]
fn what_does_nothing_or_cannot_be_is_refused() {
    for (overrides, parts) in [
        (&["model.lora.rank=0"][..], &["model.lora.rank: must be at least 1, is 0"][..]),
        (&["model.lora.alpha=0"], &["model.lora.alpha: must be above 0"]),
        (&["model.lora.dropout=1"], &["model.lora.dropout: must"]),
        (&["model.lora.dropout=-0.1"], &["model.lora.dropout: must"]),
        (&["model.path=toy"], &["model.lora.enable, model.path, model.init", "random ones teach nothing"]),
        (&["model.init=3b"], &["model.lora.enable, model.path, model.init"]),
        (
            &["model.lora.enable=false", "model.lora.rank=8"],
            &["model.lora, model.lora.enable", "set model.lora.enable = true"],
        ),
        (
            &["model.lora.enable=false", "trainer.save=merged"],
            &["trainer.save, model.lora.enable", "no adapter to save"],
        ),
        (&["model.lora.enable=false", "model.adapter=a", "model.path=toy"], &["model.adapter, model.path"]),
    ] {
        let said = adapted(overrides).unwrap_err().to_string();
        assert!(parts.iter().all(|part| said.contains(part)) && said.lines().count() == 2, "{overrides:?}: {said}");
    }
    adapted(&["trainer.save=both", "model.adapter=other"]).unwrap();
}
