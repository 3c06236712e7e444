//! The algorithms of this crate: one line for each.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::{Declared, MethodKind, Methods};
use crate::advantage::{DrGrpo, Grpo, GrpoPassk, ReinforcePlusPlus, Remax, Rloo};
use crate::config::Algorithm;
use crate::loss::{Cispo, Gspo, GspoToken, LossError, PolicyLoss, Ppo, Sapo};
use crate::shaping::{AdvantageShaping, EntropyAdvantage, NoShaping, Pepo, Pgpo, Srpo, Vgpo, Vppo};

/// From one list both what the configuration reader needs, which knows no backend, and what builds on any backend.
macro_rules! built_in {
    (
        estimators { $( $estimator:ident, )* }
        shapings { $( $shaping:ident, )* }
        losses { $( $loss:ident, )* }
    ) => {
        pub(super) fn declare(methods: &mut Methods) {
            $( methods.declare_estimator::<$estimator>(); )*
            $( methods.declare::<$shaping>(MethodKind::Shaping); )*
            $( methods.declare::<$loss>(MethodKind::Loss); )*
        }

        pub(super) fn shaping<B: Backend>(name: &str, algorithm: &Algorithm) -> Option<Box<dyn AdvantageShaping<B>>> {
            match name {
                $( <$shaping as Declared>::NAME => Some(Box::new(<$shaping as Declared>::new(algorithm))), )*
                _ => None,
            }
        }

        #[derive(Clone, Debug, PartialEq)]
        enum BuiltIn {
            $( $loss($loss), )*
        }

        impl BuiltIn {
            fn new(name: &str, algorithm: &Algorithm) -> Option<(&'static str, Self)> {
                match name {
                    $( <$loss as Declared>::NAME => {
                        Some((<$loss as Declared>::NAME, Self::$loss(<$loss as Declared>::new(algorithm))))
                    } )*
                    _ => None,
                }
            }

            fn on<B: Backend>(&self) -> &dyn PolicyLoss<B> {
                match self {
                    $( Self::$loss(loss) => loss, )*
                }
            }
        }
    };
}

built_in! {
    estimators {
        Grpo,
        DrGrpo,
        Rloo,
        Remax,
        ReinforcePlusPlus,
        GrpoPassk,
    }
    shapings {
        NoShaping,
        Vgpo,
        Vppo,
        Pgpo,
        Pepo,
        Srpo,
        EntropyAdvantage,
    }
    losses {
        Ppo,
        Gspo,
        GspoToken,
        Cispo,
        Sapo,
    }
}

/// The policy loss that a configuration names, before the backend is known that it is computed on.
#[derive(Clone)]
pub struct SelectedLoss {
    name: &'static str,
    loss: Selected,
}

#[derive(Clone)]
enum Selected {
    BuiltIn(BuiltIn),
    /// A `Box<dyn PolicyLoss<B>>`.
    Added(Arc<dyn Any + Send + Sync>),
}

impl SelectedLoss {
    /// The built-in loss of that name; `None` where there is none.
    pub fn built_in(name: &str, algorithm: &Algorithm) -> Option<Self> {
        BuiltIn::new(name, algorithm).map(|(name, loss)| Self { name, loss: Selected::BuiltIn(loss) })
    }

    pub(super) fn added(name: &'static str, loss: Arc<dyn Any + Send + Sync>) -> Self {
        Self { name, loss: Selected::Added(loss) }
    }

    /// The name in a configuration.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The loss on the autodiff backend `B`.
    ///
    /// # Errors
    /// [`LossError::Config`] for a loss that was added for another backend.
    pub fn on<B: Backend>(&self) -> Result<&dyn PolicyLoss<B>, LossError> {
        match &self.loss {
            Selected::BuiltIn(loss) => Ok(loss.on()),
            Selected::Added(loss) => {
                loss.downcast_ref::<Box<dyn PolicyLoss<B>>>().map(|loss| loss.as_ref()).ok_or(LossError::Config {
                    key: "loss_type",
                    value: self.name.to_string(),
                    reason: "was added to the registry of another backend than the one that trains",
                })
            }
        }
    }
}

/// The clipped surrogate of PPO.
impl Default for SelectedLoss {
    fn default() -> Self {
        Self { name: Ppo::NAME, loss: Selected::BuiltIn(BuiltIn::Ppo(Ppo)) }
    }
}

/// Equal names, and equal settings where those are known.
impl PartialEq for SelectedLoss {
    fn eq(&self, other: &Self) -> bool {
        match (&self.loss, &other.loss) {
            (Selected::BuiltIn(a), Selected::BuiltIn(b)) => a == b,
            (Selected::Added(a), Selected::Added(b)) => self.name == other.name && Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl std::fmt::Debug for SelectedLoss {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}
