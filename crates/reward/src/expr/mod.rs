//! Exact algebra on answers: expression trees, a canonical form, and numbers with error bounds.
pub(crate) mod ball;
