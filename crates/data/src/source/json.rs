//! JSON lines, and JSON arrays of objects: an index of byte ranges over a memory map, a row parsed when it is asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memmap2::Mmap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Column, RawRow, RowImages, Source, picture};
use crate::error::DataError;
use crate::sample::{ImageSource, Keys};

pub(super) struct JsonSource {
    path: PathBuf,
    root: PathBuf,
    map: Mmap,
    /// Byte range of each object.
    rows: Vec<(usize, usize)>,
    keys: Keys,
}

impl JsonSource {
    pub(super) fn open(path: &Path, keys: &Keys, root: PathBuf) -> Result<Self, DataError> {
        let (map, rows) = index(path)?;
        let source = Self { path: path.to_path_buf(), root, map, rows, keys: keys.clone() };
        let first = source.object(0).map_err(|reason| DataError::file(path, reason))?;
        let names = || first.keys().cloned().collect::<Vec<_>>().join(", ");
        let has = |key: &str| first.contains_key(key);
        for (key, option, needed) in
            [(&keys.prompt_key, "prompt_key", true), (&keys.answer_key, "answer_key", !has(&keys.solution_key))]
        {
            if needed && !has(key) {
                return Err(DataError::file(
                    path,
                    format!("no key {key:?}; the first row has {}; set {option} to the right one", names()),
                ));
            }
        }
        Ok(source)
    }

    fn object(&self, i: usize) -> Result<Map<String, Value>, String> {
        parse_row(&self.map, self.rows[i])
    }
}

/// One row of a file.
pub(super) fn parse_row(bytes: &[u8], (start, end): (usize, usize)) -> Result<Map<String, Value>, String> {
    let limit = guard::limits().row_bytes;
    match (end - start) as u64 <= limit.value {
        true => parse(&bytes[start..end]),
        false => Err(format!("the row has {} bytes, and the limit is {}; {}", end - start, limit.value, limit.raise())),
    }
}

/// Maps a file and finds its objects.
pub(super) fn index(path: &Path) -> Result<(Mmap, Vec<(usize, usize)>), DataError> {
    let file = guard::file::open(path).map_err(|e| DataError::io(path, e))?;
    let length = file.metadata().map_err(|e| DataError::io(path, e))?.len();
    if length == 0 {
        return Err(DataError::file(path, "has no rows (0 bytes)"));
    }
    // SAFETY: the map is read-only; a file that another process cuts while it is mapped is outside what we defend against.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| DataError::io(path, e))?;
    let start = if map.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let rows = match map[start..].iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => elements(&map, start).map_err(|reason| DataError::file(path, reason))?,
        Some(_) => lines(&map, start),
        None => Vec::new(),
    };
    if rows.is_empty() {
        return Err(DataError::file(path, "has no rows"));
    }
    Ok((map, rows))
}

fn lines(bytes: &[u8], mut start: usize) -> Vec<(usize, usize)> {
    let mut rows = Vec::new();
    for line in bytes[start..].split(|b| *b == b'\n') {
        if !line.trim_ascii().is_empty() {
            rows.push((start, start + line.len()));
        }
        start += line.len() + 1;
    }
    rows
}

/// Byte ranges of the elements of a top-level array.
fn elements(bytes: &[u8], start: usize) -> Result<Vec<(usize, usize)>, String> {
    let mut rows = Vec::new();
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let mut element = None;
    for (i, &b) in bytes.iter().enumerate().skip(start) {
        if quoted {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if depth == 1 && element.is_none() && !b.is_ascii_whitespace() && !matches!(b, b',' | b']') {
            element = Some(i);
        }
        match b {
            b'"' => quoted = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => {
                if depth == 1 {
                    rows.extend(element.take().map(|e| (e, i)));
                    return match bytes[i + 1..].trim_ascii().is_empty() {
                        true => Ok(rows),
                        false => Err(format!("something follows the end of the array at byte {i}")),
                    };
                }
                depth = depth.saturating_sub(1);
            }
            b',' if depth == 1 => rows.extend(element.take().map(|e| (e, i))),
            _ => {}
        }
    }
    Err("the JSON array has no end; the file is truncated".to_owned())
}

/// One object, or why it is none.
pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("the row is JSON but not an object".to_owned()),
        Err(e) => Err(format!("not JSON: {e}")),
    }
}

/// The value of `key` in each row, when the first row has it. Everything else is skipped, not parsed: rows can hold megabytes of
/// base64.
pub(super) fn ids(bytes: &[u8], rows: &[(usize, usize)], key: &str) -> Vec<Option<String>> {
    let id = |&(start, end): &(usize, usize)| {
        let mut row = serde_json::Deserializer::from_slice(&bytes[start..end]);
        let value = OneKey(key).deserialize(&mut row).ok()?;
        text(value.as_ref()).ok().flatten()
    };
    match rows.first().and_then(id) {
        Some(_) => rows.iter().map(id).collect(),
        None => Vec::new(),
    }
}

