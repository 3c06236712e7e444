//! Which linear layers have low-rank adapters, and of which size: the settings of PEFT's `LoraConfig`, with its
//! meaning.

use regex::Regex;

use crate::ModelError;

/// Names of linear layers, as PEFT takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleNames {
    /// Ends of their names, `q_proj` or `layers.3.mlp.down_proj`.
    Ends(Vec<String>),
    /// A regular expression for their whole names.
    Pattern(String),
}

/// What stands for all linear layers but the head.
pub const ALL_LINEAR: &str = "all-linear";

/// How a model is adapted.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// `r`, the width between the two matrices.
    pub rank: usize,
    /// What the adapter's outputs are multiplied by, times `r`.
    pub alpha: f64,
    /// Probability that an input of an adapter is dropped in training.
    pub dropout: f64,
    /// Whether they are multiplied by `alpha / sqrt(r)` (arXiv 2312.03732) in the place of `alpha / r`.
    pub rslora: bool,
    /// The layers that are adapted.
    pub target_modules: ModuleNames,
    /// Those of them that are not.
    pub exclude_modules: ModuleNames,
}

impl LoraConfig {
    /// What the product of the two matrices is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Which of the linear layers `modules`, by their names in transformers, are adapted.
    ///
    /// # Errors
    /// A rank of 0; a name or an expression that no layer has, with the nearest names.
    pub fn select(&self, modules: &[String]) -> Result<Vec<bool>, ModelError> {
        if self.rank == 0 {
            return Err(ModelError::Input("`model.lora.rank` is 0: an adapter has a rank of at least 1".into()));
        }
        let targets = self.target_modules.matching(modules, "model.lora.target_modules", true)?;
        let excluded = self.exclude_modules.matching(modules, "model.lora.exclude_modules", false)?;
        let chosen: Vec<bool> =
            std::iter::zip(targets, excluded).map(|(target, excluded)| target && !excluded).collect();
        match chosen.contains(&true) {
            true => Ok(chosen),
            false => Err(ModelError::Input(
                "`model.lora.exclude_modules` leaves none of `model.lora.target_modules`: nothing would learn".into(),
            )),
        }
    }
}

impl ModuleNames {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Ends(ends) => ends.is_empty(),
            Self::Pattern(pattern) => pattern.is_empty(),
        }
    }

    /// Which of `modules` it names. Each name of a list must name one, unless it may be one that is not there.
    fn matching(&self, modules: &[String], key: &str, must: bool) -> Result<Vec<bool>, ModelError> {
        let wrong = |reason: String| ModelError::Input(format!("`{key}`: {reason}"));
        match self {
            Self::Pattern(pattern) if pattern == ALL_LINEAR => Ok(vec![true; modules.len()]),
            Self::Pattern(pattern) if pattern.is_empty() && !must => Ok(vec![false; modules.len()]),
            Self::Pattern(pattern) => {
                let whole = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
                    let reason = error.to_string();
                    let reason = reason.lines().last().unwrap_or_default().to_string();
                    wrong(format!(
                        "\"{pattern}\" is no regular expression ({reason}); names are written as a list, [\"q_proj\"]"
                    ))
                })?;
                let found: Vec<bool> = modules.iter().map(|module| whole.is_match(module)).collect();
                match !must || found.contains(&true) {
                    true => Ok(found),
                    false => Err(wrong(format!(
                        "no linear layer has a whole name like \"{pattern}\"; names are like {}, and a list takes \
                        their ends",
                        modules.first().map_or("", String::as_str)
                    ))),
                }
            }
            Self::Ends(ends) => {
                if must && ends.is_empty() {
                    return Err(wrong("is empty; name linear layers, or \"all-linear\"".into()));
                }
                let is = |module: &str, end: &str| {
                    module.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
                };
                if let Some(none) = ends.iter().find(|end| must && !modules.iter().any(|module| is(module, end))) {
                    return Err(wrong(format!("there is no linear layer {none:?}; {}", nearest(none, modules))));
                }
                Ok(modules.iter().map(|module| ends.iter().any(|end| is(module, end))).collect())
            }
        }
    }
}

