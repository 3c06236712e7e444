//! Matrix products on the GPU backends beside sums in f64 on the host: every contraction from 1 to 600 in the three
//! layouts of a linear layer, with NaN behind the operands wherever memory may hold it.

use burn::tensor::{DType, ElementConversion, Tensor, TensorData};
use kernels::Kernels;
use kernels::params::cast_to;

/// Elements of NaN before and behind the rows and columns of an operand: as many as keep it a view, which begins and
/// ends where the memory of a binding may.
const MARGIN: usize = 64;

/// The values of an operand: multiples of 1/8 below 1, exact in every type and summed without error in f32.
fn values(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as f32 / 8.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// `data [rows, columns]` as a view into a larger matrix whose every other element is NaN.
fn among_nan<B: Kernels>(data: &[f32], [rows, columns]: [usize; 2], dtype: DType) -> Tensor<B, 2> {
    let width = columns + 2 * MARGIN;
    let mut all = vec![f32::NAN; (rows + 2 * MARGIN) * width];
    for (r, row) in data.chunks(columns).enumerate() {
        let first = (MARGIN + r) * width + MARGIN;
        all[first..first + columns].copy_from_slice(row);
    }
    let all = Tensor::<B, 2>::from_data(TensorData::new(all, [rows + 2 * MARGIN, width]), &Default::default());
    cast_to(all, dtype).slice([MARGIN..MARGIN + rows, MARGIN..MARGIN + columns])
}

/// `a b` of row-major `a [m, k]` and `b [k, n]`.
fn sums(a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0f32; m * n];
    for (row, a) in out.chunks_mut(n).zip(a.chunks(k)) {
        for (a, b) in a.iter().zip(b.chunks(n)) {
            row.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
        }
    }
    out
}

fn turned(x: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| x[r * columns + c])).collect()
}

/// Not one value may differ: sums of multiples of 1/64 below 2^18 are exact in f32, their rounding to 16 bits is not.
fn compare<B: Kernels>(got: Tensor<B, 2>, want: &[f32], dtype: DType, what: &str) {
    let allowed = match dtype {
        DType::F32 => 0.0,
        DType::F16 => 1.0 / 1024.0,
        _ => 1.0 / 128.0,
    };
    assert_eq!(got.dtype(), dtype, "{what}");
    let got = got.into_data().convert::<f32>().to_vec::<f32>().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= allowed * want.abs(), "{what}: {got}, not {want}, at {i}");
    }
}

/// `x W^T`, `x W` and `dy^T x` of contraction `k` with `m` and `n` other rows and columns.
fn three_layouts<B: Kernels>([m, k, n]: [usize; 3], dtype: DType) {
    let (a, b) = (values(m * k, k as u32), values(k * n, 7 + n as u32));
    let want = sums(&a, &b, [m, k, n]);
    let what = |layout: &str| format!("{layout} of [{m}, {k}] and [{k}, {n}] in {dtype:?}");
    let x = among_nan::<B>(&a, [m, k], dtype);
    let weight = among_nan::<B>(&turned(&b, [k, n]), [n, k], dtype);
    compare(B::affine(x.clone(), &weight, None), &want, dtype, &what("x W^T"));
    let b = among_nan::<B>(&b, [k, n], dtype);
    compare(B::matmul(x, b.clone()), &want, dtype, &what("x W"));
    let dy = among_nan::<B>(&turned(&a, [m, k]), [k, m], dtype);
    compare(B::weight_gradient(dy, b), &want, DType::F32, &what("dy^T x"));
}

/// Rows and columns, which the contractions take in turn.
const SIZES: [[usize; 2]; 8] = [[1, 130], [3, 70], [64, 64], [70, 33], [8, 256], [200, 96], [17, 1], [96, 200]];

pub(crate) fn contractions<B: Kernels>() {
    let has_f16 = B::supports_dtype(&Default::default(), DType::F16);
    for k in 1..=600 {
        let [m, n] = SIZES[k % SIZES.len()];
        three_layouts::<B>([m, k, n], DType::F32);
        // Sizes meet the multiples of 8 among the contractions only with the first of them.
        if k % 8 == 0 {
            let [m, n] = SIZES[(k / 8) % SIZES.len()];
            three_layouts::<B>([m, k, n], DType::F32);
        }
        if has_f16 && k % 5 == 0 {
            let [m, n] = SIZES[k / 5 % SIZES.len()];
            three_layouts::<B>([m, k, n], DType::F16);
        }
    }
}

/// Few rows and a long contraction, which is split: with a bias, and as the parts that are left.
pub(crate) fn few_rows<B: Kernels>() {
    for [m, k, n] in [[1, 4096, 64], [8, 2048, 130], [64, 3584, 96], [100, 1024, 257], [129, 1024, 64]] {
        let (a, b) = (values(m * k, 3), values(k * n, 4));
        let want = sums(&a, &b, [m, k, n]);
        let what = format!("few rows: [{m}, {k}] and [{k}, {n}]");
        let x = among_nan::<B>(&a, [m, k], DType::F32);
        let weight = among_nan::<B>(&turned(&b, [k, n]), [n, k], DType::F32);
        let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let plus: Vec<f32> = want.iter().enumerate().map(|(i, y)| y + bias[i % n]).collect();
        let bias = Tensor::<B, 1>::from_data(TensorData::new(bias, [n]), &Default::default());
        compare(B::affine(x.clone(), &weight, Some(&bias)), &plus, DType::F32, &what);
        let parts = B::partial_affine(x, &weight);
        let [s, ..] = parts.dims();
        assert_eq!((parts.dims(), s > 1), ([s, m, n], m <= 128), "{what}");
        compare(parts.sum_dim(0).reshape([m, n]), &want, DType::F32, &what);
    }
}

