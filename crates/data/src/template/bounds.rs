//! What the operations of a template may cost: how much their operands weigh, and what can come out of them.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use guard::limits;
use minijinja::machinery::{Token, WhitespaceConfig, tokenize};
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};

/// Names of the checks; no template can write (and so hide) a name with a colon in it.
pub(super) const CHECK: &str = "bounds:check";
pub(super) const BUILT: &str = "bounds:built";
pub(super) const RAW: &str = "bounds:raw";

/// What an element of a list or object weighs besides what it holds, bytes.
const ELEMENT: u64 = 64;
/// Filters that are not named below make at most so much of what they get: escapes of six characters for one, a copy.
const FACTOR: u64 = 8;
/// Bytes that the literals of one block may grow to when it is compiled.
const LITERAL_BYTES: u64 = 1 << 20;

/// Words and signs of one block, `{{ ... }}` or `{% ... %}`.
const BLOCK_TOKENS: usize = 4_000;

/// What one rendering may still use.
struct Budget {
    /// Bytes.
    left: u64,
    end: Instant,
    /// Which limit it has exceeded.
    exceeded: Option<String>,
}

thread_local! {
    static BUDGET: RefCell<Option<Budget>> = const { RefCell::new(None) };
}

/// Begins a rendering on this thread.
pub(super) fn start() {
    let budget = Budget {
        left: limits().template_bytes_handled.value,
        end: Instant::now() + Duration::from_secs(limits().template_seconds.value),
        exceeded: None,
    };
    BUDGET.set(Some(budget));
}

/// Ends it: which limit it has exceeded, if one.
pub(super) fn end() -> Option<String> {
    BUDGET.take().and_then(|budget| budget.exceeded)
}

fn exceed(budget: &mut Budget, reason: String) -> Error {
    let error = Error::new(ErrorKind::InvalidOperation, reason.clone());
    budget.exceeded.get_or_insert(reason);
    error
}

/// Takes `bytes` from the budget.
fn charge(bytes: u64) -> Result<(), Error> {
    BUDGET.with_borrow_mut(|budget| {
        // Without one nothing is rendered here.
        let Some(budget) = budget.as_mut() else { return Ok(()) };
        if bytes > budget.left {
            let limit = limits().template_bytes_handled;
            let reason = format!("would handle more than {} bytes of text; {}", limit.value, limit.raise());
            return Err(exceed(budget, reason));
        }
        budget.left -= bytes;
        if Instant::now() > budget.end {
            let limit = limits().template_seconds;
            let reason = format!("takes more than {} seconds; {}", limit.value, limit.raise());
            return Err(exceed(budget, reason));
        }
        Ok(())
    })
}

/// Bytes of a value, its parts included, which are taken from the budget as they are counted.
fn weigh(value: &Value, depth: u64) -> Result<u64, Error> {
    let limit = limits().template_depth;
    if depth > limit.value {
        let reason = format!("nests values deeper than {} levels; {}", limit.value, limit.raise());
        return Err(BUDGET.with_borrow_mut(|budget| match budget.as_mut() {
            Some(budget) => exceed(budget, reason),
            None => Error::new(ErrorKind::InvalidOperation, reason),
        }));
    }
    if let Some(text) = value.as_str() {
        charge(text.len() as u64 + 1)?;
        return Ok(text.len() as u64 + 1);
    }
    if let Some(bytes) = value.as_bytes() {
        charge(bytes.len() as u64 + 1)?;
        return Ok(bytes.len() as u64 + 1);
    }
    let is_map = value.kind() == ValueKind::Map;
    if !is_map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        charge(1)?;
        return Ok(1);
    }
    // A list may be a promise of a billion elements. One without a length is a stream, which looking at would use up.
    let Some(length) = value.len() else { return Ok(1) };
    let own = (length as u64).saturating_mul(ELEMENT).saturating_add(1);
    charge(own)?;
    let mut total = own;
    for item in value.try_iter()? {
        if is_map {
            total = total.saturating_add(weigh(&value.get_item(&item).unwrap_or_default(), depth + 1)?);
        }
        total = total.saturating_add(weigh(&item, depth + 1)?);
    }
    Ok(total)
}

/// Adds the checks, and weighs what is written out.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_function(CHECK, |Rest(mut operands): Rest<Value>| -> Result<Value, Error> {
        let name = operands.pop().unwrap_or_default();
        check(name.as_str().unwrap_or_default(), &operands)?;
        // Unpacked in the order of the stack: the last one first.
        operands.reverse();
        Ok(Value::from(operands))
    });
    environment.add_function(BUILT, |value: Value| -> Result<Value, Error> {
        weigh(&value, 0)?;
        Ok(value)
    });
    environment.add_function(RAW, |length: u64| charge(length));
    environment.set_formatter(|out, state, value| {
        // Texts within lists are written with escapes.
        charge(weigh(value, 0)?.saturating_mul(if value.as_str().is_some() { 1 } else { FACTOR }))?;
        escape_formatter(out, state, value)
    });
}

