//! Texts as Python has them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

/// A text; numbers and truth values as JSON writes them, which is how `grade` reads them in its lines. Half of a
/// surrogate pair becomes U+FFFD.
///
/// # Errors
/// TypeError for anything else, ValueError for a number that is not finite; `what` names the value in them.
pub(crate) fn text_of(value: &Bound<'_, PyAny>, what: impl Fn() -> String) -> PyResult<String> {
    if let Ok(text) = value.cast::<PyString>() {
        if let Ok(text) = text.to_cow() {
            return Ok(text.into_owned());
        }
        let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
        return Ok(String::from_utf8_lossy(bytes.extract::<&[u8]>()?).into_owned());
    }
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(if truth.is_true() { "true" } else { "false" }.to_owned());
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return match number.value().is_finite() {
            // NumPy's doubles are Python's, too, but for how they are shown.
            true => PyFloat::new(value.py(), number.value()).repr()?.extract(),
            false => Err(PyValueError::new_err(format!("{} is {}, which is no answer", what(), number.value()))),
        };
    }
    // Whole numbers of NumPy's are not Python's.
    let whole = match value.is_instance_of::<PyInt>() {
        true => Some(value.clone()),
        false => value.getattr_opt("__index__")?.and_then(|index| index.call0().ok()),
    };
    match whole {
        Some(whole) => whole.str()?.extract(),
        None => {
            let kind = value.get_type().name()?;
            Err(PyTypeError::new_err(format!("{} is {kind}, not a str or a number", what())))
        }
    }
}

/// The items of a list, tuple or other collection; a text is none, though it has items.
///
/// # Errors
/// TypeError.
pub(crate) fn items<'py>(value: &Bound<'py, PyAny>, what: &str) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let listed = match value.is_instance_of::<PyString>() {
        true => None,
        false => value.try_iter().ok(),
    };
    let Some(listed) = listed else {
        let kind = value.get_type().name()?;
        return Err(PyTypeError::new_err(format!("{what} is {kind}, not a list with a str for each response")));
    };
    listed.collect()
}
