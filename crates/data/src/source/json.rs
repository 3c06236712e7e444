//! JSON lines, and JSON arrays of objects: an index of byte ranges over a memory map, a row parsed when it is asked
//! for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memmap2::Mmap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::value::{Json, JsonObject, number_text};
use super::{Column, RawRow, RowImages, RowSource, numbered, picture};
use crate::error::DataError;
use crate::lfs;
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
        let sample = sample_of_rows(&source.map, &source.rows).map_err(|reason| DataError::file(path, reason))?;
        let has = |key: &str| sample.iter().any(|keys| keys.iter().any(|k| k == key));
        for (key, option, needed) in
            [(&keys.prompt_key, "prompt_key", true), (&keys.answer_key, "answer_key", !has(&keys.solution_key))]
        {
            if needed && !has(key) {
                let names = sample.first().map(|keys| keys.join(", ")).unwrap_or_default();
                return Err(DataError::file(
                    path,
                    format!("no key {key:?}; the first row has {names}; set {option} to the right one"),
                ));
            }
        }
        Ok(source)
    }

    fn object(&self, i: usize) -> Result<JsonObject, String> {
        parse_row(&self.map, self.rows[i])
    }
}

/// One row of a file.
pub(super) fn parse_row(bytes: &[u8], (start, end): (usize, usize)) -> Result<JsonObject, String> {
    let limit = guard::limits().row_bytes;
    match (end - start) as u64 <= limit.value {
        true => parse(&bytes[start..end]),
        false => Err(format!("the row has {} bytes, and the limit is {}; {}", end - start, limit.value, limit.raise())),
    }
}

/// Rows that tell which keys a file has.
const SAMPLE: usize = 100;

/// The keys of the first rows that are objects. Those before them are broken, and are named when they are read.
fn sample_of_rows(bytes: &[u8], rows: &[(usize, usize)]) -> Result<Vec<Vec<String>>, String> {
    let keys = |&(start, end): &(usize, usize)| {
        let mut keyring = Keyring::default();
        let mut row = serde_json::Deserializer::from_slice(&bytes[start..end]);
        let read = (&mut keyring).deserialize(&mut row).and_then(|()| row.end());
        read.is_ok().then(|| keyring.keys.into_iter().map(|(key, _)| key).collect::<Vec<_>>())
    };
    let sample: Vec<_> = rows.iter().filter_map(keys).take(SAMPLE).collect();
    if !sample.is_empty() {
        return Ok(sample);
    }
    let (start, end) = rows[0];
    let reason = parse(&bytes[start..end]).err().unwrap_or_default();
    let what = match bytes {
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "it is written in UTF-16; save it in UTF-8",
        _ => "is it a JSON lines file, or a list of objects?",
    };
    Err(format!("none of its {} rows is a JSON object ({what}); the first: {reason}", rows.len()))
}

/// Maps a file and finds its objects.
pub(super) fn index(path: &Path) -> Result<(Mmap, Vec<(usize, usize)>), DataError> {
    let file = guard::file::open(path).map_err(|e| DataError::io(path, e))?;
    let length = file.metadata().map_err(|e| DataError::io(path, e))?.len();
    if length == 0 {
        return Err(DataError::file(path, "has no rows (0 bytes)"));
    }
    // SAFETY: the map is read-only; a file that another process cuts while it is mapped is outside what we defend
    // against.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| DataError::io(path, e))?;
    if lfs::is_pointer(&map) {
        return Err(DataError::file(path, lfs::REASON));
    }
    let start = if map.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let rows = match map[start..].iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => match elements(&map, start) {
            Ok(rows) => rows,
            // A broken first line may begin like a list.
            Err(_) if is_broken_line(&map[start..]) => lines(&map, start),
            Err(reason) => return Err(DataError::file(path, reason)),
        },
        Some(_) => lines(&map, start),
        None => Vec::new(),
    };
    if rows.is_empty() {
        return Err(DataError::file(path, "has no rows"));
    }
    Ok((map, rows))
}