/// Charges the operands of an operation and what can come out of it.
fn check(name: &str, operands: &[Value]) -> Result<(), Error> {
    let weights = operands.iter().map(|v| weigh(v, 0)).collect::<Result<Vec<u64>, _>>()?;
    let first = weights.first().copied().unwrap_or(0);
    let all = weights.iter().copied().fold(0, u64::saturating_add);
    let rest = all - first;
    // The largest number among the arguments: a width, a count, a precision.
    let number = operands.iter().map(|v| largest(v, 0)).max().unwrap_or(0);
    let times = u64::saturating_mul;
    let made = match name {
        // Weighing was all that it costs.
        "==" | "[]" | "[:]" => all,
        // Numbers stay numbers; with texts these fail.
        "-" => 0,
        "~" => all,
        "*" => times(all, number.max(1)),
        "join" => {
            let items = operands.first().and_then(Value::len).map_or(first, |n| n as u64).max(first / ELEMENT);
            // As a filter the list comes first, as a method of Python's strings the separator.
            let other = operands.get(1).and_then(Value::len).map_or(0, |n| n as u64);
            all.saturating_add(times(items.max(other), rest.min(first)))
        }
        "replace" => {
            let old = weights.get(1).copied().unwrap_or(1).saturating_sub(1).max(1);
            all.saturating_add(times(first / old + 1, weights.get(2).copied().unwrap_or(0)))
        }
        // Each placeholder may write out the whole of an argument, and has a width of its own.
        "format" => {
            let widths = operands.first().and_then(Value::as_str).map_or(0, numbers_in);
            let placeholders = first / 2 + 1;
            times(placeholders, rest.saturating_add(number)).saturating_add(widths)
        }
        // A number of blanks for each line, element or level.
        "indent" | "wordwrap" | "batch" | "slice" | "center" | "tojson" | "pprint" | "string" => {
            times(all, number.saturating_add(FACTOR))
        }
        // These apply a filter or test, whose name is an argument, to each element.
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            times(all, number.saturating_add(rest).saturating_add(FACTOR))
        }
        _ => times(all, FACTOR).saturating_add(number),
    };
    charge(made)
}

/// The largest whole number in a value, or as far as its parts (named arguments) go.
fn largest(value: &Value, depth: u64) -> u64 {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).map_or(u64::MAX, |number| number.abs() as u64),
        ValueKind::Map if depth < 2 => match value.try_iter() {
            Ok(keys) => {
                keys.map(|key| largest(&value.get_item(&key).unwrap_or_default(), depth + 1)).max().unwrap_or(0)
            }
            Err(_) => 0,
        },
        // A list of arguments, or texts that a filter reads as numbers.
        ValueKind::String => {
            value.as_str().filter(|text| text.len() < 20).and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The sum of all numbers that stand in a text, as widths stand in a format.
fn numbers_in(text: &str) -> u64 {
    let runs = text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.map(|run| run.parse().unwrap_or(u64::MAX)).fold(0, u64::saturating_add)
}

/// What happens before anything can be weighed. Literals are multiplied when a template is compiled: within one block
/// the texts, times all numbers, must stay small. And each operator of an expression is looked at again for those
/// around it, so that long expressions take the square of their length.
pub(super) fn check_constants(source: &str) -> Result<(), String> {
    let whitespace = WhitespaceConfig { keep_trailing_newline: true, lstrip_blocks: true, trim_blocks: true };
    let (mut texts, mut factor, mut multiplied, mut power, mut tokens) = (0u64, 1u64, false, false, 0);
    // What is no token is no template; the compiler says so with its line.
    for (token, _) in tokenize(source, false, Default::default(), whitespace).map_while(Result::ok) {
        let mut times = |number: u64| factor = factor.saturating_mul(number.saturating_add(1));
        tokens += 1;
        if tokens > BLOCK_TOKENS {
            return Err(format!("one block of the template has more than {BLOCK_TOKENS} words and signs; use several"));
        }
        match token {
            Token::VariableStart | Token::BlockStart => {
                (texts, factor, multiplied, power, tokens) = (0, 1, false, false, 0)
            }
            Token::TemplateData(_) => tokens = 0,
            Token::Str(text) => texts += text.len() as u64,
            Token::String(text) => texts += text.len() as u64,
            Token::Int(number) => times(number),
            Token::Int128(_) => times(u64::MAX),
            Token::Float(number) => times(number.abs() as u64),
            Token::Mul => multiplied = true,
            Token::Pow => power = true,
            Token::VariableEnd | Token::BlockEnd
                if multiplied && texts > 0 && (power || texts.saturating_mul(factor) > LITERAL_BYTES) =>
            {
                return Err(format!("a literal text is repeated to more than {LITERAL_BYTES} bytes; write a loop"));
            }
            _ => {}
        }
    }
    Ok(())
}
