//! A shaping of one's own, from outside the crate: its settings, its formula, its registration
//! (docs/your-own-algorithm.md).
use burn::tensor::backend::Backend;
use rl::advantage::Advantages;
use rl::config::section::{AnySettings, Settings};
use rl::config::{Algorithm, Checks, Source};
use rl::registry::{self, Declared, Registry};
use rl::shaping::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream, Streams, Training};

rl::section! {
    /// Later tokens of a response get more of its advantage, earlier ones less; the sum stays.
    struct LateConfig {
        /// How much more the last token gets than the middle one: 0.5 is half as much again.
        slope: f64 = 0.5 => ..=1.0,
    }
}

impl Settings for LateConfig {
    fn validate(&self, checks: &mut Checks) {
        checks.not_negative(self.slope, "slope");
    }
}

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
        let of_response = |(i, &n): (usize, &usize)| {
            let plain = batch.advantages.tokens(i, n);
            plain.iter().enumerate().map(|(t, &a)| (f64::from(a) * weight(t, n)) as f32).collect()
        };
        let advantages = batch.lengths.iter().enumerate().map(of_response).collect();
        Ok(Shaped { advantages, ..Shaped::default() })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    type Cpu = burn_flex::Flex;
    let registry = Registry::<Cpu>::built_in().shaping::<Late>()?;
    let file = Source::new(
        "mine.toml",
        "[data]\ntrain_files = [\"toy:sum\"]\n[algorithm]\nshaping = \"late\"\n[algorithm.late]\nslope = 0.5\n",
    );
    // A file, an override and a typing mistake: the new keys are read, printed and named as any other.
    let config = registry.resolve(std::slice::from_ref(&file), &["algorithm.late.slope=1.0".to_string()])?;
    assert!(config.to_toml().contains("[algorithm.late]"));
    println!("{}", registry.resolve(&[file], &["algorithm.late.slop=1".to_string()]).unwrap_err());
    let batch = ShapingBatch {
        advantages: &Advantages::PerResponse(vec![1.0, -1.0]),
        lengths: &[4, 2],
        groups: &[0, 0],
        has_image: &[true, true],
        streams: &Streams::default(),
        training: Training { step: 0, max_steps: 1 },
    };
    let shaped = config.algorithm.build_shaping::<Cpu>()?.shape(&batch, &Default::default())?;
    println!("{:?}", shaped.advantages);
    assert_eq!(shaped.advantages, [vec![0.25, 0.75, 1.25, 1.75], vec![-0.5, -1.5]]);
    Ok(())
}