/// Reads one key of an object.
struct OneKey<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for OneKey<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneKey<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match key == self.0 {
                true => found = Some(map.next_value()?),
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

/// Every key of the rows with the kind of its first value, the keys of the first row first. Rows that are no objects have none.
pub(super) fn keys_of(bytes: &[u8], rows: &[(usize, usize)]) -> Vec<(String, &'static str)> {
    let mut found = Keyring::default();
    for &(start, end) in rows {
        // A broken row is named when it is read.
        let _ = (&mut found).deserialize(&mut serde_json::Deserializer::from_slice(&bytes[start..end]));
    }
    found.keys
}

/// Collects keys; values are skipped, not parsed.
#[derive(Default)]
struct Keyring {
    keys: Vec<(String, &'static str)>,
    places: HashMap<String, usize>,
}

impl<'de> DeserializeSeed<'de> for &mut Keyring {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Keyring {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.places.get(key.as_ref()).copied() {
                Some(at) if self.keys[at].1 != "null" => drop(map.next_value::<IgnoredAny>()?),
                known => {
                    let kind = match map.next_value::<Value>()? {
                        Value::Null => "null",
                        Value::Bool(_) => "bool",
                        Value::Number(_) => "number",
                        Value::String(_) => "string",
                        Value::Array(_) => "list",
                        Value::Object(_) => "object",
                    };
                    match known {
                        Some(at) => self.keys[at].1 = kind,
                        None => {
                            self.places.insert(key.to_string(), self.keys.len());
                            self.keys.push((key.into_owned(), kind));
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// A JSON value as text: strings as they are, numbers written out, a list of one element as that element.
pub(super) fn text(value: Option<&Value>) -> Result<Option<String>, String> {
    Ok(Some(match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(s)) => s.clone(),
        Some(Value::Number(n)) => match n.as_f64() {
            // 3.0 and 3 are one answer.
            Some(f) if !n.is_i64() && !n.is_u64() => f.to_string(),
            _ => n.to_string(),
        },
        Some(Value::Bool(b)) => if *b { "True" } else { "False" }.to_owned(),
        Some(Value::Array(items)) if items.len() == 1 => return text(items.first()),
        Some(Value::Array(items)) => {
            return Err(format!("a list of {} values where one text is expected", items.len()));
        }
        Some(Value::Object(_)) => return Err("an object where text is expected".to_owned()),
    }))
}

/// The values of `keys` that a row has: text as [`text`] reads it, longer lists and objects as JSON.
pub(super) fn extra(row: &Map<String, Value>, keys: &[String]) -> BTreeMap<String, String> {
    let read = |key: &String| {
        let value = row.get(key)?;
        let text = text(Some(value)).unwrap_or_else(|_| Some(value.to_string()))?;
        Some((key.clone(), text))
    };
    keys.iter().filter_map(read).collect()
}

/// The pictures of a JSON cell: a string, an object with `bytes` (base64) or `path`, or a list of these.
pub(super) fn images(value: Option<&Value>, root: &Path) -> RowImages {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let mut out = Vec::with_capacity(items.len());
            for (k, item) in items.iter().enumerate().filter(|(_, item)| !item.is_null()) {
                out.push(image(item, root).map_err(|e| format!("image {}: {e}", k + 1))?);
            }
            Ok(out)
        }
        Some(item) => Ok(vec![image(item, root)?]),
    }
}

fn image(value: &Value, root: &Path) -> Result<ImageSource, String> {
    match value {
        Value::String(s) => image_text(s, root),
        Value::Object(map) => match (map.get("bytes"), map.get("path")) {
            (Some(Value::String(bytes)), _) => decode_base64(bytes).map(ImageSource::from),
            (_, Some(Value::String(path))) => picture(root, path),
            _ => Err("neither bytes nor path".to_owned()),
        },
        _ => Err("neither a path nor base64 text".to_owned()),
    }
}

/// A string that stands for a picture: a `data:` URL, base64 of an image file, or else a path relative to `root`.
pub(super) fn image_text(text: &str, root: &Path) -> Result<ImageSource, String> {
    if let Some(url) = text.strip_prefix("data:") {
        let Some((head, body)) = url.split_once(',') else {
            return Err("a data: URL without a comma".to_owned());
        };
        if !head.ends_with(";base64") {
            return Err("a data: URL that is not base64".to_owned());
        }
        return decode_base64(body).map(ImageSource::from);
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(format!("{:?} is a web address; download the picture and name the file", guard::echo(text)));
    }
    if text.is_empty() {
        return Err("an empty path".to_owned());
    }
    // Base64 is recognised by what it decodes to: the first bytes of every image format are known.
    if text.len() >= 32
        && let Ok(head) = STANDARD.decode(&text.as_bytes()[..16])
        && ::image::guess_format(&head).is_ok()
    {
        return decode_base64(text).map(ImageSource::from);
    }
    picture(root, text.strip_prefix("file://").unwrap_or(text))
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let compact: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(&compact).or_else(|_| URL_SAFE.decode(&compact)).map_err(|e| format!("bad base64: {e}"))
}

impl Source for JsonSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, i: usize) -> Result<RawRow, String> {
        let object = self.object(i)?;
        let field = |key: &str| text(object.get(key)).map_err(|e| format!("`{key}`: {e}"));
        Ok(RawRow {
            id: field(&self.keys.id_key)?,
            problem: field(&self.keys.prompt_key)?,
            answer: field(&self.keys.answer_key)?,
            solution: field(&self.keys.solution_key)?,
            task: field(&self.keys.task_key)?,
            images: images(object.get(&self.keys.image_key), &self.root),
            extra: extra(&object, &self.keys.extra),
        })
    }

    fn ids(&self) -> Vec<Option<String>> {
        ids(&self.map, &self.rows, &self.keys.id_key)
    }

    fn columns(&self) -> Vec<Column> {
        let keys = &self.keys;
        let named =
            [&keys.id_key, &keys.prompt_key, &keys.answer_key, &keys.solution_key, &keys.task_key, &keys.image_key];
        let used: BTreeSet<&String> = named.into_iter().chain(&keys.extra).collect();
        let column = |(name, kind): (String, &str)| Column { used: used.contains(&name), name, kind: kind.into() };
        keys_of(&self.map, &self.rows).into_iter().map(column).collect()
    }
}
