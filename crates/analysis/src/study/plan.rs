//! The configuration of every run of a study.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rl::config::{Config, Source, Stage, resolve};

use super::StudyError;
use super::gate::{self, GateSetting, GateSpec};
use super::rows::{RowsFile, StudyRow};

/// Name of the warm start among the results.
pub const WARM: &str = "warm";

/// A study whose every configuration has been checked.
#[derive(Debug, Clone)]
pub struct Study {
    /// Rows and tables.
    pub rows: RowsFile,
    /// Whether this is the quick form.
    pub quick: bool,
    base: Vec<Source>,
    overrides: Vec<String>,
    first_seed: u64,
    /// Those of the supervised stages that a warm start of this study has.
    stages: Range<usize>,
    /// Where, in the study's folder, the stages before these are trained for all seeds.
    shared_in: PathBuf,
    /// The weights that they left.
    model: Option<PathBuf>,
}

/// Folder of the stages that warm starts share, beside the warm starts of a gate's setting.
pub(super) const SHARED: &str = "shared";

impl Study {
    /// A study of `rows` on `base`; `overrides` come after the base and before a row's own settings. The quick form
    /// takes the rows, seeds and settings that the rows file has for it. `seeds`, where they are named, are those of
    /// all rows.
    ///
    /// # Errors
    /// A rows file without a quick form, and settings that cannot be used: all rows are resolved here, before any run.
    pub fn new(
        base: Vec<Source>,
        mut rows: RowsFile,
        overrides: &[String],
        quick: bool,
        seeds: Option<usize>,
    ) -> Result<Self, StudyError> {
        let fail = |reason: String| StudyError::Rows { name: "study".into(), reason };
        let mut all = Vec::new();
        if quick {
            let form = rows.quick.clone().ok_or_else(|| fail("the rows file has no [quick] form".into()))?;
            rows.keep(&form.rows).map_err(fail)?;
            rows.seeds = form.seeds;
            all.extend(form.set);
            rows.outcomes = form.outcomes.or(rows.outcomes);
            rows.gate = form.gate.or(rows.gate);
        }
        all.extend_from_slice(overrides);
        if let Some(seeds) = seeds {
            rows.seeds = seeds;
            rows.rows.iter_mut().for_each(|row| row.seeds = None);
        }
        let (stages, shared_in) = (0..usize::MAX, PathBuf::new());
        let study = Self { rows, quick, base, overrides: all, first_seed: 1, stages, shared_in, model: None };
        study.base_config()?;
        for row in &study.rows.rows {
            study.resolved(row, 1)?;
        }
        for setting in study.rows.gate.iter().flat_map(|gate| &gate.settings) {
            study.with(setting, "")?;
        }
        Ok(study)
    }