/// Whether the first line, which begins with `[`, is a row of JSON lines that is no object: the next one is one. A list
/// may be broken into lines, too, but not like this.
fn is_broken_line(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let is_list = first == b"[" || first[1..].trim_ascii_start().starts_with(b"{") && !first.ends_with(b"]");
    !is_list && lines.next().is_some_and(|line| parse(line).is_ok())
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
pub(super) fn parse(bytes: &[u8]) -> Result<JsonObject, String> {
    match Json::parse(bytes) {
        Ok(Json::Object(object)) => Ok(object),
        Ok(_) => Err("the row is JSON but not an object".to_owned()),
        Err(e) => Err(format!("not JSON: {e}")),
    }
}

/// The value of `key` in each row, when one of the first rows has it. Everything else is skipped, not parsed: rows can
/// hold megabytes of base64.
pub(super) fn ids(bytes: &[u8], rows: &[(usize, usize)], key: &str) -> Vec<Option<String>> {
    // Nothing for a row that is no object.
    let read = |&(start, end): &(usize, usize)| {
        let mut row = serde_json::Deserializer::from_slice(&bytes[start..end]);
        let found = OneKey(key).deserialize(&mut row).ok()?;
        Some(found.and_then(|raw| text(Some(&Json::of(raw).ok()?)).ok().flatten()))
    };
    match rows.iter().filter_map(read).take(SAMPLE).any(|id| id.is_some()) {
        true => rows.iter().map(|row| read(row).flatten()).collect(),
        false => Vec::new(),
    }
}

/// Reads one key of an object.
struct OneKey<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for OneKey<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneKey<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
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

/// Every key of the rows with the kind of its first value, the keys of the first row first. Rows that are no objects
/// have none.
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
                    let kind = match map.next_value::<&RawValue>()?.get().as_bytes().first() {
                        Some(b'n') => "null",
                        Some(b't' | b'f') => "bool",
                        Some(b'"') => "string",
                        Some(b'[') => "list",
                        Some(b'{') => "object",
                        _ => "number",
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

/// A JSON value as text: strings as they are, numbers as [`number_text`] writes them, a list of one element as that
/// element.
pub(super) fn text(value: Option<&Json>) -> Result<Option<String>, String> {
    Ok(Some(match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(s)) => s.clone(),
        Some(Json::Number(n)) => number_text(n),
        Some(Json::Bool(b)) => if *b { "True" } else { "False" }.to_owned(),
        Some(Json::Array(items)) if items.len() == 1 => return text(items.first()),
        Some(Json::Array(items)) => {
            return Err(format!("a list of {} values where one text is expected", items.len()));
        }
        Some(Json::Object(_)) => return Err("an object where text is expected".to_owned()),
    }))
}

/// The values of `keys` that a row has: text as [`text`] reads it, longer lists and objects as JSON.
pub(super) fn extra(row: &JsonObject, keys: &[String]) -> BTreeMap<String, String> {
    let read = |key: &String| {
        let value = row.get(key)?;
        let text = text(Some(value)).unwrap_or_else(|_| Some(value.to_string()))?;
        Some((key.clone(), text))
    };
    keys.iter().filter_map(read).collect()
}

/// The pictures of a JSON cell: a string, an object with `bytes` (base64) or `path`, or a list of these, in which null
/// leaves a number out.
pub(super) fn images(value: Option<&Json>, root: &Path) -> RowImages {
    match value {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => {
            let one = |(k, item): (usize, &Json)| match item {
                Json::Null => Ok(None),
                item => image(item, root).map(Some).map_err(|e| format!("image {}: {e}", k + 1)),
            };
            items.iter().enumerate().map(one).collect()
        }
        Some(item) => Ok(vec![Some(image(item, root)?)]),
    }
}

/// The pictures of a row: the column `key`, or where it is missing or null the numbered ones.
fn images_of_row(row: &JsonObject, key: &str, root: &Path) -> RowImages {
    match row.get(key) {
        Some(value) if !value.is_null() => images(Some(value), root),
        _ => numbered::collect(row.keys(), key, |name| images(row.get(name), root)),
    }
}

fn image(value: &Json, root: &Path) -> Result<ImageSource, String> {
    match value {
        Json::String(s) => image_text(s, root),
        Json::Object(map) => match (map.get("bytes").and_then(Json::as_str), map.get("path").and_then(Json::as_str)) {
            (Some(bytes), _) => decode_base64(bytes).map(ImageSource::from),
            (_, Some(path)) => picture(root, path),
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

impl RowSource for JsonSource {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn line(&self, i: usize) -> Option<usize> {
        Some(1 + self.map[..self.rows[i].0].iter().filter(|byte| **byte == b'\n').count())
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
            images: images_of_row(&object, &self.keys.image_key, &self.root),
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
        let found = keys_of(&self.map, &self.rows);
        let numbered: Vec<String> = match found.iter().any(|(name, _)| *name == keys.image_key) {
            true => Vec::new(),
            false => {
                numbered::names(found.iter().map(|(name, _)| name.as_str()), &keys.image_key).into_values().collect()
            }
        };
        let is_used = |name: &String| used.contains(name) || numbered.contains(name);
        let column = |(name, kind): (String, &str)| Column { used: is_used(&name), name, kind: kind.into() };
        found.into_iter().map(column).collect()
    }
}
