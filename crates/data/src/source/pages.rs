//! Where the pages of a parquet row group lie, for files that do not say (pandas and pyarrow write no page index by
//! default).
//!
//! One pass over the pages of the wanted columns, one page in memory at a time; afterwards a row costs one page.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::basic::Encoding;
use parquet::column::page::{Page, PageReader};
use parquet::errors::Result;
use parquet::file::metadata::{OffsetIndexBuilder, ParquetMetaData};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

/// The page index of one row group.
pub(super) struct GroupPages {
    /// One entry a leaf column; empty for columns that are not wanted.
    pub columns: Vec<OffsetIndexMetaData>,
    /// Bytes of the largest page.
    pub largest: u64,
}

/// Finds the pages of the columns in `projection`. `None` when a page does not begin with a row (rows split between
/// pages), when levels are written in an old way, or when the group is damaged; reading it tells more.
pub(super) fn find(
    path: &Path,
    metadata: &ParquetMetaData,
    group: usize,
    projection: &ProjectionMask,
) -> Option<GroupPages> {
    let file = PageRecorder { file: guard::file::open(path).ok()?, last: Mutex::new(0) };
    let file = Arc::new(file);
    let row_group = metadata.row_group(group);
    let rows = usize::try_from(row_group.num_rows()).ok()?;
    let mut found = GroupPages { columns: Vec::new(), largest: 0 };
    for (leaf, chunk) in row_group.columns().iter().enumerate() {
        let mut pages = Vec::new();
        if projection.leaf_included(leaf) {
            let mut reader = SerializedPageReader::new(file.clone(), chunk, rows, None).ok()?;
            while let Some(page) = reader.get_next_page().ok()? {
                let start = *file.last.lock().ok()?;
                if let Some(rows) = rows_of(&page, chunk.column_descr().max_rep_level())? {
                    pages.push((start, rows));
                }
            }
            if pages.iter().map(|p| p.1).sum::<usize>() != rows {
                return None;
            }
        }
        let (chunk_start, chunk_length) = chunk.byte_range();
        let mut builder = OffsetIndexBuilder::new();
        for (k, (start, rows)) in pages.iter().enumerate() {
            let end = pages.get(k + 1).map_or(chunk_start + chunk_length, |next| next.0);
            let size = end.checked_sub(*start)?;
            found.largest = found.largest.max(size);
            builder.append_offset_and_size(i64::try_from(*start).ok()?, i32::try_from(size).ok()?);
            builder.append_row_count(i64::try_from(*rows).ok()?);
        }
        found.columns.push(builder.build());
    }
    Some(found)
}

/// Rows that begin in a page; `Some(None)` for pages without rows (dictionaries).
fn rows_of(page: &Page, max_rep_level: i16) -> Option<Option<usize>> {
    Some(match page {
        Page::DictionaryPage { .. } => None,
        Page::DataPageV2 { num_rows, .. } => Some(*num_rows as usize),
        Page::DataPage { num_values, .. } if max_rep_level == 0 => Some(*num_values as usize),
        Page::DataPage { buf, num_values, rep_level_encoding: Encoding::RLE, .. } => {
            let length = u32::from_le_bytes(buf.get(..4)?.try_into().ok()?) as usize;
            let width = (i16::BITS - max_rep_level.leading_zeros()) as usize;
            Some(count_zeros(buf.get(4..4 + length)?, width, *num_values as usize)?)
        }
        Page::DataPage { .. } => return None,
    })
}

/// How many of `count` levels are zero (a level of zero begins a row), in parquet's hybrid of runs and packed bits.
/// `None` when the first is not zero, or the bytes end early.
fn count_zeros(bytes: &[u8], width: usize, count: usize) -> Option<usize> {
    let mut at = 0;
    let mut seen = 0;
    let mut zeros = 0;
    while seen < count {
        let mut header = 0usize;
        for shift in (0..28).step_by(7) {
            let byte = *bytes.get(at)?;
            at += 1;
            header |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        // Levels are small: a value of at most 8 bits covers 255 nested lists.
        let mut take = |value: u8, n: usize| {
            let n = n.min(count - seen);
            if seen == 0 && n > 0 && value != 0 {
                return None;
            }
            zeros += if value == 0 { n } else { 0 };
            seen += n;
            Some(())
        };
        if width > 8 {
            return None;
        }
        if header & 1 == 0 {
            take(*bytes.get(at)?, header >> 1)?;
            at += 1;
        } else {
            let packed = bytes.get(at..at + (header >> 1) * width)?;
            at += packed.len();
            for k in 0..(header >> 1) * 8 {
                let bit = |b: usize| packed[(k * width + b) / 8] >> ((k * width + b) % 8) & 1;
                take((0..width).map(|b| bit(b) << b).sum(), 1)?;
            }
        }
    }
    Some(zeros)
}

/// A file that remembers where the last page header was read.
struct PageRecorder {
    file: File,
    last: Mutex<u64>,
}

impl Length for PageRecorder {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for PageRecorder {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        if let Ok(mut last) = self.last.lock() {
            *last = start;
        }
        self.file.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.file.get_bytes(start, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_hand() {
        // A run of five zeros: header 5 << 1, value 0.
        assert_eq!(count_zeros(&[10, 0], 1, 5), Some(5));
        // Eight packed levels 0,1,1,0,0,1,0,1 (lowest bit first), then a run of three ones.
        assert_eq!(count_zeros(&[0b11, 0b1010_0110, 6, 1], 1, 11), Some(4));
        // Padding of the last packed group does not count.
        assert_eq!(count_zeros(&[0b11, 0b0000_0010], 1, 3), Some(2));
        // Two bits a level: 0, 1, 2, 0, ...
        assert_eq!(count_zeros(&[0b11, 0b0010_0100, 0b0101_0101], 2, 8), Some(2));
        // The first level continues a row of the page before.
        assert_eq!(count_zeros(&[10, 1], 1, 5), None);
        assert_eq!(count_zeros(&[10], 1, 5), None);
        assert_eq!(count_zeros(&[], 1, 1), None);
    }
}
