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

mod common;
mod engine;
mod faults;
mod images;
mod learn;
mod rollout;
