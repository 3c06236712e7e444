//! The models that a configuration may name: families and built-in architectures. The trainer knows none of them.

use model_qwen2vl::config::FAMILIES;
use model_qwen2vl::{Family, QwenVlConfig};
use rl::TrainError;
use rl::config::Config;
use rl::config::field::not_a_choice;

/// The family of the model that is built in, where a configuration names none: the one that the toy world was made
/// with.
const FIRST: &str = "qwen2_5_vl";

/// The family that `model.family` names.
///
/// # Errors
/// A name that is none, with those that are.
pub(crate) fn family(name: &str) -> Result<&'static Family, TrainError> {
    let name = if name.is_empty() { FIRST } else { name };
    let all: Vec<&str> = FAMILIES.iter().map(|family| family.model_type).collect();
    Family::of(name).ok_or_else(|| TrainError::Input(format!("`model.family`: {}", not_a_choice(name, &all))))
}

/// The architecture that `model.init` names; none where it names none.
///
/// # Errors
/// As [`family`].
pub(crate) fn preset(name: &str) -> Result<Option<QwenVlConfig>, TrainError> {
    if name.is_empty() {
        return Ok(None);
    }
    let all: Vec<&str> = FAMILIES.iter().flat_map(|family| family.presets).copied().collect();
    let found = QwenVlConfig::preset(name);
    found.map(Some).ok_or_else(|| TrainError::Input(format!("`model.init`: {}", not_a_choice(name, &all))))
}

/// Whether a configuration names models that there are.
///
/// # Errors
/// `model.family` or `model.init` with a name that is none, and those that are.
pub fn check_model_names(config: &Config) -> Result<(), TrainError> {
    family(&config.model.family)?;
    preset(&config.model.init).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_gets_the_list() {
        let mut config = Config::default();
        check_model_names(&config).unwrap();
        config.model.family = "qwen3_v1".into();
        let error = check_model_names(&config).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let said = error.to_string();
        assert!(said.contains("`model.family`") && said.contains("did you mean \"qwen3_vl\"?"), "{said}");
        config.model.family = "qwen2_vl".into();
        config.model.init = "8b".into();
        let said = check_model_names(&config).unwrap_err().to_string();
        assert!(said.contains("`model.init`") && said.contains("\"qwen3vl-8b\""), "{said}");
        for name in ["", "toy", "small", "7b", "qwen3vl-32b"] {
            config.model.init = name.into();
            check_model_names(&config).unwrap();
        }
    }
}
