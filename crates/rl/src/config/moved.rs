//! Earlier spellings: keys that stand in another section now, and files that are gone.

use toml::{Table, Value};

use super::field::nearest;

/// Where a key stood and where it stands. Files and overrides may have either; what is printed has the second.
pub(super) const MOVED: &[(&str, &str)] = &[
    ("algorithm.variant", "algorithm.vgpo.variant"),
    ("algorithm.beta", "algorithm.vgpo.beta"),
    ("algorithm.gamma", "algorithm.vgpo.gamma"),
    ("algorithm.kappa", "algorithm.vgpo.kappa"),
    ("algorithm.schedule", "algorithm.vgpo.schedule"),
    ("algorithm.intra", "algorithm.vgpo.intra"),
    ("algorithm.inter", "algorithm.vgpo.inter"),
    ("algorithm.compensation", "algorithm.vgpo.compensation"),
    ("algorithm.gate", "algorithm.vgpo.gate"),
    ("algorithm.prototype", "algorithm.vgpo.prototype"),
    ("algorithm.inter_score", "algorithm.vgpo.inter_score"),
    ("algorithm.discount", "algorithm.reinforce_plus_plus.discount"),
    ("actor.sapo_tau_positive", "algorithm.sapo.tau_positive"),
    ("actor.sapo_tau_negative", "algorithm.sapo.tau_negative"),
];

/// The key as it is written now.
///
/// ```
/// assert_eq!(rl::config::present_key("algorithm.beta"), "algorithm.vgpo.beta");
/// assert_eq!(rl::config::present_key("rollout.n"), "rollout.n");
/// ```
pub fn present_key(key: &str) -> &str {
    MOVED.iter().find(|(before, _)| *before == key).map_or(key, |(_, now)| now)
}

/// How a file may have written the key.
pub(super) fn earlier_key(key: &str) -> Option<&'static str> {
    MOVED.iter().find(|(_, now)| *now == key).map(|(before, _)| *before)
}

/// What a key that does not exist most likely meant in the earlier spelling, as it is written now.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let (section, name) = key.split_once('.')?;
    let names = MOVED.iter().filter_map(|(before, _)| before.strip_prefix(section)?.strip_prefix('.'));
    let near = nearest(name, names)?;
    MOVED.iter().find(|(before, _)| before.split_once('.') == Some((section, near))).map(|(_, now)| *now)
}

/// Puts the keys of a file where they stand now. A key that is written in both ways is named.
pub(super) fn bring_up_to_date(table: &mut Table) -> Result<(), (&'static str, &'static str)> {
    for &(before, now) in MOVED {
        let (section, key) = before.split_once('.').unwrap_or_default();
        let Some(value) = table.get_mut(section).and_then(Value::as_table_mut).and_then(|keys| keys.remove(key)) else {
            continue;
        };
        let mut place = &mut *table;
        let mut parts: Vec<&str> = now.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            let below = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
            match below.as_table_mut() {
                Some(below) => place = below,
                // The reader says that this is no section.
                None => return Ok(()),
            }
        }
        if place.insert(last.to_string(), value).is_some() {
            return Err((before, now));
        }
    }
    Ok(())
}

/// What to write instead of a file that earlier versions had in configs/, by its path; `None` for any other.
pub(super) fn gone_file(path: &str) -> Option<String> {
    let stem = path.rsplit('/').next()?.strip_suffix(".toml")?;
    if path.contains("algorithms/")
        && let Some((_, instead)) = GONE.iter().find(|(gone, _)| *gone == stem)
    {
        return Some(format!("configs/algorithms/ is gone; write {instead}"));
    }
    let (algorithm, size) = stem.rsplit_once('_')?;
    let model = match size {
        "2b" => "qwen2_vl_2b",
        "3b" => "qwen2_5_vl_3b",
        "7b" => "qwen2_5_vl_7b",
        "8b" => "qwen3_vl_8b",
        "32b" => "qwen2_5_vl_32b",
        _ => return None,
    };
    let bundle = match (algorithm, size) {
        ("grpo" | "dapo" | "vgpo", _) => algorithm,
        ("vppo", "8b") => "vppo_8b",
        ("vppo", _) => "vppo",
        ("papo", "3b") => "papo_g_3b",
        ("papo", _) => "papo_g",
        _ => return None,
    };
    Some(format!("model and algorithm are apart now; write --config configs/{model}.toml algorithm.name={bundle}"))
}

/// The small files that went on top of others.
const GONE: &[(&str, &str)] = &[
    ("bf16_state", "actor.optim.moments_dtype=bf16 actor.optim.grads_dtype=bf16 actor.optim.master_weights=false"),
    ("cispo", "algorithm.name=cispo"),
    ("dapo_entropy", "algorithm.name=dapo_entropy"),
    ("dr_grpo", "algorithm.name=dr_grpo"),
    ("entropy_full", "actor.entropy_coef=-0.001 actor.entropy_type=full"),
    ("grpo_passk", "algorithm.name=grpo_passk"),
    ("gspo", "algorithm.name=gspo"),
    ("gspo_token", "algorithm.name=gspo_token"),
    ("kl_adaptive", "algorithm.disable_kl=false algorithm.kl_type=adaptive algorithm.kl_penalty=kl"),
    ("look_back", "algorithm.name=look_back"),
    ("overlong", "reward.overlong_buffer_length=512"),
    ("papo_d", "algorithm.name=papo_d"),
    ("pepo", "algorithm.name=pepo"),
    ("pgpo", "algorithm.name=pgpo"),
    ("reinforce_plus_plus", "algorithm.name=reinforce_plus_plus"),
    ("remax", "algorithm.name=remax"),
    ("rloo", "algorithm.name=rloo"),
    ("rollout_correction", "actor.rollout_correction=token_truncate"),
    ("sapo", "algorithm.name=sapo"),
    ("srpo", "algorithm.name=srpo"),
    ("vgpo_exponential", "algorithm.name=vgpo algorithm.vgpo.schedule=exponential"),
    ("vgpo_full", "algorithm.name=vgpo algorithm.vgpo.gate=false"),
    ("vgpo_released", "algorithm.name=vgpo_released"),
    ("vppo_grid", "algorithm.name=vppo algorithm.perturbation.align=grid"),
    ("vppo_noise", "algorithm.name=vppo algorithm.perturbation.kind=gaussian_noise algorithm.perturbation.draw=prompt"),
];
