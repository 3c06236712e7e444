//! What many worked responses say together.

use serde::{Deserialize, Serialize};
use vgpo::metrics::late_early_cosine_ratio;

use super::forced::{ForcedPart, ForcedRow};

/// Tenths of a response.
pub const DECILES: usize = 10;

/// Parts, and how many of them were wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartErrors {
    /// Parts.
    pub parts: usize,
    /// Wrong ones.
    pub wrong: usize,
}

impl PartErrors {
    /// Counts a part.
    pub fn count(&mut self, right: bool) {
        self.parts += 1;
        self.wrong += usize::from(!right);
    }

    /// Share of wrong parts; none of none.
    pub fn rate(&self) -> Option<f64> {
        (self.parts > 0).then(|| self.wrong as f64 / self.parts as f64)
    }

    /// This rate over that of `early`, each with half a wrong part more, so that a model without errors has a ratio.
    pub fn over(&self, early: &Self) -> Option<f64> {
        let rate = |errors: &Self| (errors.wrong as f64 + 0.5) / (errors.parts as f64 + 1.0);
        (self.parts > 0 && early.parts > 0).then(|| rate(self) / rate(early))
    }

    /// Counts of several together.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |a, b| Self { parts: a.parts + b.parts, wrong: a.wrong + b.wrong })
    }
}

/// Late parts at which two pictures differ, and which of them the model follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Followed {
    /// Parts.
    pub parts: usize,
    /// At which the picture that is there now is followed.
    pub new: usize,
    /// At which the one that was exchanged is.
    pub old: usize,
}

impl Followed {
    fn count(&mut self, part: &ForcedPart, behind: bool) {
        self.parts += 1;
        self.new += usize::from(part.right);
        self.old += usize::from(behind);
    }

    /// Share of the parts that follow the picture that is there now; none of none.
    pub fn share(&self) -> Option<f64> {
        (self.parts > 0).then(|| self.new as f64 / self.parts as f64)
    }
}

/// Means over the early and the late half of all responses; the middle token of an odd number is late.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LateEarlyMeans {
    /// Mean over responses of the mean over the early half.
    pub early: f64,
    /// The same of the late half.
    pub late: f64,
}

impl LateEarlyMeans {
    /// Late over early.
    pub fn ratio(&self) -> f64 {
        self.late / self.early
    }

    fn of<'a>(rows: impl Iterator<Item = &'a [f32]>) -> Option<Self> {
        let mean = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let halves: Vec<(f64, f64)> = rows
            .filter(|row| row.len() > 1)
            .map(|row| (mean(&row[..row.len() / 2]), mean(&row[row.len() / 2..])))
            .collect();
        let of = |half: fn(&(f64, f64)) -> f64| halves.iter().map(half).sum::<f64>() / halves.len() as f64;
        (!halves.is_empty()).then(|| Self { early: of(|h| h.0), late: of(|h| h.1) })
    }
}

/// Forgetting over the rows of a data set whose parts can be located.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forgetting {
    /// Rows.
    pub rows: usize,
    /// Parts that were not written before, by tenth of the response.
    pub fresh: [PartErrors; DECILES],
    /// Parts that were, which can be copied, by tenth of the response.
    pub copied: [PartErrors; DECILES],
    /// Fresh parts of the early half.
    pub early: PartErrors,
    /// Fresh parts of the late half.
    pub late: PartErrors,
    /// Attention on the picture; none where no row has one.
    pub attention: Option<LateEarlyMeans>,
    /// Late over early of the cosines behind the visual focus.
    pub late_early_cosine: Option<f64>,
    /// Late fresh parts after an exchange of the picture; none where there was none.
    pub exchanged_fresh: Option<Followed>,
    /// Late parts that were written before, by the first picture.
    pub exchanged_copied: Option<Followed>,
}

impl Forgetting {
    /// Of the responses to one picture, and of those with their picture exchanged half-way; none of no rows.
    pub fn of(rows: &[ForcedRow], exchanged: &[ForcedRow]) -> Option<Self> {
        let (mut fresh, mut copied) = ([PartErrors::default(); DECILES], [PartErrors::default(); DECILES]);
        let (mut early, mut late) = (PartErrors::default(), PartErrors::default());
        for row in rows {
            for part in &row.parts {
                let decile = part.token * DECILES / row.length;
                if !part.fresh {
                    copied[decile].count(part.right);
                    continue;
                }
                fresh[decile].count(part.right);
                let half = if part.token < row.length / 2 { &mut early } else { &mut late };
                half.count(part.right);
            }
        }
        let (mut new, mut again) = (Followed::default(), Followed::default());
        for part in exchanged.iter().flat_map(|row| &row.parts) {
            if let Some(behind) = part.behind {
                if part.fresh { &mut new } else { &mut again }.count(part, behind);
            }
        }
        let focus: Vec<&[f32]> = rows.iter().map(|row| &row.focus[..]).filter(|focus| !focus.is_empty()).collect();
        let seeing = || rows.iter().filter(|row| !row.focus.is_empty());
        (!rows.is_empty()).then(|| Self {
            rows: rows.len(),
            fresh,
            copied,
            early,
            late,
            attention: LateEarlyMeans::of(seeing().map(|row| &row.attention[..])),
            late_early_cosine: late_early_cosine_ratio(&focus, 2),
            exchanged_fresh: (new.parts > 0).then_some(new),
            exchanged_copied: (again.parts > 0).then_some(again),
        })
    }

