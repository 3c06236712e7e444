//! `docs/configuration.md`, made from the declarations of the keys.

use super::Config;

const INTRODUCTION: &str = "\
# Configuration

This file is generated from the declarations of the keys in `crates/rl/src/config/`
and in the files of the algorithms; a test compares the two
(`UPDATE_DOCS=1 cargo test --workspace --lib -- config` writes it anew).

A run is described by TOML. Lowest stand the defaults below, then the settings of the published algorithm that
`algorithm.name` names (docs/algorithms.md), wherever that key stands. Files are composed left to right, so a small file can change a few keys of a large one; what
stands in no file has the default below. Then come overrides from the command line, `section.key=value`:

```
train --config configs/qwen2_5_vl_7b.toml algorithm.name=vgpo algorithm.vgpo.beta=0.2 data.train_files=[a.parquet,b.parquet] trainer.resume=none
```

- Text needs no quotes: `trainer.experiment_name=first try` (quote it for the shell).
- A list is `[a,b]`; one bare value is a list of one.
- A stage is named by its place: `stages.0.steps=100`.
- Lists, `[[stages]]` among them, are replaced whole by a later file.
- A key that does not exist is an error that names the nearest one. So is a wrong type, and so are values that contradict
  one another, all of which are listed together.

Earlier spellings are read as what they mean now (`algorithm.beta` is `algorithm.vgpo.beta`); what is printed has the new
ones. The run folder keeps the resolved file as `config.toml`; `--dry-run` prints it.
";

/// The reference of every key as Markdown: the text of `docs/configuration.md`.
pub fn reference() -> String {
    let mut out = String::from(INTRODUCTION);
    for section in Config::default().sections() {
        out.push_str(&format!("\n## `{}`\n\n{}\n\n", section.header, section.doc));
        out.push_str("| key | type | default | range | meaning |\n|---|---|---|---|---|\n");
        for key in &section.keys {
            let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
            let (kind, doc) = (cell(&key.kind), cell(&key.doc));
            out.push_str(&format!("| `{}` | {kind} | {default} | {} | {doc} |\n", key.name, key.range));
        }
    }
    out
}

/// Text inside a table: `|` would end the cell, and `<tag>` would vanish where it is no code.
fn cell(text: &str) -> String {
    let parts: Vec<String> = text
        .split('`')
        .enumerate()
        .map(|(index, part)| if index % 2 == 0 { part.replace('<', "&lt;") } else { part.to_string() })
        .collect();
    parts.join("`").replace('|', "\\|")
}