    /// The study with a setting of its gate, and the seeds of the gate's warm starts, which lie in `place` of the
    /// study's folder.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn with(&self, setting: &GateSetting, place: &str) -> Result<Self, StudyError> {
        let mut study = self.clone();
        study.overrides.extend_from_slice(&setting.set);
        study.first_seed = gate::FIRST_SEED;
        study.stages.start = setting.shared;
        study.shared_in = Path::new(place).join(SHARED);
        let supervised = study.base_config()?.stages.iter().filter(|s| matches!(s, Stage::Sft(_))).count();
        if setting.shared > 0 && setting.shared >= supervised {
            let (name, shared) = (&setting.name, setting.shared);
            let reason = format!(
                "setting {name} of the gate shares {shared} of {supervised} supervised stages; at least one has to be \
                 left to each seed"
            );
            return Err(StudyError::Rows { name: "study".into(), reason });
        }
        for row in &study.rows.rows {
            study.resolved(row, 1)?;
        }
        Ok(study)
    }

    /// The warm starts of a setting of the gate, and no rows.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub(super) fn gate(&self, gate: &GateSpec, setting: &GateSetting) -> Result<Self, StudyError> {
        let mut study = self.with(setting, "")?.without_rows();
        study.rows.seeds = gate.seeds;
        Ok(study)
    }

    /// The stages that the warm starts of all seeds share, as a warm start of one seed, and where they are trained.
    pub(super) fn shared(&self) -> Option<(Self, &Path)> {
        (self.stages.start > 0).then(|| {
            let mut study = self.clone().without_rows();
            study.rows.seeds = 1;
            study.stages = 0..self.stages.start;
            (study, self.shared_in.as_path())
        })
    }

    /// Whether these are the stages that others share.
    pub(super) fn is_shared(&self) -> bool {
        self.stages.end < usize::MAX
    }

    /// The study whose warm starts go on from the weights in `model`.
    pub(super) fn after(&self, model: PathBuf) -> Self {
        Self { model: Some(model), ..self.clone() }
    }

    fn without_rows(mut self) -> Self {
        self.rows.rows.clear();
        self.rows.tables.clear();
        self
    }

    /// The base with the overrides, without any row's settings.
    ///
    /// # Errors
    /// Settings that cannot be used.
    pub fn base_config(&self) -> Result<Config, StudyError> {
        Ok(resolve(&self.base, &self.overrides)?)
    }

    fn resolved(&self, row: &StudyRow, seed: u64) -> Result<Config, StudyError> {
        let overrides: Vec<String> = self.overrides.iter().chain(&row.set).cloned().collect();
        let config =
            resolve(&self.base, &overrides).map_err(|source| StudyError::StudyRow { row: row.name.clone(), source })?;
        Ok(seeded(config, seed))
    }

    /// Seeds of the warm starts: from 1, with a setting of a gate from 1001.
    pub fn seeds(&self) -> Range<u64> {
        self.first_seed..self.first_seed + self.rows.seeds as u64
    }

    /// Seeds that a row runs on: the first of [`seeds`](Self::seeds).
    pub fn seeds_of(&self, row: &StudyRow) -> Range<u64> {
        let Range { start, end } = self.seeds();
        start..row.seeds.map_or(end, |seeds| end.min(start + seeds as u64))
    }

    /// The rows that run on a seed.
    pub(super) fn rows_of(&self, seed: u64) -> impl Iterator<Item = &StudyRow> {
        self.rows.rows.iter().filter(move |row| self.seeds_of(row).contains(&seed))
    }

    /// How many rows run on how many seeds, in words: the most seeds first.
    pub(super) fn size(&self) -> String {
        let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
        for row in &self.rows.rows {
            *rows.entry(self.seeds_of(row).count()).or_default() += 1;
        }
        let each: Vec<String> = rows.iter().rev().map(|(seeds, rows)| format!("{seeds} seeds x {rows} rows")).collect();
        each.join(" and ")
    }

    /// Whether the base has supervised stages, which are run once per seed.
    ///
    /// # Errors
    /// As [`base_config`](Self::base_config).
    pub(crate) fn has_warm_start(&self) -> Result<bool, StudyError> {
        Ok(self.base_config()?.stages.iter().any(|s| matches!(s, Stage::Sft(_))))
    }

    /// The warm start of a seed, in the study's folder `out`.
    ///
    /// # Errors
    /// As [`base_config`](Self::base_config).
    pub fn warm(&self, seed: u64, out: &Path) -> Result<Config, StudyError> {
        let mut config = seeded(self.base_config()?, seed);
        config.stages.retain(|s| matches!(s, Stage::Sft(_)));
        config.stages.truncate(self.stages.end);
        config.stages.drain(..self.stages.start.min(config.stages.len()));
        if self.stages.start > 0 {
            begin_from(&mut config, self.model.as_deref().unwrap_or(Path::new("")));
        }
        place(&mut config, WARM, seed, out);
        Ok(config)
    }

    /// The reinforcement learning of a row and seed, from the weights in `model`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn run(&self, row: &StudyRow, seed: u64, out: &Path, model: Option<&Path>) -> Result<Config, StudyError> {
        let mut config = self.resolved(row, seed)?;
        config.stages.retain(|s| matches!(s, Stage::Rl(_)));
        if let Some(model) = model {
            begin_from(&mut config, model);
        }
        place(&mut config, &row.name, seed, out);
        Ok(config)
    }

    /// What a result is known by: the settings of its run and, through the base, of its warm start, wherever they lie.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn fingerprint(&self, row: Option<&StudyRow>, seed: u64) -> Result<String, StudyError> {
        let nowhere = Path::new("");
        let mut text = Self { model: None, ..self.clone() }.warm(seed, nowhere)?.to_toml();
        if let Some((shared, _)) = self.shared() {
            text += &shared.warm(shared.first_seed, nowhere)?.to_toml();
        }
        if let Some(row) = row {
            text += &self.run(row, seed, nowhere, Some(nowhere))?.to_toml();
        }
        if let Some(outcomes) = &self.rows.outcomes {
            text += &serde_json::to_string(outcomes).unwrap_or_default();
        }
        Ok(format!("{:016x}", fnv(settings(&text).as_bytes())))
    }

    /// The value of a key such as `algorithm.vgpo.beta` in a row, as a number.
    pub fn number(&self, row: &StudyRow, key: &str) -> Option<f64> {
        let config = self.resolved(row, 1).ok()?;
        let mut value: toml::Value = toml::from_str(&config.to_toml()).ok()?;
        for part in rl::config::present_key(key).split('.') {
            value = value.get(part)?.clone();
        }
        value.as_float().or_else(|| value.as_integer().map(|v| v as f64))
    }

    /// The rows by name.
    pub fn row(&self, name: &str) -> Option<&StudyRow> {
        self.rows.rows.iter().find(|r| r.name == name)
    }

    /// Every run: warm starts by seed, then rows of that seed. Names and seeds.
    ///
    /// # Errors
    /// As [`base_config`](Self::base_config).
    pub fn grid(&self) -> Result<Vec<(String, u64)>, StudyError> {
        let warm = self.has_warm_start()?;
        Ok(self
            .seeds()
            .flat_map(|seed| {
                let own = warm.then(|| (WARM.to_string(), seed));
                own.into_iter().chain(self.rows_of(seed).map(move |row| (row.name.clone(), seed)))
            })
            .collect())
    }

    /// The grid as text: rows, settings, runs.
    ///
    /// # Errors
    /// As [`grid`](Self::grid).
    pub fn text(&self) -> Result<String, StudyError> {
        let grid = self.grid()?;
        let mut out = format!("{} runs: {}", grid.len(), self.size());
        if self.has_warm_start()? {
            out += " and one warm start a seed";
        }
        out += "\n\n";
        let width = self.rows.rows.iter().map(|r| r.name.len()).max().unwrap_or(0).max(WARM.len());
        for row in &self.rows.rows {
            let _ = writeln!(out, "{:width$}  {}\n{:width$}  {}", row.name, row.label, "", row.set.join(" "));
        }
        out += "\n";
        for table in &self.rows.tables {
            let _ = writeln!(out, "table {}: {}", table.name, table.rows.join(", "));
        }
        Ok(out)
    }
}

