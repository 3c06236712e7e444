//! Which algorithms there are: one list of what is built in (`built_in`), and a way to add more from outside.
//!
//! An algorithm stands in one file with its name, its settings and how it is built from a configuration ([`Declared`]).
//! A configuration holds the settings of all of them ([`Methods`]), so those of an added one are read, printed, checked
//! and named in errors as any other, and [`Algorithm::build_shaping`](crate::config::Algorithm::build_shaping) and its
//! siblings build what `algorithm.shaping`, `algorithm.adv_estimator` and `actor.loss_type` name.
//!
//! ```
//! use rl::registry::Registry;
//! use rl::shaping::Stream;
//! type Cpu = burn_flex::Flex;
//! let registry = Registry::<Cpu>::built_in();
//! let overrides = ["data.train_files=toy:sum".to_string(), "algorithm.shaping=pgpo".to_string()];
//! let config = registry.resolve(&[], &overrides).unwrap();
//! let shaping = config.algorithm.build_shaping::<Cpu>().unwrap();
//! assert_eq!(shaping.streams(), [Stream::TokenVisualDependency]);
//! ```

mod built_in;
mod methods;

/// What an algorithm from outside is written and added with; see `examples/own_shaping.rs`.
pub mod prelude {
    pub use super::{Declared, Registry, settings};
    pub use crate::advantage::{AdvantageError, AdvantageEstimator, AdvantageInputs, Advantages};
    pub use crate::config::section::{AnySettings, Settings};
    pub use crate::config::{Algorithm, Source};
    pub use crate::loss::{PolicyInputs, PolicyLoss, Terms};
    pub use crate::shaping::{AdvantageShaping, Shaped, ShapingBatch, ShapingError, Stream};
}

pub use built_in::SelectedLoss;
pub use methods::{MethodKind, Methods};

use std::marker::PhantomData;

use burn::backend::Autodiff;
use burn::tensor::backend::Backend;

use crate::advantage::AdvantageEstimator;
use crate::config::checks::Checks;
use crate::config::section::AnySettings;
use crate::config::{Algorithm, Config, ConfigError, Source, resolve_with};
use crate::loss::PolicyLoss;
use crate::shaping::AdvantageShaping;

/// What an algorithm says of itself, beside what it computes.
pub trait Declared: Sized + Send + Sync + 'static {
    /// The name in a configuration, and of its section `[algorithm.NAME]` where it has settings.
    const NAME: &'static str;

    /// Its settings with their defaults; `None` where it has no keys of its own. See [`settings`].
    fn settings() -> Option<Box<dyn AnySettings>> {
        None
    }

    /// The algorithm as a configuration wants it.
    fn new(algorithm: &Algorithm) -> Self;

    /// What contradicts other settings while this algorithm is in force. Keys are written whole.
    fn check(config: &Config, checks: &mut Checks) {
        let _ = (config, checks);
    }

    /// What can be used with this algorithm but is known to disappoint. Keys are written whole.
    fn warn(config: &Config, checks: &mut Checks) {
        let _ = (config, checks);
    }
}

/// The settings of a [`Declared`] algorithm: those of the type `S` with their defaults.
pub fn settings<S: crate::config::section::Settings>() -> Option<Box<dyn AnySettings>> {
    Some(Box::new(S::default()))
}

/// Two algorithms with one name, or one that hides a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an algorithm named \"{name}\" cannot be added: {reason}")]
pub struct RegistryError {
    /// The name.
    pub name: &'static str,
    /// What has it already.
    pub reason: String,
}

/// The algorithms of a program that trains on `B`: those that are built in and those that were added.
#[derive(Clone, Debug)]
pub struct Registry<B> {
    methods: Methods,
    backend: PhantomData<fn() -> B>,
}

impl<B: Backend> Registry<B> {
    /// The algorithms of this crate.
    pub fn built_in() -> Self {
        Self { methods: Methods::default(), backend: PhantomData }
    }

    /// Adds an estimator: a value of `algorithm.adv_estimator`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn estimator<E: Declared + AdvantageEstimator>(mut self) -> Result<Self, RegistryError> {
        self.methods.add_estimator::<E>()?;
        Ok(self)
    }

    /// Adds a shaping: a value of `algorithm.shaping`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn shaping<S: Declared + AdvantageShaping<B>>(mut self) -> Result<Self, RegistryError> {
        self.methods.add_shaping::<B, S>()?;
        Ok(self)
    }

    /// Adds a policy loss: a value of `actor.loss_type`.
    ///
    /// # Errors
    /// A name that is taken.
    pub fn loss<L: Declared + PolicyLoss<Autodiff<B>>>(mut self) -> Result<Self, RegistryError> {
        self.methods.add_loss::<Autodiff<B>, L>()?;
        Ok(self)
    }

    /// [`resolve`](crate::config::resolve) with the keys and names of the added algorithms.
    ///
    /// # Errors
    /// As [`resolve`](crate::config::resolve).
    pub fn resolve(&self, files: &[Source], overrides: &[String]) -> Result<Config, ConfigError> {
        resolve_with(&self.methods, files, overrides)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{PolicyInputs, Terms};

    crate::section! {
        /// Settings of a loss that nobody has.
        pub(crate) struct OwnConfig {
            /// A number.
            width: f64 = 0.5 => 0.0..=1.0,
        }
    }

    impl crate::config::section::Settings for OwnConfig {
        fn validate(&self, _: &mut Checks) {}
    }

    macro_rules! loss {
        ($name:ident, $text:literal) => {
            struct $name;
            impl Declared for $name {
                const NAME: &'static str = $text;
                fn settings() -> Option<Box<dyn AnySettings>> {
                    settings::<OwnConfig>()
                }
                fn new(_: &Algorithm) -> Self {
                    Self
                }
            }
            impl<B: Backend> PolicyLoss<B> for $name {
                fn terms(&self, inputs: PolicyInputs<B>) -> Terms<B> {
                    Terms { loss: inputs.log_ratio * inputs.advantages, clips: None }
                }
            }
        };
    }
    loss!(Taken, "ppo");
    loss!(HidesASection, "vgpo");
    loss!(HidesAKey, "shaping");
    loss!(Own, "own");

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let add = |registry: Result<Registry<burn_flex::Flex>, RegistryError>| registry.map_err(|e| e.to_string());
        let refused = |registry, what: &str| {
            let error = add(registry).expect_err(what);
            assert!(error.contains(what), "{error}");
        };
        let built_in = Registry::built_in;
        refused(built_in().loss::<Taken>(), "actor.loss_type has that value already");
        refused(built_in().loss::<HidesASection>(), "algorithm.vgpo is a key already");
        refused(built_in().loss::<HidesAKey>(), "algorithm.shaping is a key already");
        let own = add(built_in().loss::<Own>()).unwrap();
        refused(own.clone().loss::<Own>(), "actor.loss_type has that value already");
        let overrides = ["data.train_files=[\"toy:sum\"]", "actor.loss_type=own", "algorithm.own.width=0.25"];
        let config = own.resolve(&[], &overrides.map(String::from)).unwrap();
        assert_eq!(config.algorithm.section::<OwnConfig>().width, 0.25);
        let outside = crate::config::resolve(&[], &overrides.map(String::from)).unwrap_err().to_string();
        assert!(outside.contains("actor.loss_type=own"), "{outside}");
    }
}
