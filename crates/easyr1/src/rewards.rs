//! Reward functions that EasyR1 and its forks ship: which built-in rule each is.

use std::path::Path;

/// A rule of this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShippedRule {
    /// Accuracy and format in a box.
    Math,
    /// Accuracy alone.
    MathAccuracy,
    /// Accuracy and format in tags.
    R1v,
    /// A last line, and a penalty for length.
    Dapo,
}

/// File name, function, rule.
const SHIPPED: &[(&str, &str, ShippedRule)] = &[
    ("math.py", "compute_score", ShippedRule::Math),
    ("math.py", "compute_score_wo_format", ShippedRule::MathAccuracy),
    ("r1v.py", "compute_score", ShippedRule::R1v),
    ("dapo.py", "compute_score", ShippedRule::Dapo),
];

/// The contents of those files in EasyR1, VGPO, VPPO-RL and PAPO, without comments and blanks: see [`content`].
const CONTENTS: &[u64] = &[
    0x4626_2d24_68fc_5e73,
    0x481f_fe0e_21af_ff8a,
    0xb221_e7e2_683d_cdbf,
    0x9025_4b03_2fc6_e2e4,
    0xfeec_6343_851b_0d47,
    0x8fa2_8831_6de9_3e51,
    0x3294_9bcc_aecf_a8d9,
];

/// What a reward function is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RewardSourceFile {
    /// As shipped: a built-in rule.
    Shipped(ShippedRule),
    /// A file of the user's; whether it has a shipped one's name.
    Python { is_changed: bool },
    /// No such file, or no such function in a shipped one; what there is instead.
    Missing(String),
}

/// Looks at the file, relative to where the program runs, as EasyR1 does.
pub(crate) fn look_up(path: &str, function: &str) -> RewardSourceFile {
    let file = Path::new(path);
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let rule = SHIPPED.iter().find(|(file, of, _)| *file == name && *of == function).map(|(_, _, rule)| *rule);
    let functions: Vec<&str> = SHIPPED.iter().filter(|(file, ..)| *file == name).map(|(_, of, _)| *of).collect();
    let no_function = || {
        let note = if function == "main" { " (EasyR1's default where none is named)" } else { "" };
        let names: Vec<String> = functions.iter().map(|of| format!("{path}:{of}")).collect();
        RewardSourceFile::Missing(format!("{name} has no function {function}{note}; write {}", names.join(" or ")))
    };
    match guard::file::read_text(file, guard::limits().config_bytes) {
        Ok(text) if CONTENTS.contains(&content(&text)) => rule.map_or_else(no_function, RewardSourceFile::Shipped),
        Ok(_) => RewardSourceFile::Python { is_changed: !functions.is_empty() },
        Err(_) if file.is_file() => RewardSourceFile::Python { is_changed: false },
        Err(_) if functions.is_empty() => {
            RewardSourceFile::Missing("there is no such file; paths start where the program runs".to_string())
        }
        Err(_) => rule.map_or_else(no_function, RewardSourceFile::Shipped),
    }
}

/// FNV-1a over a program's text, without lines of comments and blanks: a licence header more or less is the same file.
fn content(text: &str) -> u64 {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let bytes = lines.flat_map(str::split_whitespace).flat_map(str::bytes);
    bytes.fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shipped_file_that_was_changed_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("math.py");
        std::fs::write(&path, "def compute_score(reward_inputs):\n    return []\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(look_up(path, "compute_score"), RewardSourceFile::Python { is_changed: true });
        assert_eq!(look_up("no/such/math.py", "compute_score"), RewardSourceFile::Shipped(ShippedRule::Math));
        let RewardSourceFile::Missing(said) = look_up("no/such/math.py", "main") else { panic!() };
        assert_eq!(
            said,
            "math.py has no function main (EasyR1's default where none is named); write no/such/math.py:compute_score or \
             no/such/math.py:compute_score_wo_format"
        );
        assert!(matches!(look_up("no/such/own.py", "f"), RewardSourceFile::Missing(_)));
    }

    #[test]
    fn contents_do_not_depend_on_comments_and_blanks() {
        assert_eq!(content("# a\n\nx = 1\n"), content("x =  1"));
        assert_ne!(content("x = 1"), content("x = 2"));
    }
}
