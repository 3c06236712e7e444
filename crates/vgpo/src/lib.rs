//! Visually-guided policy optimisation (VGPO, arXiv 2604.09349): how much does each generated token look at the
//! picture, and how should that re-weight its advantage?
//!
//! One file per idea. Each equation stands once, with its number in parentheses behind the line that computes it:
//!
//! | equation | what it computes | function |
//! |---|---|---|
//! | 2 | image prototype `mu` | [`focus::prototype`] |
//! | 3 | cosine `S` of a token's last hidden state and the prototype | `focus::cosine` |
//! | 4 | visual focus `rho_t` | `focus::focus_of`, for [`visual_focus`] and [`RowPrototypes::visual_focus`] |
//! | 5 | compensated weights `w_t`: late tokens that still look at the picture are raised | `compensation::compensate` |
//! | 6 | gate `G` | `compensation::gate`, with [`compensation::gate_threshold`] |
//! | 7 | weights within a trajectory, min-maxed | `intra::normalised` |
//! | 8 | `psi_t`: tokens that look more than the average of their response | `intra::psi` |
//! | 9 | score `s_i` of a trajectory | `inter::score` |
//! | 10, 11 | `phi_i`: responses that look more than the others of their group | `inter::phi` |
//! | 12 | shaped advantages | [`Factors::shape`] |
//!
//! [`factors_of`] runs 5 to 11 with the switches between them, and with the controls of experiments ([`Control`]);
//! [`metrics`] has what the paper's figures read.
//!
//! ```
//! use burn::tensor::Tensor;
//! use vgpo::{VgpoConfig, factors};
//!
//! // The visual focus of two responses to one prompt, of three tokens and of two.
//! let rho = Tensor::<burn_flex::Flex, 2>::from_floats([[0.5, 0.6, 0.9], [0.5, 0.4, 0.0]], &Default::default());
//! let factors = factors(rho, &[3, 2], &[0, 0], &VgpoConfig::default())?.to_host(&[3, 2])?;
//! assert!(factors.trajectory[0] > factors.trajectory[1]); // the first looks more at the picture,
//! assert!(factors.token[0][2] > factors.token[0][0]); // and its last token most
//! # Ok::<(), vgpo::VgpoError>(())
//! ```
//!
//! Shapes, everywhere: `R` responses (rows), `T` the longest response, `N` prompt tokens, `d` the model's width, `G`
//! groups. Everything is computed in f32 whatever the backend's float is, and nothing carries a gradient: the weights
//! are constants of the policy loss.

pub mod compensation;
pub mod config;
mod control;
mod factors;
pub mod focus;
mod inter;
mod intra;
mod layout;
pub mod metrics;

pub use config::{Control, InterScore, PrototypeMode, Schedule, Variant, VgpoConfig, VgpoError};
pub use factors::{Factors, HostFactors, factors, factors_of};
pub use focus::{FOCUS_EPS, Prototype, RowPrototypes, prototype, visual_focus};
pub use layout::Responses;
pub use metrics::FocusMetrics;
