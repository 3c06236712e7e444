//! The table as a page: the generated part of `docs/easyr1.md`.

use crate::keys::EASYR1;
use crate::table::{self, EasyR1Key, Fate};

/// Every key and what becomes of it, as Markdown.
pub fn page() -> String {
    let keys = table::all();
    let own: Vec<&EasyR1Key> = keys.iter().filter(|key| key.of == EASYR1).collect();
    let forks: Vec<&EasyR1Key> = keys.iter().filter(|key| key.of != EASYR1).collect();
    let mut out = String::new();
    for (title, keys) in [("EasyR1's keys", &own), ("Keys of VGPO, VPPO and PAPO", &forks)] {
        let [mapped, ignored, refused] = table::counts(keys.iter().copied());
        out += &format!(
            "## {title}\n\n{} keys: {mapped} mapped, {ignored} without an effect here, {refused} of which only some values \
             can be had.\n\n",
            keys.len()
        );
        out += "| key | of | default there | here |\n|---|---|---|---|\n";
        let shown = keys.iter().filter(|key| !key.name.starts_with("worker.critic."));
        for key in shown {
            out += &format!("| `{}` | {} | `{}` | {} |\n", key.name, key.of, key.default, cell(&here(key)));
        }
        let critic = keys.iter().filter(|key| key.name.starts_with("worker.critic.")).count();
        if critic > 0 {
            let why = keys.iter().find(|key| key.name.starts_with("worker.critic.")).map(|key| here(key));
            out += &format!("| `worker.critic.*`, {critic} keys | | | {} |\n", cell(&why.unwrap_or_default()));
        }
        out.push('\n');
    }
    out
}

fn here(key: &EasyR1Key) -> String {
    match key.fate {
        Fate::Same(to) => format!("`{to}`"),
        Fate::Derived(to, how) => {
            let to: Vec<String> = to.iter().map(|key| format!("`{key}`")).collect();
            format!("{}: {how}", to.join(", "))
        }
        Fate::Ignored(why) => format!("no effect: {why}"),
        Fate::Only(good, why) => {
            let good: Vec<String> = good.iter().map(|value| format!("`{value}`")).collect();
            format!("only {}: {why}", good.join(" or "))
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
