//! A shaping of one's own, from outside the crate (docs/your-own-algorithm.md): its settings, its formula, its
//! registration, and two training steps of the toy model with it.
use burn::tensor::{DType, backend::Backend};
use burn_flex::Flex;
use rl::registry::prelude::*;

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
        settings::<LateConfig>()
    }
    fn new(algorithm: &Algorithm) -> Self {
        Self(algorithm.section::<LateConfig>().clone())
    }
}
impl<B: Backend> AdvantageShaping<B> for Late {
    fn shape(&self, batch: &ShapingBatch, _: &B::Device) -> Result<Shaped, ShapingError> {
        let weight = |t: usize, n: usize| 1.0 + self.0.slope * ((2 * t + 1) as f64 / n as f64 - 1.0);
        let mut advantages = batch.plain();
        for (response, &n) in std::iter::zip(&mut advantages, batch.lengths) {
            response.iter_mut().enumerate().for_each(|(t, a)| *a *= weight(t, n) as f32);
        }
        let largest = batch.lengths.iter().map(|&n| weight(n - 1, n)).fold(0.0, f64::max);
        Ok(Shaped { advantages, metrics: vec![("late/weight_max", largest)], ..Shaped::default() })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = Source::new("own_shaping.toml", include_str!("own_shaping.toml"));
    let folder = tempfile::tempdir()?;
    let place = format!("trainer.output_dir={}", folder.path().join("run").display());
    let config = Registry::<Flex>::built_in().shaping::<Late>()?.resolve(&[file], &[place])?;
    launch::train::<Flex>(config, DType::F32, &Default::default(), Default::default(), Default::default())?;
    let log = rl::run_folder::read_metrics(&folder.path().join("run/metrics.jsonl"))?;
    // At the last token of the longest response the formula gives this.
    let longest = log[0]["response_length/max"].as_f64().unwrap_or(f64::NAN);
    println!("late/weight_max {}, expected {}", log[0]["late/weight_max"], 1.0 + 0.5 * (1.0 - 1.0 / longest));
    assert_eq!(log[0]["late/weight_max"], 1.0 + 0.5 * (1.0 - 1.0 / longest));
    Ok(())
}
