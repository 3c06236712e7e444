//! One new token a row while decoding: its queries, keys and values, and attention to what came before.

mod attention;
mod heads;

pub(super) use attention::attention;
pub(super) use heads::heads;
