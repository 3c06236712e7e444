//! Event files, which TensorBoard reads: scalars, histograms, pictures.
//!
//! A file is a row of records (TFRecord): length, its checksum, bytes, their checksum, with CRC-32C in the masked form.
//! The bytes are protocol buffers of `tensorflow/core/util/event.proto` and `framework/summary.proto`, of which a dozen
//! fields are needed and written here by hand. `tools/check_tensorboard.py` reads them with TensorBoard's own reader.
//!
//! A run that goes on cuts the files that are there back to its step, and begins one of its own, as TensorBoard expects
//! it; a program that was reading meanwhile is told by the new file from which step on to forget what it has seen.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::folder::{RunFolderError, at};
use crate::layout::TENSORBOARD;
use crate::lines::append_whole;
use crate::record::host;

/// In the name of each event file.
const MARK: &str = "tfevents";
/// What the first record of a file says.
const VERSION: &str = "brain.Event:2";
/// Buckets of a histogram.
const BUCKETS: usize = 30;
/// Bytes of a record beside its content.
const FRAME: usize = 16;

/// The event files of a run, of which one is written.
#[derive(Debug)]
pub struct EventLog {
    root: PathBuf,
    /// Opened with the first record; none in a process that writes nothing.
    file: Option<(PathBuf, File)>,
    writes: bool,
}

impl EventLog {
    /// Of the run folder `root`.
    pub(crate) fn new(root: &Path, writes: bool) -> Self {
        Self { root: root.to_path_buf(), file: None, writes }
    }

    /// Writes the numbers of a step, each under its name; what is no finite number is left out.
    ///
    /// # Errors
    /// Anything the file system refuses, with the path; no part of a record is left behind then.
    pub fn scalars(&mut self, step: u64, metrics: &Map<String, Value>) -> Result<(), RunFolderError> {
        let number =
            |(key, value): (&String, &Value)| Some((key.clone(), value.as_f64()?)).filter(|(_, v)| v.is_finite());
        let values: Vec<Vec<u8>> = metrics
            .iter()
            .filter(|(key, _)| *key != "step")
            .filter_map(number)
            .map(|(tag, value)| value_of(&tag, |message| message.float(2, value as f32)))
            .collect();
        self.summary(step, &values)
    }

    /// Writes how `values` are spread; those that are not finite are left out.
    ///
    /// # Errors
    /// As [`scalars`](Self::scalars).
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<(), RunFolderError> {
        let finite: Vec<f64> = values.iter().filter(|value| value.is_finite()).map(|value| f64::from(*value)).collect();
        if finite.is_empty() {
            return Ok(());
        }
        self.summary(step, &[value_of(tag, |message| message.message(5, &spread(&finite)))])
    }

    /// Writes a picture of `size` (width, height) pixels, as the bytes of a PNG file.
    ///
    /// # Errors
    /// As [`scalars`](Self::scalars).
    pub fn picture(&mut self, step: u64, tag: &str, png: &[u8], size: [u32; 2]) -> Result<(), RunFolderError> {
        let mut image = Message::default();
        image.number(1, u64::from(size[1]));
        image.number(2, u64::from(size[0]));
        image.number(3, 3); // RGB
        image.bytes(4, png);
        self.summary(step, &[value_of(tag, |message| message.message(4, &image))])
    }

    fn summary(&mut self, step: u64, values: &[Vec<u8>]) -> Result<(), RunFolderError> {
        if values.is_empty() || !self.writes {
            return Ok(());
        }
        let mut summary = Message::default();
        values.iter().for_each(|value| summary.bytes(1, value));
        let mut event = event_at(step);
        event.message(5, &summary);
        let (path, file) = self.open(step)?;
        append_whole(file, path, &record(&event.0))
    }

    /// The file, made with the first record: what another process has logged from `step` on is void.
    fn open(&mut self, step: u64) -> Result<(&Path, &mut File), RunFolderError> {
        if self.file.is_none() {
            let folder = self.root.join(TENSORBOARD);
            fs::create_dir_all(&folder).map_err(at(&folder))?;
            let goes_on = !event_files(&folder).is_empty();
            let path = (0..)
                .map(|n| {
                    folder.join(format!(
                        "events.out.{MARK}.{:010}.{}.{}.{n}",
                        seconds() as u64,
                        host(),
                        std::process::id()
                    ))
                })
                .find(|path| !path.exists());
            let Some(path) = path else { unreachable!("some number is free") };
            let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
            let mut first = event_at(0);
            first.bytes(3, VERSION.as_bytes());
            let mut bytes = record(&first.0);
            if goes_on {
                let mut start = Message::default();
                start.number(1, 1); // SessionLog.START
                let mut event = event_at(step);
                event.message(7, &start);
                bytes.extend(record(&event.0));
            }
            append_whole(&mut file, &path, &bytes)?;
            self.file = Some((path, file));
        }
        match &mut self.file {
            Some((path, file)) => Ok((path, file)),
            None => unreachable!("it was opened above"),
        }
    }
}

/// The event files of a folder, by name, which begins with the time; none where the folder is not there.
pub fn event_files(folder: &Path) -> Vec<PathBuf> {
    let name = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(MARK));
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(name).collect();
    files.sort();
    files
}

