//! Numbers in the place of text keep what they say.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, UInt64Builder};
use arrow_array::{ArrayRef, Decimal128Array, Decimal256Array, Float64Array, Int64Array, UInt64Array};
use arrow_buffer::i256;
use data::write::{JsonImages, SampleWriter};
use data::{Dataset, Keys};

use crate::support::{folder, open, open_with, texts, write};

/// pandas writes a missing number as NaN: a row without an answer, not one whose answer is `NaN`.
#[test]
fn numbers_that_are_none_are_missing() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let numbers = [1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.25];
    let answers: ArrayRef = Arc::new(Float64Array::from_iter_values(numbers));
    write(&path, vec![("problem", texts(["q"; 5])), ("answer", answers)], 10, false);
    let dataset = open(&path);
    for i in [1, 2, 3] {
        let reason = dataset.get(i).unwrap_err().to_string();
        assert!(reason.starts_with(&format!("row {i}")) && reason.ends_with("`answer` is missing or null"), "{reason}");
    }
    assert_eq!([0, 4].map(|i| dataset.get(i).unwrap().answer), ["1.5", "-0.25"]);
}

/// Numbers with more digits than a number type holds, in every place that becomes text; and through both written forms.
#[test]
fn numbers_keep_their_digits() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.jsonl");
    let long = "12345678901234567890123";
    let rows = [
        format!(
            r#"{{"id": {long}, "problem": "a", "answer": {long}, "more": {{"a": [{long}, 0.10]}}, "solution": -{long}}}"#
        ),
        format!(r#"{{"id": {long}4, "problem": "b", "answer": [{long}], "more": [1, 18446744073709551616]}}"#),
        r#"{"id": 3, "problem": {"a": 1}, "answer": 1}"#.to_owned(),
        r#"{"id": 4, "problem": 0.1234567890123456789, "answer": 3.14159265358979323846264338327950288, "more": 7.0}"#
            .to_owned(),
    ];
    std::fs::write(&path, rows.join("\n")).unwrap();
    let keys = Keys { extra: vec!["more".into()], ..Keys::default() };
    let check = |dataset: &Dataset| {
        let a = dataset.get(0).unwrap();
        assert_eq!((a.id.as_str(), a.answer.as_str()), (long, long));
        assert_eq!(a.extra["more"], format!(r#"{{"a":[{long},0.10]}}"#));
        assert_eq!(a.solution, Some(format!("-{long}")));
        let b = dataset.get(1).unwrap();
        assert_eq!((b.id.as_str(), b.answer.as_str()), (format!("{long}4").as_str(), long));
        assert_eq!(b.extra["more"], "[1,18446744073709551616]");
        let last = dataset.get(dataset.len() - 1).unwrap();
        assert_eq!(last.problem, "0.1234567890123456789");
        assert_eq!(last.answer, "3.14159265358979323846264338327950288");
        assert_eq!(last.extra["more"], "7");
    };
    let dataset = open_with(&path, &keys);
    check(&dataset);
    assert!(dataset.get(2).unwrap_err().reason.contains("`problem`: an object"));
    for name in ["y.parquet", "y.jsonl"] {
        let output = dir.join(name);
        let mut writer = SampleWriter::create(&output, &keys, JsonImages::Files).unwrap();
        [0, 1, 3].into_iter().for_each(|i| writer.write(&dataset.get(i).unwrap()).unwrap());
        assert_eq!(writer.finish().unwrap(), 3);
        check(&open_with(&output, &keys));
    }
}

#[test]
fn numbers_of_parquet_keep_their_digits() {
    let (_tmp, dir) = folder();
    let path = dir.join("x.parquet");
    let wide = "12345678901234567890123456789012345678".parse::<i128>().unwrap();
    let decimal = Decimal128Array::from(vec![wide, -1]).with_precision_and_scale(38, 10).unwrap();
    let wider = Decimal256Array::from(vec![i256::from_i128(wide), i256::from_i128(-7)]);
    let wider = wider.with_precision_and_scale(60, 0).unwrap();
    let mut list = ListBuilder::new(UInt64Builder::new());
    list.append_value([Some(u64::MAX), None]);
    list.append_value([]);
    write(
        &path,
        vec![
            ("id", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("problem", texts(["a", "b"])),
            ("answer", Arc::new(decimal)),
            ("wider", Arc::new(wider)),
            ("list", Arc::new(list.finish())),
            ("signed", Arc::new(Int64Array::from(vec![i64::MIN, 1]))),
        ],
        2,
        false,
    );
    let extra = ["wider", "list", "signed"].map(String::from).to_vec();
    let dataset = open_with(&path, &Keys { extra, ..Keys::default() });
    let row = dataset.get(0).unwrap();
    assert_eq!(
        (row.id.as_str(), row.answer.as_str()),
        ("18446744073709551615", "1234567890123456789012345678.9012345678")
    );
    assert_eq!(row.extra["wider"], "12345678901234567890123456789012345678");
    assert_eq!(row.extra["list"], "[18446744073709551615,null]");
    assert_eq!(row.extra["signed"], "-9223372036854775808");
    let row = dataset.get(1).unwrap();
    assert_eq!((row.answer.as_str(), row.extra["wider"].as_str()), ("-0.0000000001", "-7"));
}
