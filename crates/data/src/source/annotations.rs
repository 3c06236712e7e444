//! Folders with a `dataset_info.json`: `{ NAME: { file_name, formatting, columns, tags } }`, the form of PAPO-Eval's
//! benchmarks and of LLaMA-Factory. A conversation's first user turn is the problem, its first assistant turn the
//! solution.

use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::value::{Json, JsonObject};
use super::{Column, RawRow, RowSource, json};
use crate::error::DataError;
use crate::sample::Keys;

pub(super) struct AnnotationSource {
    name: String,
    path: PathBuf,
    root: PathBuf,
    map: Mmap,
    rows: Vec<(usize, usize)>,
    form: Form,
    images_key: String,
    id_key: String,
    extra: Vec<String>,
}

enum Form {
    ShareGpt { messages: String, role: String, content: String, user: String, assistant: String, system: String },
    Alpaca { prompt: String, query: String, response: String },
}

/// Whether a `dataset_info.json` is of this form; the Hugging Face `datasets` library writes another file of that name.
pub(super) fn is_annotations(info: &Path) -> bool {
    read(info).is_ok_and(|entries| entries.iter().any(|(_, e)| e.get("file_name").is_some()))
}

fn read(info: &Path) -> Result<JsonObject, DataError> {
    let bytes = guard::file::read(info, guard::limits().settings_bytes).map_err(|e| DataError::io(info, e))?;
    json::parse(&bytes).map_err(|reason| DataError::file(info, reason))
}

/// Opens the entry `name`, or the only one.
pub(super) fn open(
    info: &Path,
    name: Option<&str>,
    keys: &Keys,
    image_dir: Option<&Path>,
) -> Result<AnnotationSource, DataError> {
    let entries = read(info)?;
    let names = || entries.keys().collect::<Vec<_>>().join(", ");
    let (name, entry) = match name {
        Some(name) => match entries.get(name) {
            Some(found) => (name, found),
            None => {
                return Err(DataError::file(info, format!("has no entry {name:?}; it has {}", names())));
            }
        },
        None => match (entries.iter().next(), entries.iter().len()) {
            (Some(found), 1) => found,
            _ => {
                return Err(DataError::file(info, format!("has several entries; pick one with @: {}", names())));
            }
        },
    };
    let folder = info.parent().unwrap_or(Path::new(""));
    let Some(file_name) = entry.get("file_name").and_then(Json::as_str) else {
        return Err(DataError::file(info, format!("entry {name:?} has no file_name")));
    };
    let text = |part: &str, key: &str, default: &str| {
        entry.get(part).and_then(|c| c.get(key)).and_then(Json::as_str).unwrap_or(default).to_owned()
    };
    let form = match entry.get("formatting").and_then(Json::as_str).unwrap_or("alpaca") {
        "sharegpt" => Form::ShareGpt {
            messages: text("columns", "messages", "conversations"),
            role: text("tags", "role_tag", "from"),
            content: text("tags", "content_tag", "value"),
            user: text("tags", "user_tag", "human"),
            assistant: text("tags", "assistant_tag", "gpt"),
            system: text("tags", "system_tag", "system"),
        },
        "alpaca" => Form::Alpaca {
            prompt: text("columns", "prompt", "instruction"),
            query: text("columns", "query", "input"),
            response: text("columns", "response", "output"),
        },
        other => {
            let reason = format!("entry {name:?} has formatting {other:?}; use sharegpt or alpaca");
            return Err(DataError::file(info, reason));
        }
    };
    let path = folder.join(file_name);
    if guard::file::lies_in(&path, folder).is_ok_and(|inside| !inside) {
        let reason = format!("entry {name:?}: the file {} lies outside this folder", guard::echo(file_name));
        return Err(DataError::file(info, reason));
    }
    let (map, rows) = json::index(&path)?;
    Ok(AnnotationSource {
        name: format!("{} ({name})", path.display()),
        path,
        root: image_dir.unwrap_or(folder).to_path_buf(),
        map,
        rows,
        form,
        images_key: text("columns", "images", "images"),
        id_key: text("columns", "id", "id"),
        extra: keys.extra.clone(),
    })
}

impl AnnotationSource {
    fn object(&self, i: usize) -> Result<JsonObject, String> {
        json::parse_row(&self.map, self.rows[i])
    }

    /// Problem and response.
    fn turns(&self, object: &JsonObject) -> Result<(Option<String>, Option<String>), String> {
        match &self.form {
            Form::Alpaca { prompt, query, response } => {
                let problem = match (json::text(object.get(prompt))?, json::text(object.get(query))?) {
                    (Some(prompt), Some(query)) if !query.is_empty() => Some(format!("{prompt}\n{query}")),
                    (prompt, _) => prompt,
                };
                Ok((problem, json::text(object.get(response))?))
            }
            Form::ShareGpt { messages, role, content, user, assistant, system } => {
                let Some(Json::Array(turns)) = object.get(messages) else {
                    return Err(format!("`{messages}` is not a list of turns"));
                };
                let (mut problem, mut response) = (None, None);
                for turn in turns {
                    let who = turn.get(role).and_then(Json::as_str).unwrap_or_default();
                    let said = json::text(turn.get(content))?;
                    if who == user && problem.is_none() {
                        problem = said;
                    } else if who == assistant && response.is_none() {
                        response = said;
                    } else if who != system {
                        return Err(format!("`{messages}` has a turn by {who:?} after the first question and answer"));
                    }
                }
                Ok((problem, response))
            }
        }
    }
}

/// The content of the last `\boxed{...}` with matched braces.
fn last_boxed(text: &str) -> Option<&str> {
    let start = text.rfind("\\boxed{")? + "\\boxed{".len();
    let mut depth = 1;
    for (i, c) in text[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&text[start..start + i]);
        }
    }
    None
}

impl RowSource for AnnotationSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, i: usize) -> Result<RawRow, String> {
        let object = self.object(i)?;
        let (problem, response) = self.turns(&object)?;
        let answer = response.as_deref().map(|r| last_boxed(r).unwrap_or(r).trim().to_owned());
        Ok(RawRow {
            id: json::text(object.get(&self.id_key))?,
            problem,
            answer,
            images: json::images(object.get(&self.images_key), &self.root),
            task: None,
            solution: response,
            extra: json::extra(&object, &self.extra),
        })
    }

    fn ids(&self) -> Vec<Option<String>> {
        json::ids(&self.map, &self.rows, &self.id_key)
    }

    fn columns(&self) -> Vec<Column> {
        let used = |name: &str| {
            name == self.images_key
                || name == self.id_key
                || self.extra.iter().any(|key| key == name)
                || match &self.form {
                    Form::ShareGpt { messages, .. } => name == messages,
                    Form::Alpaca { prompt, query, response } => [prompt, query, response].iter().any(|k| *k == name),
                }
        };
        let kind = format!("json in {}", self.path.display());
        let keys = json::keys_of(&self.map, &self.rows);
        keys.into_iter().map(|(name, _)| Column { used: used(&name), name, kind: kind.clone() }).collect()
    }
}
