//! One program: each test program compiles the model and Burn's operations anew.

/// The tests of one backend: generic functions.
macro_rules! on {
    ($backend:ident, $type:ty: $($test:ident)*) => {
        mod $backend {
            $(
                #[test]
                fn $test() {
                    super::$test::<$type>();
                }
            )*
        }
    };
}

mod alarm;
mod bandit;
mod common;
mod credit;
mod dependency;
mod engine;
mod faults;
mod honest;
mod images;
mod learn;
mod masking;
mod oracle;
mod rollout;
mod tokens;
mod values;
