//! A shaping of one's own, from outside the crate (docs/your-own-algorithm.md): its settings, its formula, its
//! registration, and two training steps of the toy model with it.
use burn::tensor::{DType, backend::Backend};
use rl::config::section::{AnySettings, Settings};
use rl::config::{Algorithm, Source};
use rl::registry::{self, Declared, Registry};
use rl::shaping::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream};

rl::section! {
    /// Later tokens of a response get more of its advantage, earlier ones less; the sum stays.
    struct LateConfig {
        /// How much more the last token gets than the middle one: 0.5 is half as much again.
        slope: f64 = 0.5 => 0.0..=1.0,
    }
}
impl Settings for LateConfig {}

struct Late(LateConfig);
impl Declared for Late {
    const NAME: &'static str = "late";
    fn settings() -> Option<Box<dyn AnySettings>> {
        registry::settings::<LateConfig>()
    }
    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<LateConfig>().clone())
    }
}

impl<B: Backend> AdvantageShaping<B> for Late {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn streams(&self) -> Vec<Stream> {
        Vec::new() // what it reads of each token beside the advantage: nothing
    }
    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        let weight = |t: usize, n: usize| 1.0 + self.0.slope * ((2 * t + 1) as f64 / n as f64 - 1.0);
        let shaped =
            |(i, &n)| (0..n).zip(batch.advantages.tokens(i, n)).map(|(t, a)| a * weight(t, n) as f32).collect();
        let largest = batch.lengths.iter().map(|&n| weight(n - 1, n)).fold(0.0, f64::max);
        let advantages = batch.lengths.iter().enumerate().map(shaped).collect();
        Ok(Shaped { advantages, metrics: vec![("late/weight_max", largest)], ..Shaped::default() })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::<burn_flex::Flex>::built_in().shaping::<Late>()?;
    let (file, folder) = (Source::new("own_shaping.toml", include_str!("own_shaping.toml")), tempfile::tempdir()?);
    let place = format!("trainer.output_dir={}", folder.path().join("run").display());
    let config = registry.resolve(&[file], &[place, "algorithm.late.slope=0.8".to_string()])?;
    let run = launch::train::<burn_flex::Flex>(
        config,
        DType::F32,
        &Default::default(),
        rl::progress::Progress::new(),
        Default::default(),
    )?;
    let log = rl::run_folder::read_metrics(&run.folder.join("metrics.jsonl"))?;
    let number = |key: &str| log[0][key].as_f64().ok_or(format!("{key} is not in the log"));
    println!("late/weight_max: {}", number("late/weight_max")?);
    // The formula at the last token of the longest response.
    assert_eq!(number("late/weight_max")?, 1.0 + 0.8 * (1.0 - 1.0 / number("response_length/max")?));
    Ok(())
}
