//! The doctor on the CPU, where it looks at itself: all is right, and every check sees a device that is given wrong
//! numbers.

use burn::tensor::DType;
use doctor::{Examined, Finding, Verdict, examine, examine_briefly, fault, refuse_wrong};
use kernels::Kernels;
use model_qwen2vl::QwenVlConfig;

type B = burn_flex::Flex<f32, i32>;

fn of<B: Kernels>(preset: &str, dtype: DType) -> Examined<B> {
    Examined { config: QwenVlConfig::preset(preset).unwrap(), dtype, device: Default::default() }
}

fn wrong(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|f| f.verdict != Verdict::Right).map(|f| f.name).collect()
}

#[test]
fn the_cpu_is_right() {
    // A family with windows, biases and tied heads, one with norms of queries and keys and DeepStack; and 16 bits.
    for (preset, dtype) in [("toy", DType::F32), ("qwen3vl-toy", DType::F32), ("toy", DType::BF16)] {
        let findings = examine(&of::<B>(preset, dtype), |finding| println!("{}", finding.line()));
        assert!(wrong(&findings).is_empty(), "{preset} in {dtype:?}: {findings:#?}");
        assert!(findings.iter().filter(|f| f.largest.is_some()).count() > 15);
    }
}

#[test]
fn every_check_sees_a_wrong_number() {
    let toy = of::<B>("toy", DType::F32);
    let names: Vec<&'static str> = examine(&toy, |_| {}).iter().map(|f| f.name).collect();
    for name in names.into_iter().filter(|name| *name != "speed") {
        let findings = fault::wrong_in(name, || examine(&toy, |_| {}));
        assert_eq!(wrong(&findings), [name]);
        let finding = findings.iter().find(|f| f.name == name).unwrap();
        let line = finding.line();
        assert!(line.starts_with("WRONG ") && line.contains("do not train on this device"), "{line}");
    }
}

#[test]
fn a_run_does_not_begin_on_a_wrong_device() {
    let toy = of::<B>("toy", DType::F32);
    assert!(wrong(&examine_briefly(&toy, |_| {})).is_empty());
    refuse_wrong(&toy).unwrap();
    let error = fault::wrong_in("swiglu", || refuse_wrong(&toy)).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let said = error.to_string();
    for part in ["WRONG swiglu: ", "largest difference", "trainer.check_device = false"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}
