//! A launch that no device accepts.

use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// Does nothing that anybody could see.
#[cube(launch_unchecked)]
fn touch(out: &mut Array<f32>) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = 1.0f32;
    }
}

/// Queues a kernel whose cubes have more units than any hardware takes.
pub(super) fn launch<R: CubeRuntime>(device: &R::Device) {
    let client = R::client(device);
    let len = 4;
    let out = client.empty(len * size_of::<f32>());
    // SAFETY: the array is as long as its buffer, and the kernel stays inside.
    unsafe {
        let out = ArrayArg::from_raw_parts(out, len);
        touch::launch_unchecked::<R>(&client, CubeCount::Static(1, 1, 1), CubeDim { x: 1 << 16, y: 1, z: 1 }, out);
    }
}
