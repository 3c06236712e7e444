//! What a configuration knows of each algorithm: its name, its settings and how it is built.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::{Declared, RegistryError, SelectedLoss, built_in};
use crate::advantage::AdvantageEstimator;
use crate::config::checks::Checks;
use crate::config::section::{AnySettings, KeyError, Node, SectionDoc, Value, join};
use crate::config::{Algorithm, Config};
use crate::loss::PolicyLoss;
use crate::shaping::AdvantageShaping;

/// Where an algorithm is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// `algorithm.adv_estimator`.
    Estimator,
    /// `algorithm.shaping`.
    Shaping,
    /// `actor.loss_type`.
    Loss,
}

impl MethodKind {
    /// The key, written whole.
    pub fn key(self) -> &'static str {
        match self {
            Self::Estimator => "algorithm.adv_estimator",
            Self::Shaping => "algorithm.shaping",
            Self::Loss => "actor.loss_type",
        }
    }
}

/// How one algorithm is built. Built-in shapings and losses work on every backend and are built by
/// [`built_in`]; what was added is for one, and is kept without its type.
#[derive(Clone, Copy)]
enum Build {
    Estimator(fn(&Algorithm) -> Box<dyn AdvantageEstimator>),
    BuiltIn,
    /// A `Box<dyn AdvantageShaping<B>>` of the backend that it was added for.
    Shaping(fn(&Algorithm) -> Box<dyn Any>),
    /// A `Box<dyn PolicyLoss<B>>` of the backend that it was added for.
    Loss(fn(&Algorithm) -> Arc<dyn Any + Send + Sync>),
}

struct Method {
    kind: MethodKind,
    name: &'static str,
    settings: Option<Box<dyn AnySettings>>,
    build: Build,
    check: fn(&Config, &mut Checks),
    warn: fn(&Config, &mut Checks),
}

impl Method {
    fn new<D: Declared>(kind: MethodKind, build: Build) -> Self {
        Self { kind, name: D::NAME, settings: D::settings(), build, check: D::check, warn: D::warn }
    }
}

impl Clone for Method {
    fn clone(&self) -> Self {
        let settings = self.settings.as_ref().map(|settings| settings.clone_any());
        Self { settings, ..*self }
    }
}

/// Every algorithm that a configuration may name, with its settings.
///
/// Its sections `[algorithm.NAME]` are keys of the configuration like all others.
#[derive(Clone)]
pub struct Methods(Vec<Method>);

impl Default for Methods {
    /// What is built in, with its defaults.
    fn default() -> Self {
        let mut methods = Self(Vec::new());
        built_in::declare(&mut methods);
        methods
    }
}

/// Equal when the same algorithms have the same settings.
impl PartialEq for Methods {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Method, &Method)| {
            a.kind == b.kind
                && a.name == b.name
                && match (&a.settings, &b.settings) {
                    (Some(a), Some(b)) => a.equals(b.as_ref()),
                    (None, None) => true,
                    _ => false,
                }
        };
        self.0.len() == other.0.len() && std::iter::zip(&self.0, &other.0).all(same)
    }
}

impl std::fmt::Debug for Methods {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.0.iter().map(|method| (method.name, &method.settings))).finish()
    }
}

impl Methods {
    pub(super) fn declare_estimator<E: Declared + AdvantageEstimator>(&mut self) {
        self.0.push(Method::new::<E>(MethodKind::Estimator, Build::Estimator(|algorithm| Box::new(E::new(algorithm)))));
    }

    pub(super) fn declare<D: Declared>(&mut self, kind: MethodKind) {
        self.0.push(Method::new::<D>(kind, Build::BuiltIn));
    }

    pub(super) fn add_estimator<E: Declared + AdvantageEstimator>(&mut self) -> Result<(), RegistryError> {
        self.free::<E>(MethodKind::Estimator)?;
        self.declare_estimator::<E>();
        Ok(())
    }

    pub(super) fn add_shaping<B: Backend, S: Declared + AdvantageShaping<B>>(&mut self) -> Result<(), RegistryError> {
        self.free::<S>(MethodKind::Shaping)?;
        let build: fn(&Algorithm) -> Box<dyn Any> = |algorithm| {
            let shaping: Box<dyn AdvantageShaping<B>> = Box::new(S::new(algorithm));
            Box::new(shaping)
        };
        self.0.push(Method::new::<S>(MethodKind::Shaping, Build::Shaping(build)));
        Ok(())
    }

    pub(super) fn add_loss<B: Backend, L: Declared + PolicyLoss<B>>(&mut self) -> Result<(), RegistryError> {
        self.free::<L>(MethodKind::Loss)?;
        let build: fn(&Algorithm) -> Arc<dyn Any + Send + Sync> = |algorithm| {
            let loss: Box<dyn PolicyLoss<B>> = Box::new(L::new(algorithm));
            Arc::new(loss)
        };
        self.0.push(Method::new::<L>(MethodKind::Loss, Build::Loss(build)));
        Ok(())
    }

    /// Refuses a name that another algorithm of the kind has, and a section that another has or that is a key.
    fn free<D: Declared>(&self, kind: MethodKind) -> Result<(), RegistryError> {
        let refuse = |reason: String| Err(RegistryError { name: D::NAME, reason });
        if self.0.iter().any(|method| method.kind == kind && method.name == D::NAME) {
            return refuse(format!("{} has that value already", kind.key()));
        }
        let section = |method: &Method| method.settings.is_some() && method.name == D::NAME;
        if D::settings().is_some() && (Algorithm::NAMES.contains(&D::NAME) || self.0.iter().any(section)) {
            return refuse(format!("algorithm.{} is a key already", D::NAME));
        }
        Ok(())
    }

