//! Accuracy and its standard error.

use serde::{Deserialize, Serialize};

/// An accuracy with what it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Accuracy {
    /// Rows that were answered.
    pub questions: usize,
    /// Graded answers: rows times samples.
    pub answers: usize,
    /// Share of right answers, from 0 to 1; none without any answer.
    pub accuracy: Option<f64>,
    /// Standard error of `accuracy`, from 0 to 1; none with fewer than two clusters.
    pub standard_error: Option<f64>,
}

/// One graded answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GradedAnswer<'a> {
    /// What it answers: answers to one row share it.
    pub row: usize,
    /// Answers with the same text depend on one another; rows are clusters of their own where there is none.
    pub cluster: Option<&'a str>,
    /// 0 or 1.
    pub right: f64,
}

impl Accuracy {
    /// The mean over all answers. Its standard error is clustered: several answers to one question, or several versions
    /// of one question, are not independent. With `G` clusters and `r_g` the sum of the deviations from the mean in
    /// cluster `g`, `SE^2 = G / (G - 1) * sum_g r_g^2 / N^2`; with one answer per question that is the usual `s / sqrt
    /// N`.
    pub(crate) fn of<'a>(answers: impl IntoIterator<Item = GradedAnswer<'a>>) -> Self {
        // In order of first appearance: a sum of floats must not depend on a hash.
        let mut clusters: Vec<(f64, usize)> = Vec::new();
        let mut by_text = std::collections::HashMap::new();
        let mut by_row = std::collections::HashMap::new();
        let mut rows = std::collections::HashSet::new();
        let (mut right, mut count) = (0.0, 0usize);
        for answer in answers {
            let next = clusters.len();
            let at = match answer.cluster {
                Some(text) => *by_text.entry(text).or_insert(next),
                None => *by_row.entry(answer.row).or_insert(next),
            };
            if at == next {
                clusters.push((0.0, 0));
            }
            clusters[at].0 += answer.right;
            clusters[at].1 += 1;
            rows.insert(answer.row);
            right += answer.right;
            count += 1;
        }
        if count == 0 {
            return Self::default();
        }
        let n = count as f64;
        let mean = right / n;
        let g = clusters.len() as f64;
        let standard_error = (clusters.len() > 1).then(|| {
            let squares: f64 = clusters.iter().map(|(sum, k)| (sum - mean * *k as f64).powi(2)).sum();
            (g / (g - 1.0) * squares).sqrt() / n
        });
        Self { questions: rows.len(), answers: count, accuracy: Some(mean), standard_error }
    }

    /// `66.7 ± 1.2`, in percent.
    pub(crate) fn percent(&self) -> String {
        match (self.accuracy, self.standard_error) {
            (Some(mean), Some(error)) => format!("{:.1} ± {:.1}", 100.0 * mean, 100.0 * error),
            (Some(mean), None) => format!("{:.1}", 100.0 * mean),
            _ => "-".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(answers: &[(usize, Option<&str>, f64)]) -> Accuracy {
        Accuracy::of(answers.iter().map(|&(row, cluster, right)| GradedAnswer { row, cluster, right }))
    }

    #[test]
    fn one_answer_a_row_gives_the_usual_standard_error() {
        let a = of(&[(0, None, 1.0), (1, None, 0.0), (2, None, 1.0), (3, None, 1.0)]);
        assert_eq!((a.questions, a.answers, a.accuracy), (4, 4, Some(0.75)));
        // s^2 = (3 * 1/16 + 9/16) / 3 = 1/4, s / sqrt 4 = 1/4.
        assert!((a.standard_error.unwrap() - 0.25).abs() < 1e-12);
    }

    #[test]
    fn copies_of_an_answer_add_no_certainty() {
        let once = of(&[(0, None, 1.0), (1, None, 0.0), (2, None, 1.0)]);
        let thrice: Vec<_> = (0..9).map(|k| (k / 3, None, if k / 3 == 1 { 0.0 } else { 1.0 })).collect();
        let thrice = of(&thrice);
        assert_eq!((thrice.questions, thrice.answers), (3, 9));
        assert!((once.standard_error.unwrap() - thrice.standard_error.unwrap()).abs() < 1e-12);
        // Three rows that are versions of one question are one cluster.
        let versions = of(&[(0, Some("q"), 1.0), (1, Some("q"), 1.0), (2, Some("q"), 0.0)]);
        assert_eq!((versions.questions, versions.standard_error), (3, None));
    }

    #[test]
    fn too_little_for_a_standard_error() {
        assert_eq!(of(&[]).percent(), "-");
        assert_eq!(of(&[(0, None, 1.0), (0, None, 0.0)]).percent(), "50.0");
        assert_eq!(of(&[(0, None, 1.0), (1, None, 1.0)]).percent(), "100.0 ± 0.0");
    }
}
