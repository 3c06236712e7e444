//! Between ragged host lists (one list per response) and padded tensors `[R, T]`.

use burn::tensor::{DType, Tensor, TensorData, backend::Backend};

/// Longest of some responses.
pub(crate) fn width(lengths: &[usize]) -> usize {
    lengths.iter().copied().max().unwrap_or(0)
}

/// Ragged lists as a tensor `[R, width]` in f32, 0 in the padding; what is longer than `width` is cut.
pub(crate) fn pad<B: Backend, R: AsRef<[f32]>>(rows: &[R], width: usize, device: &B::Device) -> Tensor<B, 2> {
    let mut values = vec![0_f32; rows.len() * width];
    if width > 0 {
        for (row, cells) in rows.iter().zip(values.chunks_exact_mut(width)) {
            let row = row.as_ref();
            let length = row.len().min(width);
            cells[..length].copy_from_slice(&row[..length]);
        }
    }
    from_host(values, [rows.len(), width], device)
}

/// `[R, width]` in f32: 1 on tokens, 0 in the padding.
pub(crate) fn mask<B: Backend>(lengths: &[usize], width: usize, device: &B::Device) -> Tensor<B, 2> {
    let values =
        lengths.iter().flat_map(|&length| (0..width).map(move |t| if t < length { 1.0 } else { 0.0 })).collect();
    from_host(values, [lengths.len(), width], device)
}

/// The tokens of a padded tensor, one list per response.
///
/// # Errors
/// The device's own, when it cannot be read.
#[cfg(test)]
pub(crate) fn unpad<B: Backend>(tensor: Tensor<B, 2>, lengths: &[usize]) -> Result<Vec<Vec<f32>>, String> {
    let [_, width] = tensor.dims();
    let values: Vec<f32> = tensor
        .cast(DType::F32)
        .try_into_data()
        .map_err(|error| format!("{error:?}"))?
        .into_vec()
        .map_err(|error| format!("{error:?}"))?;
    Ok(lengths.iter().enumerate().map(|(row, &length)| values[row * width..][..length.min(width)].to_vec()).collect())
}

fn from_host<B: Backend>(values: Vec<f32>, shape: [usize; 2], device: &B::Device) -> Tensor<B, 2> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}