pub(crate) fn batches<B: Kernels>() {
    // Batches, among them one matrix for all; views whose last two dimensions are turned, and one that must be copied.
    for (z, m, k, n) in [(1, 5, 7, 3), (4, 33, 72, 40), (3, 64, 24, 65), (2, 1, 128, 9)] {
        let [a, b] = [(m * k, 1), (k * n, 2)].map(|(count, seed)| values(z * count, seed));
        let want: Vec<f32> =
            (0..z).flat_map(|i| sums(&a[i * m * k..][..m * k], &b[i * k * n..][..k * n], [m, k, n])).collect();
        let make = |x: &[f32], shape: [usize; 3]| {
            Tensor::<B, 3>::from_data(TensorData::new(x.to_vec(), shape), &Default::default())
        };
        let (ta, tb) = (make(&a, [z, m, k]), make(&b, [z, k, n]));
        let check = |got: Tensor<B, 3>, what: &str| {
            assert_eq!(got.dims(), [z, m, n]);
            compare(got.reshape([z * m, n]), &want, DType::F32, &format!("{what}, {z} of [{m}, {k}] and [{k}, {n}]"));
        };
        check(B::matmul(ta.clone(), tb.clone()), "batches");
        let columns = tb.clone().swap_dims(1, 2).mul_scalar(1.0).swap_dims(1, 2);
        check(B::matmul(ta.clone(), columns), "turned");
        let heads = ta.clone().swap_dims(0, 1).mul_scalar(1.0).swap_dims(0, 1);
        check(B::matmul(heads, tb.clone()), "batches between rows");
        let twice = ta.clone().repeat_dim(2, 2).reshape([z, m, k, 2]);
        let gaps = Tensor::cat(vec![ta.clone().unsqueeze_dim::<4>(3), twice.slice([0..z, 0..m, 0..k, 0..1])], 3);
        check(B::matmul(gaps.slice([0..z, 0..m, 0..k, 0..1]).reshape([z, m, k]), tb.clone()), "gaps");
        let one = tb.clone().slice([0..1, 0..k, 0..n]);
        let all = one.clone().repeat_dim(0, z);
        let [got, want] = [one, all].map(|b| B::matmul(ta.clone(), b).into_data().to_vec::<f32>().unwrap());
        assert_eq!(got, want, "one matrix for all");
    }
    let zeros = |shape| Tensor::<B, 2>::zeros(shape, &Default::default());
    assert_eq!(B::matmul(zeros([0, 4]), zeros([4, 3])).dims(), [0, 3]);
    let sum: f32 = B::matmul(zeros([2, 0]), zeros([0, 3])).sum().into_scalar().elem();
    assert_eq!(sum, 0.0, "a sum of nothing");
    assert_eq!(B::weight_gradient(zeros([0, 4]), zeros([0, 3])).dims(), [4, 3]);
}

/// The operands of these tests show the fault that the table of strategies is there to keep out: cubek's
/// double-buffered kernel takes an odd number of stages for an even one and adds the NaN behind them.
#[cfg(feature = "wgpu")]
#[test]
fn the_fault_of_double_buffering_is_noticed() {
    use burn::tensor::TensorPrimitive;
    use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
    use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
    use cubek::matmul::launch::{Strategy, launch_ref};
    use cubek::std::InputBinding;

    type Gpu = burn_wgpu::Wgpu<f32, i32>;
    let (m, n) = (64, 64);
    let product = |k: usize, strategy: &Strategy| {
        let (a, b) = (values(m * k, 1), values(k * n, 2));
        let want = sums(&a, &b, [m, k, n]);
        let [a, b] = [(a, [m, k]), (b, [k, n])]
            .map(|(x, shape)| among_nan::<Gpu>(&x, shape, DType::F32).into_primitive().tensor());
        let (client, device) = (a.client.clone(), a.device.clone());
        let out = empty_device_contiguous_dtype(client.clone(), device, [m, n].into(), DType::F32);
        let f32s = || DType::F32.into();
        let mut types = MatmulElems::from_globals(&MatmulGlobalElems { lhs: f32s(), rhs: f32s(), out: f32s() });
        let [a, b] = [a, b].map(|x| InputBinding::new(x.binding(), f32s()));
        launch_ref(strategy, &client, a, b, out.clone().binding(), &mut types).unwrap();
        let got = Tensor::<Gpu, 2>::from_primitive(TensorPrimitive::Float(out)).into_data().to_vec::<f32>().unwrap();
        got == want
    };
    let contractions = || (8..=136).step_by(8);
    let simple = Strategy::SimpleUnit(Default::default());
    assert!(contractions().all(|k| product(k, &simple)), "one stage at a time is right");
    let double = Strategy::DoubleUnit(Default::default());
    let wrong: Vec<usize> = contractions().filter(|k| !product(*k, &double)).collect();
    println!("wrong contractions of a double-buffered product: {wrong:?}");
    assert!(!wrong.is_empty(), "no product is wrong: these tests would not see a fault");
}
