//! The declarations, by section.

mod algorithm;
mod data;
mod forks;
mod trainer;
mod worker;

use crate::table::KeySection;

const CRITIC: &str = "a critic belongs to adv_estimator = gae, which is refused";
const REFERENCE: &str = "the reference policy is a copy of the weights beside the policy";

/// Every section, EasyR1's own first.
pub(crate) const SECTIONS: &[KeySection] = &[
    KeySection { path: "data", of: EASYR1, keys: data::KEYS, unused: None },
    KeySection { path: "algorithm", of: EASYR1, keys: algorithm::KEYS, unused: None },
    KeySection { path: "worker", of: EASYR1, keys: worker::WORKER, unused: None },
    KeySection { path: "worker.actor", of: EASYR1, keys: worker::ACTOR, unused: None },
    KeySection { path: "worker.actor.model", of: EASYR1, keys: worker::MODEL, unused: None },
    KeySection { path: "worker.actor.model.lora", of: EASYR1, keys: worker::LORA, unused: None },
    KeySection { path: "worker.actor.optim", of: EASYR1, keys: worker::OPTIM, unused: None },
    KeySection { path: "worker.actor.fsdp", of: EASYR1, keys: worker::FSDP, unused: None },
    KeySection { path: "worker.actor.offload", of: EASYR1, keys: worker::OFFLOAD, unused: None },
    KeySection { path: "worker.rollout", of: EASYR1, keys: worker::ROLLOUT, unused: None },
    KeySection { path: "worker.ref", of: EASYR1, keys: worker::REFERENCE, unused: Some(REFERENCE) },
    KeySection { path: "worker.ref.fsdp", of: EASYR1, keys: worker::FSDP, unused: Some(REFERENCE) },
    KeySection { path: "worker.ref.offload", of: EASYR1, keys: worker::OFFLOAD, unused: Some(REFERENCE) },
    KeySection { path: "worker.reward", of: EASYR1, keys: worker::REWARD, unused: None },
    KeySection { path: "worker.critic", of: EASYR1, keys: worker::CRITIC, unused: Some(CRITIC) },
    KeySection { path: "worker.critic.model", of: EASYR1, keys: worker::MODEL, unused: Some(CRITIC) },
    KeySection { path: "worker.critic.model.lora", of: EASYR1, keys: worker::LORA, unused: Some(CRITIC) },
    KeySection { path: "worker.critic.optim", of: EASYR1, keys: worker::OPTIM, unused: Some(CRITIC) },
    KeySection { path: "worker.critic.fsdp", of: EASYR1, keys: worker::FSDP, unused: Some(CRITIC) },
    KeySection { path: "worker.critic.offload", of: EASYR1, keys: worker::OFFLOAD, unused: Some(CRITIC) },
    KeySection { path: "trainer", of: EASYR1, keys: trainer::KEYS, unused: None },
    KeySection { path: "algorithm", of: "VGPO", keys: forks::VGPO, unused: None },
    KeySection { path: "algorithm", of: "VPPO", keys: forks::VPPO, unused: None },
    KeySection { path: "algorithm", of: "VGPO, VPPO", keys: forks::ENTROPY_PENALTY, unused: None },
    KeySection { path: "algorithm", of: "PAPO", keys: forks::PAPO, unused: None },
    KeySection { path: "data", of: "PAPO", keys: forks::PAPO_DATA, unused: None },
    KeySection { path: "trainer", of: "PAPO", keys: forks::PAPO_TRAINER, unused: None },
    KeySection { path: "worker.reward", of: "VGPO, VPPO, PAPO", keys: forks::REWARD, unused: None },
    KeySection { path: "worker.actor.optim", of: "VGPO, VPPO, PAPO", keys: forks::OPTIM, unused: None },
    KeySection { path: "worker.critic.optim", of: "VGPO, VPPO, PAPO", keys: forks::OPTIM, unused: Some(CRITIC) },
];

/// Whose the keys are that every fork has.
pub(crate) const EASYR1: &str = "EasyR1";

/// Declares keys: name, type, default as YAML, what becomes of it.
macro_rules! keys {
    ($( $name:literal : $kind:ident = $default:literal => $fate:expr; )*) => {
        &[$( $crate::table::KeyEntry {
            name: $name,
            kind: $crate::value::ValueKind::$kind,
            default: $default,
            fate: $fate,
        }, )*]
    };
}
pub(crate) use keys;
