//! One program: each test program compiles the model and Burn's operations anew.

/// The tests of one backend: generic functions, some with an argument.
macro_rules! on {
    ($backend:ident, $type:ty: $($test:ident $(($argument:expr))?)*) => {
        mod $backend {
            $(
                #[test]
                fn $test() {
                    super::$test::<$type>($($argument)?);
                }
            )*
        }
    };
}

#[path = "../common/mod.rs"]
mod common;
mod gradients;
mod lora;
mod parity;
mod roundtrip;
mod tensor;
