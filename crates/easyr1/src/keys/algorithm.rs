//! `algorithm`, as EasyR1 has it; forks add to it.

use super::keys;
use crate::table::{Fate::*, KeyEntry};

pub(crate) const KEYS: &[KeyEntry] = keys! {
    "gamma": Number = "1.0" => Same("algorithm.reinforce_plus_plus.discount");
    "lam": Number = "1.0" => Ignored("it belongs to adv_estimator = gae, which is refused");
    "adv_estimator": Text = "grpo" => Derived(&["algorithm.adv_estimator"],
        "grpo, grpo_passk, reinforce_plus_plus, remax, rloo; PAPO's dapo is grpo; gae needs a critic, which is not \
         there: take another");
    "disable_kl": Bool = "false" => Same("algorithm.disable_kl");
    "use_kl_loss": Bool = "false" => Derived(&["algorithm.use_kl_loss"], "false where disable_kl is true");
    "kl_penalty": Text = "kl" => Derived(&["algorithm.kl_penalty"],
        "kl, abs, mse, low_var_kl; full is refused (EasyR1 sums single log-probs there)");
    "kl_coef": Number = "1e-3" => Same("algorithm.kl_coef");
    "kl_type": Text = "fixed" => Derived(&["algorithm.kl_type"],
        "adaptive holds for the KL term in the reward alone, as in EasyR1");
    "kl_horizon": Number = "10000.0" => Same("algorithm.kl_horizon");
    "kl_target": Number = "0.1" => Same("algorithm.kl_target");
    "online_filtering": Bool = "false" => Same("algorithm.online_filtering");
    "filter_key": Text = "overall" => Derived(&["algorithm.filter_key"],
        "accuracy_normalized of dapo.py is \"accuracy\", which is 0 or 1 here");
    "filter_low": Number = "0.01" => Derived(&["algorithm.filter_low"],
        "by dapo.py's accuracy, -1 or 1 there and 0 or 1 here, the bound is halved and moved by 1/2");
    "filter_high": Number = "0.99" => Derived(&["algorithm.filter_high"],
        "by dapo.py's accuracy, -1 or 1 there and 0 or 1 here, the bound is halved and moved by 1/2");
};