/// Names that `word` may have meant: the nearest last parts of `modules`, or all that there are.
fn nearest(word: &str, modules: &[String]) -> String {
    let mut lasts: Vec<&str> = Vec::new();
    for module in modules {
        let last = module.rsplit('.').next().unwrap_or(module);
        // A number alone is a place in a list of layers.
        if !lasts.contains(&last) && last.parse::<usize>().is_err() {
            lasts.push(last);
        }
    }
    let own = word.rsplit('.').next().unwrap_or(word);
    let mut near: Vec<(usize, &str)> =
        lasts.iter().map(|last| (strsim::damerau_levenshtein(own, last), *last)).collect();
    near.sort();
    match near.iter().filter(|(distance, _)| *distance <= own.len() / 2).take(3).collect::<Vec<_>>() {
        near if near.is_empty() => format!("there are {}", lasts.join(", ")),
        near => {
            let names: Vec<String> = near.iter().map(|(_, name)| format!("{name:?}")).collect();
            format!("did you mean {}?", names.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<String> {
        [
            "model.language_model.layers.0.self_attn.q_proj",
            "model.language_model.layers.0.mlp.up_proj",
            "model.visual.blocks.0.mlp.up_proj",
            "model.visual.merger.mlp.0",
        ]
        .map(String::from)
        .to_vec()
    }

    fn config(targets: ModuleNames, excluded: &str) -> LoraConfig {
        LoraConfig {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            target_modules: targets,
            exclude_modules: ModuleNames::Pattern(excluded.into()),
        }
    }

    fn ends(names: &[&str]) -> ModuleNames {
        ModuleNames::Ends(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn names_are_ends_and_patterns_are_whole() {
        let chosen = |targets: ModuleNames, excluded: &str| {
            let chosen = config(targets, excluded).select(&modules()).unwrap();
            chosen.iter().map(|c| if *c { '1' } else { '0' }).collect::<String>()
        };
        assert_eq!(chosen(ends(&["q_proj", "up_proj"]), ".*visual.*"), "1100");
        assert_eq!(chosen(ends(&["up_proj"]), ""), "0110");
        assert_eq!(chosen(ends(&["layers.0.mlp.up_proj"]), ""), "0100");
        assert_eq!(chosen(ModuleNames::Pattern("all-linear".into()), ""), "1111");
        assert_eq!(chosen(ModuleNames::Pattern(r".*language_model.*(q|up)_proj".into()), ""), "1100");
        assert_eq!(chosen(ModuleNames::Pattern(r".*\.mlp\.0".into()), ""), "0001");
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is_near() {
        for (targets, excluded, parts) in [
            (ends(&["q_prj"]), "", &["model.lora.target_modules", "\"q_prj\"", "did you mean \"q_proj\""][..]),
            (ends(&["proj"]), "", &["\"proj\"", "no linear layer"]),
            (ends(&["attention"]), "", &["there are q_proj, up_proj"]),
            (ends(&[]), "", &["is empty"]),
            (
                ModuleNames::Pattern("q_proj".into()),
                "",
                &["whole name", "model.language_model.layers.0.self_attn.q_proj"],
            ),
            (ModuleNames::Pattern("(".into()), "", &["no regular expression", "unclosed group"]),
            (ends(&["up_proj"]), ".*", &["model.lora.exclude_modules", "nothing would learn"]),
        ] {
            let said = config(targets, excluded).select(&modules()).unwrap_err().to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
        let none = LoraConfig { rank: 0, ..config(ends(&["q_proj"]), "") };
        assert!(none.select(&modules()).unwrap_err().to_string().contains("`model.lora.rank` is 0"));
    }

    #[test]
    fn the_scale_is_over_the_rank_or_its_root() {
        let config = config(ends(&["q_proj"]), "");
        assert_eq!(config.scale(), 2.0);
        assert_eq!(LoraConfig { rslora: true, ..config }.scale(), 4.0);
    }
}
