//! Visually-guided policy optimisation (VGPO, arXiv 2604.09349): how much does each generated token look at the picture,
//! and how should that re-weight its advantage?
//!
//! One file an idea, with the paper's equation numbers beside the lines that compute them:
//!
//! | file | equations | idea |
//! |---|---|---|
//! | [`focus`] | 2-4 | visual focus `rho_t`: cosine of a token's last hidden state to the image prototype |
//! | [`compensation`] | 5-6 | late tokens that still look at the picture are raised |
//! | [`intra`] | 7-8 | within a trajectory: tokens that look more than the average of their response |
//! | [`inter`] | 9-11 | within a group: responses that look more than the others |
//! | [`factors`](mod@factors) | 12 | the product, and the switches between them |
//! | [`metrics`] | - | what the paper's figures read |
//!
//! Shapes, everywhere: `R` responses (rows), `T` the longest response, `N` prompt tokens, `d` the model's width, `G` groups.
//! Everything is computed in f32 whatever the backend's float is, and nothing carries a gradient: the weights are constants
//! of the policy loss.

pub mod compensation;
pub mod config;
pub mod factors;
pub mod focus;
pub mod inter;
pub mod intra;
mod layout;
pub mod metrics;

pub use config::{InterScore, PrototypeMode, Schedule, Variant, VgpoConfig, VgpoError};
pub use factors::{Factors, factors, factors_of};
pub use focus::{Prototype, prototype, visual_focus};
pub use layout::Rows;
pub use metrics::FocusMetrics;
