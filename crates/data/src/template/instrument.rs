//! Puts the checks of [`super::bounds`] between the instructions of a compiled template.
//!
//! An operation on n operands becomes: push the operation's name, call the check with name and operands, which gives
//! the operands back as a list or fails, unpack the list, and then the operation itself, as the library has it.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::{Error, ErrorKind, Value};

use super::bounds::{BUILT, CHECK, RAW};

/// The operation whose cost is checked, and the number of its operands.
fn checked<'a>(instruction: &Instruction<'a>) -> Result<Option<(&'a str, usize)>, Error> {
    use Instruction as I;
    let call = |name: &'a str, count: &Option<u16>| match count {
        Some(count) => Ok(Some((name, usize::from(*count)))),
        None => Err(Error::new(ErrorKind::InvalidOperation, "calls with *arguments are not supported in templates")),
    };
    Ok(match instruction {
        I::Add | I::StringConcat => Some(("~", 2)),
        I::Mul => Some(("*", 2)),
        I::Sub | I::Div | I::IntDiv | I::Rem | I::Pow => Some(("-", 2)),
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte | I::In | I::CompareAndPreserve(_) => Some(("==", 2)),
        I::GetItem => Some(("[]", 2)),
        I::Slice => Some(("[:]", 4)),
        I::ApplyFilter(name, count, _) | I::CallMethod(name, count) | I::CallFunction(name, count) => {
            return call(name, count);
        }
        I::PerformTest(_, count, _) | I::CallObject(count) => return call("==", count),
        _ => None,
    })
}

/// Where an instruction leads to.
fn target<'i>(instruction: &'i mut Instruction<'_>) -> Option<&'i mut u32> {
    use Instruction as I;
    match instruction {
        I::Iterate(to)
        | I::Jump(to)
        | I::JumpIfFalse(to)
        | I::JumpIfFalseOrPop(to)
        | I::JumpIfTrueOrPop(to)
        | I::BuildMacro(_, to, _) => Some(to),
        _ => None,
    }
}

/// The same instructions with a check before each operation that could be costly.
///
/// # Errors
/// A call whose number of arguments is not known beforehand.
pub(super) fn instrument<'a>(from: &Instructions<'a>) -> Result<Instructions<'a>, Error> {
    let mut to = Instructions::new(from.name(), from.source());
    // Where each old instruction begins now, and the end.
    let mut moved = vec![0];
    let mut end = 0;
    for at in 0.. {
        let Some(instruction) = from.get(at) else { break };
        let line = from.get_line(at).and_then(|line| u16::try_from(line).ok()).unwrap_or(0);
        for part in expand(instruction)? {
            end = to.add_with_line(part, line) + 1;
        }
        moved.push(end);
    }
    for at in 0..end {
        if let Some(goal) = to.get_mut(at).and_then(target) {
            *goal = moved.get(*goal as usize).copied().unwrap_or(end);
        }
    }
    Ok(to)
}

/// One instruction with its check.
fn expand<'a>(instruction: &Instruction<'a>) -> Result<Vec<Instruction<'a>>, Error> {
    use Instruction as I;
    let own = instruction.clone();
    Ok(match instruction {
        I::EmitRaw(text) => {
            vec![I::LoadConst(Value::from(text.len())), I::CallFunction(RAW, Some(1)), I::DiscardTop, own]
        }
        I::BuildList(_) | I::BuildMap(_) => vec![own, I::CallFunction(BUILT, Some(1))],
        _ => match checked(instruction)? {
            // A call without arguments has nothing to weigh.
            None | Some((_, 0)) => vec![own],
            Some((name, count)) => {
                let arguments = u16::try_from(count + 1)
                    .map_err(|_| Error::new(ErrorKind::InvalidOperation, "a call with more than 65,534 arguments"))?;
                vec![
                    I::LoadConst(Value::from(name)),
                    I::CallFunction(CHECK, Some(arguments)),
                    I::UnpackList(count),
                    own,
                ]
            }
        },
    })
}