/// Drops the records after `step`, and what was only half written. A file of which nothing is left is removed.
///
/// # Errors
/// A file that cannot be read, cut or removed, with its path.
pub(crate) fn truncate_after(root: &Path, step: u64) -> Result<(), RunFolderError> {
    for path in event_files(&root.join(TENSORBOARD)) {
        let bytes = guard::file::read(&path, guard::limits().record_bytes).map_err(at(&path))?;
        let (mut keep, mut events) = (0, 0);
        while let Some((content, end)) = next_record(&bytes, keep) {
            if step_of(content) > step {
                break;
            }
            keep = end;
            events += 1;
        }
        if events <= 1 {
            fs::remove_file(&path).map_err(at(&path))?;
        } else if keep < bytes.len() {
            let file = OpenOptions::new().write(true).open(&path).map_err(at(&path))?;
            file.set_len(keep as u64).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// The content of the record at `start` and where it ends; none where there is no whole and sound one.
fn next_record(bytes: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let head = bytes.get(start..start + 12)?;
    let length = usize::try_from(u64::from_le_bytes(head[..8].try_into().ok()?)).ok()?;
    let end = start.checked_add(length)?.checked_add(FRAME)?;
    let content = bytes.get(start + 12..end - 4)?;
    let sound = |bytes: &[u8], sum: &[u8]| masked_crc(bytes).to_le_bytes() == sum;
    (sound(&head[..8], &head[8..]) && sound(content, bytes.get(end - 4..end)?)).then_some((content, end))
}

/// The step of an event; 0 where it has none.
fn step_of(event: &[u8]) -> u64 {
    let mut at = 0;
    while let Some(key) = varint(event, &mut at) {
        match (key >> 3, key & 7) {
            (2, 0) => return varint(event, &mut at).unwrap_or(0),
            (_, 0) => drop(varint(event, &mut at)),
            (_, 1) => at += 8,
            (_, 2) => at += varint(event, &mut at).unwrap_or(0) as usize,
            _ => at += 4,
        }
    }
    0
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Content as a record.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(content.len() + FRAME);
    bytes.extend(length);
    bytes.extend(masked_crc(&length).to_le_bytes());
    bytes.extend(content);
    bytes.extend(masked_crc(content).to_le_bytes());
    bytes
}

/// CRC-32C, rotated and moved, as a checksum of what holds checksums must be.
fn masked_crc(bytes: &[u8]) -> u32 {
    let crc =
        !bytes.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ CRC_TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize]);
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// Castagnoli's polynomial, reflected, byte by byte.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
};

/// A protocol buffer that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn doubles(&mut self, field: u64, values: &[f64]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, &bytes);
    }
}

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// An event of now.
fn event_at(step: u64) -> Message {
    let mut event = Message::default();
    event.double(1, seconds());
    event.number(2, step);
    event
}

/// A value of a summary under its name.
fn value_of(tag: &str, fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut value = Message::default();
    value.bytes(1, tag.as_bytes());
    fill(&mut value);
    value.0
}

/// How finite numbers, at least one, are spread over buckets of one width.
fn spread(values: &[f64]) -> Message {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let width = (high - low) / BUCKETS as f64;
    let count = if width > 0.0 { BUCKETS } else { 1 };
    let mut buckets = vec![0.0; count];
    for value in values {
        let bucket = if width > 0.0 { ((value - low) / width) as usize } else { 0 };
        buckets[bucket.min(count - 1)] += 1.0;
    }
    let limits: Vec<f64> =
        (1..=count).map(|bucket| if bucket == count { high } else { low + width * bucket as f64 }).collect();
    let mut message = Message::default();
    message.double(1, low);
    message.double(2, high);
    message.double(3, values.len() as f64);
    message.double(4, values.iter().sum());
    message.double(5, values.iter().map(|value| value * value).sum());
    message.doubles(6, &limits);
    message.doubles(7, &buckets);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32C, masked.
    #[test]
    fn the_checksum_is_castagnolis() {
        let crc = 0xE306_9283_u32;
        assert_eq!(masked_crc(b"123456789"), crc.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    fn metrics(step: u64) -> Map<String, Value> {
        Map::from_iter([("reward".to_string(), (step as f64 / 8.0).into()), ("stage".to_string(), "rl".into())])
    }

    fn steps(root: &Path) -> Vec<Vec<u64>> {
        let of = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            let (mut at, mut steps) = (0, vec![]);
            while let Some((content, end)) = next_record(&bytes, at) {
                steps.push(step_of(content));
                at = end;
            }
            assert_eq!(at, bytes.len(), "whole records");
            steps
        };
        event_files(&root.join(TENSORBOARD)).iter().map(of).collect()
    }

    #[test]
    fn a_run_that_goes_on_drops_what_came_after() {
        let root = tempfile::tempdir().unwrap();
        let mut log = EventLog::new(root.path(), true);
        for step in 1..=300 {
            log.scalars(step, &metrics(step)).unwrap();
            log.histogram(step, "focus", &[0.1, 0.5, f32::NAN]).unwrap();
        }
        assert_eq!(steps(root.path())[0].len(), 601, "a version, and two a step");
        // Killed while it wrote.
        let path = event_files(&root.path().join(TENSORBOARD)).pop().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(bytes.len() - 7);
        fs::write(&path, bytes).unwrap();
        truncate_after(root.path(), 299).unwrap();
        assert_eq!(steps(root.path())[0].last(), Some(&299));
        truncate_after(root.path(), 200).unwrap();
        let mut log = EventLog::new(root.path(), true);
        log.scalars(201, &metrics(201)).unwrap();
        let files = steps(root.path());
        assert_eq!((files[0].len(), files[0].last()), (401, Some(&200)));
        // The version, the word that a session starts there, and the step.
        assert_eq!(files[1], [0, 201, 201]);
        truncate_after(root.path(), 0).unwrap();
        assert!(event_files(&root.path().join(TENSORBOARD)).is_empty());
    }

    #[test]
    fn a_process_that_follows_writes_nothing() {
        let root = tempfile::tempdir().unwrap();
        EventLog::new(root.path(), false).scalars(1, &metrics(1)).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
