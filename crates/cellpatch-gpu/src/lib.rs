//! GPU kernels of the CellPatch models in CubeCL: one source for wgpu and CUDA.
//!
//! The counterpart of `cellpatch-kernels`: the same operations over the same lists, for cards. Every function is generic over
//! CubeCL's runtime, takes handles of memory on the device and gives handles; it knows no deep-learning framework. The models'
//! backend modules join these kernels to Burn's tensors.

pub mod buffer;
pub mod graph;

#[cfg(test)]
mod device;
