//! Exact algebra on answers.
//!
//! [`tree`] holds expressions as parsed; [`canon`] their canonical form, made by `build` and `functions`; [`probe`]
//! decides whether a canonical form is zero, with the numbers of [`ball`]. All of it is bounded in time and memory.

pub(crate) mod ball;
mod build;
pub(crate) mod canon;
mod functions;
mod mono;
pub(crate) mod number;
pub(crate) mod probe;
pub(crate) mod tree;

pub(crate) use canon::{Ctx, Domain};
pub(crate) use probe::Zero;
pub(crate) use tree::{Expr, Func};

/// Whether an expression is zero, as far as that can be told.
pub(crate) fn same_as_zero(expr: &Expr, domain: Domain) -> Zero {
    let mut ctx = Ctx::new(domain, canon::MAX_WORK);
    match ctx.build(expr) {
        Ok(frac) => ctx.is_zero(&frac.num),
        Err(_) => Zero::Unknown,
    }
}
