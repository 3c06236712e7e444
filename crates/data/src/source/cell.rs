//! One cell of an Arrow column as text or as pictures.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::RowImages;
use super::value::Json;
use crate::sample::ImageSource;

/// Text of cell `i`: strings as they are, numbers written out (`3.0` becomes `3`), booleans as Python writes them,
/// lists of one element as that element; `None` for null.
pub(super) fn text(array: &dyn Array, i: usize) -> Result<Option<String>, String> {
    if array.is_null(i) {
        return Ok(None);
    }
    macro_rules! number {
        ($t:ty) => {
            array.as_primitive::<$t>().value(i).to_string()
        };
    }
    let text = match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(i).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(i).to_owned(),
        DataType::Utf8View => array.as_string_view().value(i).to_owned(),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float16 => number!(Float16Type),
        DataType::Float32 => number!(Float32Type),
        DataType::Float64 => number!(Float64Type),
        DataType::Decimal32(..) => array.as_primitive::<Decimal32Type>().value_as_string(i),
        DataType::Decimal64(..) => array.as_primitive::<Decimal64Type>().value_as_string(i),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(i),
        DataType::Decimal256(..) => array.as_primitive::<Decimal256Type>().value_as_string(i),
        DataType::Boolean => if array.as_boolean().value(i) { "True" } else { "False" }.to_owned(),
        DataType::Null => return Ok(None),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys()[i];
            return text(dictionary.values(), key);
        }
        _ => {
            let Some(list) = list(array, i) else {
                return Err(format!("a cell of type {} is not text", array.data_type()));
            };
            return match list.len() {
                1 => text(&list, 0),
                n => Err(format!("a list of {n} values where one text is expected")),
            };
        }
    };
    // pandas writes a missing number as NaN.
    let missing = array.data_type().is_floating() && matches!(text.as_str(), "NaN" | "inf" | "-inf");
    Ok((!missing).then_some(text))
}

/// As [`text`], but a list that is not one text as a JSON list; `None` for null and for what cannot be text.
pub(super) fn text_or_list(array: &dyn Array, i: usize) -> Option<String> {
    text(array, i).unwrap_or_else(|_| json(array, i).map(|value| value.to_string()))
}

/// Texts, numbers and lists of them, of any depth.
fn json(array: &dyn Array, i: usize) -> Option<Json> {
    match list(array, i).filter(|_| !array.is_null(i)) {
        Some(items) => Some(Json::Array((0..items.len()).map(|k| json(&items, k).unwrap_or(Json::Null)).collect())),
        None => {
            let text = text(array, i).ok().flatten()?;
            Some(if array.data_type().is_numeric() { Json::Number(text) } else { Json::String(text) })
        }
    }
}

fn list(array: &dyn Array, i: usize) -> Option<ArrayRef> {
    Some(match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().value(i),
        DataType::LargeList(_) => array.as_list::<i64>().value(i),
        DataType::FixedSizeList(..) => array.as_fixed_size_list().value(i),
        _ => return None,
    })
}

/// Pictures of cell `i`: a list, or a single picture. A null cell holds none, a null element of a list leaves a number
/// out.
pub(super) fn images(array: &dyn Array, i: usize, root: &Path) -> RowImages {
    if array.is_null(i) {
        return Ok(Vec::new());
    }
    match list(array, i) {
        Some(items) => {
            let one = |k| image(&items, k, root).map_err(|e| format!("image {}: {e}", k + 1));
            (0..items.len()).map(one).collect()
        }
        None => Ok(image(array, i, root)?.map(Some).into_iter().collect()),
    }
}

fn image(array: &dyn Array, i: usize, root: &Path) -> Result<Option<ImageSource>, String> {
    if array.is_null(i) {
        return Ok(None);
    }
    if array.data_type() == &DataType::Null {
        return Ok(None);
    }
    if let DataType::Struct(_) = array.data_type() {
        let fields = array.as_struct();
        if let Some(bytes) = fields.column_by_name("bytes")
            && let Some(bytes) = binary(bytes, i)?
        {
            return Ok(Some(ImageSource::Bytes(bytes.into())));
        }
        if let Some(path) = fields.column_by_name("path")
            && let Some(path) = text(path, i)?
        {
            return super::picture(root, &path).map(Some);
        }
        return Err("neither bytes nor path".to_owned());
    }
    if let Some(bytes) = binary(array, i)? {
        return Ok(Some(ImageSource::Bytes(bytes.into())));
    }
    match text(array, i)? {
        Some(text) => super::json::image_text(&text, root).map(Some),
        None => Ok(None),
    }
}

/// Bytes of a binary cell; `None` for null and for columns that hold no bytes.
fn binary(array: &dyn Array, i: usize) -> Result<Option<&[u8]>, String> {
    if array.is_null(i) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(i),
        DataType::LargeBinary => array.as_binary::<i64>().value(i),
        DataType::BinaryView => array.as_binary_view().value(i),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(i),
        _ => return Ok(None),
    }))
}

/// Whether a column can hold pictures.
pub(super) fn can_hold_images(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            can_hold_images(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|f| f.name() == "bytes" || f.name() == "path"),
        DataType::Dictionary(_, values) => can_hold_images(values),
        kind => {
            matches!(
                kind,
                DataType::Binary
                    | DataType::LargeBinary
                    | DataType::BinaryView
                    | DataType::FixedSizeBinary(_)
                    | DataType::Utf8
                    | DataType::LargeUtf8
                    | DataType::Utf8View
                    | DataType::Null
            )
        }
    }
}

/// Whether a column can be read as text.
pub(super) fn can_hold_text(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            can_hold_text(item.data_type())
        }
        DataType::Dictionary(_, values) => can_hold_text(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean | DataType::Null => true,
        kind => kind.is_numeric(),
    }
}