    /// Error on fresh parts of the late half over that of the early half ([`PartErrors::over`]).
    pub fn error_ratio(&self) -> Option<f64> {
        self.late.over(&self.early)
    }

    /// The figures that a person asks for first, a line each.
    pub fn table(&self) -> String {
        let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.1}%", 100.0 * v));
        let number = |v: Option<f64>| v.map_or("-".into(), |v| format!("{v:.3}"));
        let mut out = format!(
            "  error at fresh parts {} early, {} late, ratio {} ({} worked responses)\n",
            percent(self.early.rate()),
            percent(self.late.rate()),
            number(self.error_ratio()),
            self.rows
        );
        if let Some(attention) = self.attention {
            out += &format!(
                "  attention on picture {} early, {} late, ratio {}\n",
                percent(Some(attention.early)),
                percent(Some(attention.late)),
                number(Some(attention.ratio()))
            );
        }
        out += &format!("  late/early cosine    {}\n", number(self.late_early_cosine));
        for (name, followed) in [("fresh", self.exchanged_fresh), ("copied", self.exchanged_copied)] {
            if let Some(f) = followed {
                let old = Some(f.old as f64 / f.parts as f64);
                out += &format!(
                    "  exchanged, {name:9} {} of {} late parts follow the new picture, {} the old one\n",
                    percent(f.share()),
                    f.parts,
                    percent(old)
                );
            }
        }
        out
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(length: usize, parts: &[(usize, bool, bool)], attention: &[f32]) -> ForcedRow {
        let part = |&(token, fresh, right): &(usize, bool, bool)| ForcedPart { token, fresh, right, behind: None };
        ForcedRow {
            length,
            parts: parts.iter().map(part).collect(),
            attention: attention.to_vec(),
            focus: attention.iter().map(|a| (a + 1.0) / 2.0).collect(),
        }
    }

    #[test]
    fn halves_deciles_and_ratios_by_hand() {
        // Fresh: tokens 0, 4 early (one wrong), 5, 9 late (both wrong); token 8 is copied.
        let long = row(
            10,
            &[(0, true, true), (4, true, false), (5, true, false), (8, false, true), (9, true, false)],
            &[0.8, 0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.2, 0.2, 0.2],
        );
        let found = Forgetting::of(&[long.clone(), row(2, &[], &[0.4, 0.4])], &[]).unwrap();
        assert_eq!(found.early, PartErrors { parts: 2, wrong: 1 });
        assert_eq!(found.late, PartErrors { parts: 2, wrong: 2 });
        assert!((found.error_ratio().unwrap() - 2.5 / 1.5).abs() < 1e-12);
        assert_eq!((found.fresh[4].wrong, found.fresh[5].wrong, found.fresh[9].wrong), (1, 1, 1));
        assert_eq!((found.copied[8], found.fresh[8]), (PartErrors { parts: 1, wrong: 0 }, PartErrors::default()));
        let attention = found.attention.unwrap();
        assert!((attention.early - 0.6).abs() < 1e-6 && (attention.late - 0.3).abs() < 1e-6);
        assert!((attention.ratio() - 0.5).abs() < 1e-6);
        assert!((found.late_early_cosine.unwrap() - 0.5).abs() < 1e-6);
        assert!(found.exchanged_fresh.is_none() && Forgetting::of(&[], &[]).is_none());
        assert_eq!(PartErrors::sum(&found.fresh), PartErrors { parts: 4, wrong: 3 });
    }

    #[test]
    fn what_is_followed_after_an_exchange() {
        let part = |fresh, right, behind| ForcedPart { token: 1, fresh, right, behind };
        let parts = vec![
            part(true, true, None),
            part(true, true, Some(false)),
            part(true, false, Some(false)),
            part(false, false, Some(true)),
        ];
        let exchanged = ForcedRow { length: 4, parts, attention: vec![], focus: vec![] };
        let found = Forgetting::of(&[row(2, &[(0, true, true)], &[0.1, 0.1])], &[exchanged]).unwrap();
        assert_eq!(found.exchanged_fresh, Some(Followed { parts: 2, new: 1, old: 0 }));
        assert_eq!(found.exchanged_copied, Some(Followed { parts: 1, new: 0, old: 1 }));
        assert_eq!(found.exchanged_fresh.unwrap().share(), Some(0.5));
        let table = found.table();
        assert!(table.contains("50.0% of 2 late parts follow the new picture"), "{table}");
    }
}
