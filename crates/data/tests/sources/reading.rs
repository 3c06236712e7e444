//! How parquet is read: row groups, many threads, few bytes, little memory.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use data::{Dataset, ImageSource, Keys};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::support::{Pictures, check_virl, folder, open, picture_lists, virl};

#[test]
fn random_access_over_row_groups() {
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 103, 10, 5, true);
    let dataset = open(&path);
    assert_eq!(dataset.len(), 103);
    for k in 0..103 {
        check_virl(&dataset.get(k * 37 % 103).unwrap(), &dir, 5);
    }
    let many: Vec<usize> = (0..200).map(|k| k * 61 % 103).collect();
    let found = dataset.get_many(&many);
    assert_eq!(found.len(), many.len());
    for (i, sample) in many.iter().zip(found) {
        let sample = sample.unwrap();
        assert_eq!(sample.index, *i);
        check_virl(&sample, &dir, 5);
    }
    let error = dataset.get(103).unwrap_err().to_string();
    assert!(error.contains("103 rows"), "{error}");
}

#[test]
fn single_rows_of_large_row_groups() {
    // 60 rows of 1 MB in one group: above the size at which a group is decoded whole.
    for page_index in [true, false] {
        let (_tmp, dir) = folder();
        let path = dir.join("train.parquet");
        let payload = 1 << 20;
        virl(&path, 60, 100, payload, page_index);
        let dataset = open(&path);
        for i in [59, 0, 30, 31, 2, 3] {
            check_virl(&dataset.get(i).unwrap(), &dir, payload);
        }
        for sample in dataset.get_many(&[50, 3, 3, 7, 2, 59, 50]) {
            check_virl(&sample.unwrap(), &dir, payload);
        }
    }
}

#[test]
fn many_threads_read_one_file() {
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 400, 20, 100, false);
    let dataset = open(&path);
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (dataset, dir) = (&dataset, &dir);
            scope.spawn(move || {
                (0..200).for_each(|k| check_virl(&dataset.get((k * 7 + t * 53) % 400).unwrap(), dir, 100))
            });
        }
    });
}

#[test]
fn opening_reads_no_data_page() {
    // All data pages are overwritten: opening works, reading a row sets it aside.
    let (_tmp, dir) = folder();
    let path = dir.join("train.parquet");
    virl(&path, 40, 10, 50, false);
    let mut bytes = std::fs::read(&path).unwrap();
    let footer = u32::from_le_bytes(bytes[bytes.len() - 8..bytes.len() - 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 8 - footer;
    bytes[4..end].fill(0xEE);
    std::fs::write(&path, bytes).unwrap();
    let dataset = open(&path);
    assert_eq!(dataset.len(), 40);
    let row = dataset.get(17).unwrap_err();
    assert!(row.to_string().starts_with("row 17: row group 1 of"), "{row}");
    assert_eq!(row.to_string().lines().count(), 1);
}

/// Peak memory of this process so far, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) << 10
}

/// One picture of 512 kB shared by the 60 rows of each of 12 groups: 6 MB in the file, 360 MB if every row had its own.
#[test]
fn a_dictionary_is_in_memory_once() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("shared.parquet");
    let (groups, each) = (12, 60);
    let noise = |group: u64| -> Vec<u8> {
        (0..1u64 << 19).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15 + group) >> 56) as u8).collect()
    };
    let mut writer = None;
    for group in 0..groups {
        let pictures: Pictures = (0..each).map(|_| Some(vec![(Some(noise(group)), None)])).collect();
        let text = |t: &str| Arc::new(StringArray::from(vec![t; each])) as ArrayRef;
        let columns = vec![
            ("problem", text("<image>?")),
            ("answer", text("1")),
            ("images", Arc::new(picture_lists(&pictures)) as ArrayRef),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let writer = writer.get_or_insert_with(|| {
            let properties = WriterProperties::builder().set_dictionary_page_size_limit(8 << 20).build();
            ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap()
        });
        writer.write(&batch).unwrap();
        writer.flush().unwrap();
    }
    writer.unwrap().close().unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() < 10 << 20, "the writer has no dictionary");
    let data = Dataset::open(&[path.to_str().unwrap().into()], &Keys::default(), None).unwrap();
    let before = peak();
    for row in 0..data.len() {
        let sample = data.get(row).unwrap();
        let ImageSource::Bytes(own) = &sample.images[0] else { panic!() };
        let (own, group) = (own.to_vec(), (row / each) as u64);
        assert!(own.len() == 1 << 19 && own[..64] == noise(group)[..64], "row {row}");
    }
    let grown = peak() - before;
    assert!(grown < 150 << 20, "{} MB", grown >> 20);
}