/// One seed for everything that is random, so that the rows of a seed share weights, prompts and uniform numbers.
fn seeded(mut config: Config, seed: u64) -> Config {
    config.model.init_seed = seed;
    config.data.seed = seed;
    config.trainer.seed = seed;
    config
}

fn begin_from(config: &mut Config, model: &Path) {
    config.model.path = model.display().to_string();
    config.model.init.clear();
    // The folder has its own.
    config.model.family.clear();
}

/// The run folder of a row and seed.
pub fn folder(out: &Path, row: &str, seed: u64) -> PathBuf {
    out.join("runs").join(row).join(format!("seed_{seed}"))
}

fn place(config: &mut Config, row: &str, seed: u64, out: &Path) {
    config.trainer.output_dir = folder(out, row, seed).display().to_string();
    config.trainer.experiment_name.clear();
    config.trainer.resume = "auto".into();
}

/// A configuration file without its comments, which explain the keys and may change their words.
pub(super) fn settings(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).flat_map(|line| [line, "\n"]).collect()
}

/// FNV-1a: the same on every machine and with every compiler.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn study(quick: bool) -> Study {
        let base = Source::new("study.toml", include_str!("../../../../configs/study.toml"));
        let rows = RowsFile::parse("rows", include_str!("../../../../configs/study_rows.toml")).unwrap();
        Study::new(vec![base], rows, &[], quick, None).unwrap()
    }

    #[test]
    fn the_committed_study() {
        let study = study(false);
        assert!(study.rows.seeds >= 5);
        let of_rows: usize = study.rows.rows.iter().map(|row| study.seeds_of(row).count()).sum();
        assert_eq!(study.grid().unwrap().len(), study.rows.seeds + of_rows);
        let out = Path::new("out");
        let warm = study.warm(3, out).unwrap();
        assert!(warm.stages.iter().all(|s| matches!(s, Stage::Sft(_))) && warm.model.init_seed == 3);
        assert_eq!(warm.trainer.output_dir, "out/runs/warm/seed_3");
        let dapo = study.run(study.row("dapo").unwrap(), 3, out, Some(Path::new("hf"))).unwrap();
        assert_eq!((dapo.model.path.as_str(), dapo.stages.len(), dapo.trainer.seed), ("hf", 1, 3));
        // The same budget of rollouts in every row.
        for row in &study.rows.rows {
            let config = study.run(row, 1, out, None).unwrap();
            config.validate().unwrap();
            assert_eq!(
                (config.data.rollout_batch_size, config.rollout.n, config.trainer.max_try_make_batch, &config.stages),
                (dapo.data.rollout_batch_size, dapo.rollout.n, 1, &dapo.stages),
                "{}",
                row.name
            );
        }
        // Cheng et al. shape the advantage; an entropy bonus in the loss is another thing.
        let entropy = study.run(study.row("dapo_entropy").unwrap(), 1, out, None).unwrap();
        assert_eq!((entropy.algorithm.shaping.as_str(), entropy.actor.entropy_coef), ("entropy", 0.0));
        let settings = entropy.algorithm.section::<rl::shaping::EntropyConfig>();
        assert_eq!((settings.alpha, settings.kappa), (0.4, 2.0));
        // What the warm start may see, and what the rows are for.
        let texts: Vec<String> = warm.stages.iter().map(|s| format!("{:?}", warm.train_files(s))).collect();
        let specs = texts.iter().flat_map(|t| t.split('"')).filter(|t| t.starts_with("toy:multistep"));
        let told = |t: &str| ["digits=text", "told=4-5", "terms=1-2", "terms=1-3"].iter().any(|form| t.contains(form));
        assert!(specs.clone().count() > 5 && specs.clone().all(|t| !t.contains("direct") && told(t)), "{texts:?}");
        let asked = format!("{:?}", dapo.data.train_files);
        assert!(asked.contains("terms=5-6&fresh=55") && asked.contains("digits=partly") && !asked.contains("told="));
        assert_eq!((dapo.actor.ppo_epochs, dapo.algorithm.online_filtering), (2, true));
        let control = |row: &str| {
            let config = study.run(study.row(row).unwrap(), 1, out, None).unwrap();
            config.algorithm.section::<rl::shaping::VgpoSettings>().control
        };
        use vgpo::Control;
        let controls = [
            ("vgpo", Control::None),
            ("vgpo_permuted", Control::Permuted),
            ("vgpo_length", Control::Length),
            ("vgpo_reversed", Control::Reversed),
            ("vgpo_constant", Control::Constant),
        ];
        controls.iter().for_each(|(row, expected)| assert_eq!(control(row), *expected, "{row}"));
        // A gate's warm starts have seeds of their own, and its settings are other configurations.
        let gate = study.rows.gate.as_ref().unwrap();
        let settings: Vec<Study> = gate.settings.iter().map(|s| study.gate(gate, s).unwrap()).collect();
        assert!(settings.iter().all(|s| s.seeds().all(|seed| seed > 1000) && s.grid().unwrap().len() == gate.seeds));
        let prints: std::collections::BTreeSet<String> =
            settings.iter().map(|s| s.fingerprint(None, 1001).unwrap()).collect();
        assert_eq!(prints.len(), gate.settings.len());
        // Sweeps vary what they say.
        for table in study.rows.tables.iter().filter(|t| t.key.is_some()) {
            let values: Vec<f64> = table
                .rows
                .iter()
                .map(|r| study.number(study.row(r).unwrap(), table.key.as_deref().unwrap()).unwrap())
                .collect();
            assert!(values.windows(2).all(|w| w[0] < w[1]), "{}: {values:?}", table.name);
        }
    }

    #[test]
    fn a_row_may_have_fewer_seeds() {
        let mut study = study(false);
        study.rows.seeds = 3;
        study.rows.rows.truncate(2);
        study.rows.rows.iter_mut().for_each(|row| row.seeds = None);
        assert_eq!((study.grid().unwrap().len(), study.size().as_str()), (9, "3 seeds x 2 rows"));
        study.rows.rows[0].seeds = Some(1);
        assert_eq!((study.grid().unwrap().len(), study.size().as_str()), (7, "3 seeds x 1 rows and 1 seeds x 1 rows"));
        let of = |seed| study.rows_of(seed).map(|row| row.name.as_str()).collect::<Vec<_>>();
        assert_eq!((of(1), of(2)), (vec!["dapo", "vgpo"], vec!["vgpo"]));
        // The quick form has fewer than that.
        study.rows.seeds = 1;
        study.rows.rows[0].seeds = Some(8);
        assert_eq!(study.seeds_of(&study.rows.rows[0]), 1..2);
    }

    #[test]
    fn the_quick_form_is_smaller() {
        let (whole, quick) = (study(false), study(true));
        assert!(quick.grid().unwrap().len() * 5 < whole.grid().unwrap().len());
        let (a, b) = (whole.base_config().unwrap(), quick.base_config().unwrap());
        assert!(b.data.rollout_batch_size < a.data.rollout_batch_size);
    }

    #[test]
    fn fingerprints_follow_settings_and_nothing_else() {
        let study = study(false);
        let (dapo, vgpo) = (study.row("dapo").unwrap(), study.row("vgpo").unwrap());
        let of = |row, seed| study.fingerprint(row, seed).unwrap();
        assert_eq!(of(Some(dapo), 1), of(Some(dapo), 1));
        assert_ne!(of(Some(dapo), 1), of(Some(dapo), 2));
        assert_ne!(of(Some(dapo), 1), of(Some(vgpo), 1));
        assert_ne!(of(None, 1), of(Some(vgpo), 1));
        assert_eq!(settings("# old words\n\nbeta = 0.3\n"), settings("# new words\nbeta = 0.3\n"));
    }
}
