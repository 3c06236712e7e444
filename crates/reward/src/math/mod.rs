//! The stronger grader.
/// placeholder
pub fn equal(given: &str, ground_truth: &str) -> bool { crate::mathruler::grade_answer(given, ground_truth) }