    fn find(&self, kind: MethodKind, name: &str) -> Option<&Method> {
        self.0.iter().find(|method| method.kind == kind && method.name == name)
    }

    /// The names of a kind, in the order of the reference.
    pub(crate) fn of_kind(&self, kind: MethodKind) -> Vec<&'static str> {
        self.0.iter().filter(|method| method.kind == kind).map(|method| method.name).collect()
    }

    /// The settings of the type `S`.
    pub fn get<S: 'static>(&self) -> Option<&S> {
        self.0.iter().find_map(|method| method.settings.as_ref()?.as_any().downcast_ref())
    }

    /// The settings of the type `S`, to be changed.
    pub fn get_mut<S: 'static>(&mut self) -> Option<&mut S> {
        self.0.iter_mut().find_map(|method| method.settings.as_mut()?.as_any_mut().downcast_mut())
    }

    /// The names of the sections, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sections().map(|(name, _)| name.to_string()).collect()
    }

    /// The section of that name.
    pub(crate) fn named_mut(&mut self, name: &str) -> Option<&mut dyn AnySettings> {
        let method = self.0.iter_mut().find(|method| method.settings.is_some() && method.name == name)?;
        Some(method.settings.as_mut()?.as_mut())
    }

    fn sections(&self) -> impl Iterator<Item = (&'static str, &dyn AnySettings)> {
        self.0.iter().filter_map(|method| Some((method.name, method.settings.as_deref()?)))
    }

    /// Each section alone, and then what is in force against the rest of the configuration.
    pub(crate) fn validate(&self, config: &Config, checks: &mut Checks) {
        for (name, settings) in self.sections() {
            checks.in_section(&format!("algorithm.{name}"), |checks| settings.validate_any(checks));
        }
        for method in self.in_force(config) {
            (method.check)(config, checks);
        }
    }

    /// Settings that disappoint with what is in force.
    pub(crate) fn warn(&self, config: &Config, checks: &mut Checks) {
        for method in self.in_force(config) {
            (method.warn)(config, checks);
        }
    }

    fn in_force<'a>(&'a self, config: &'a Config) -> impl Iterator<Item = &'a Method> {
        [
            (MethodKind::Estimator, &config.algorithm.adv_estimator),
            (MethodKind::Shaping, &config.algorithm.shaping),
            (MethodKind::Loss, &config.actor.loss_type),
        ]
        .into_iter()
        .filter_map(|(kind, name)| self.find(kind, name))
    }

    /// The estimator of that name; `None` where there is none.
    pub(crate) fn estimator(&self, name: &str, algorithm: &Algorithm) -> Option<Box<dyn AdvantageEstimator>> {
        match self.find(MethodKind::Estimator, name)?.build {
            Build::Estimator(build) => Some(build(algorithm)),
            _ => None,
        }
    }

    /// The shaping of that name; `None` where there is none for `B`.
    pub(crate) fn shaping<B: Backend>(
        &self,
        name: &str,
        algorithm: &Algorithm,
    ) -> Option<Box<dyn AdvantageShaping<B>>> {
        match self.find(MethodKind::Shaping, name)?.build {
            Build::Shaping(build) => build(algorithm).downcast().ok().map(|shaping| *shaping),
            _ => built_in::shaping(name, algorithm),
        }
    }

    /// The policy loss of that name; `None` where there is none.
    pub(crate) fn loss(&self, name: &str, algorithm: &Algorithm) -> Option<SelectedLoss> {
        let method = self.find(MethodKind::Loss, name)?;
        match method.build {
            Build::Loss(build) => Some(SelectedLoss::added(method.name, build(algorithm))),
            _ => SelectedLoss::built_in(name, algorithm),
        }
    }
}

impl Node for Methods {
    // Never whole: [algorithm] asks for one section after the other.
    fn apply(&mut self, path: &str, value: &Value) -> Result<(), KeyError> {
        let Value::Table(table) = value else {
            return Err(KeyError::wrong(path, crate::config::field::mismatch("a table", value)));
        };
        let names = self.names();
        for (name, value) in table {
            let place = join(path, name);
            match self.named_mut(name) {
                Some(section) => section.apply(&place, value)?,
                None => return Err(KeyError::unknown(place, names)),
            }
        }
        Ok(())
    }

    fn apply_text(&mut self, path: &str, rest: &[&str], text: &str) -> Result<(), KeyError> {
        let names = self.names();
        let (name, below) = rest.split_first().ok_or_else(|| KeyError::wrong(path, "is a section"))?;
        let place = join(path, name);
        match self.named_mut(name) {
            Some(section) => section.apply_text(&place, below, text),
            None => Err(KeyError::unknown(place, names)),
        }
    }

    fn write(&self, path: &str, out: &mut String) {
        self.sections().for_each(|(name, settings)| settings.write(&join(path, name), out));
    }

    fn check(&self, path: &str, checks: &mut Checks) {
        self.sections().for_each(|(name, settings)| settings.check(&join(path, name), checks));
    }

    fn describe(&self, path: &str, out: &mut Vec<SectionDoc>) {
        self.sections().for_each(|(name, settings)| settings.describe(&join(path, name), out));
    }
}
