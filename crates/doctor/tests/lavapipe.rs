//! The doctor on a GPU backend: wgpu on lavapipe, which computes rightly, and one that is given wrong numbers.
#![cfg(feature = "wgpu")]

use burn::tensor::DType;
use doctor::{Examined, Verdict, examine, examine_briefly, fault, refuse_wrong};
use model_qwen2vl::QwenVlConfig;

type B = burn_wgpu::Wgpu<f32, i32>;

fn toy() -> Examined<B> {
    Examined { config: QwenVlConfig::preset("toy").unwrap(), dtype: DType::F32, device: Default::default() }
}

#[test]
fn lavapipe_is_right() {
    let findings = examine(&toy(), |finding| println!("{}", finding.line()));
    assert!(findings.len() > 15);
    let wrong: Vec<String> = findings.iter().filter(|f| f.verdict != Verdict::Right).map(|f| f.line()).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_wrong_device_is_refused() {
    for check in ["products", "rotate", "packed_attention"] {
        let findings = fault::wrong_in(check, || examine_briefly(&toy(), |_| {}));
        let wrong: Vec<&str> = findings.iter().filter(|f| f.verdict == Verdict::Wrong).map(|f| f.name).collect();
        assert_eq!(wrong, [check]);
    }
    let error = fault::wrong_in("products", || refuse_wrong(&toy())).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    assert!(error.to_string().starts_with("WRONG products: "), "{error}");
}
