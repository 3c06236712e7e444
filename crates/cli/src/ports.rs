//! The ports that programs listen at where nobody chooses another.

/// `serve`.
pub const SERVE: u16 = 8000;
/// `view`.
pub const VIEW: u16 = 6160;
