//! GPU kernels of the CellPatch models in CubeCL: one source for wgpu and CUDA.
//!
//! The counterpart of `cellpatch-kernels`: the same operations over the same lists, for cards. Every function is generic over
//! CubeCL's runtime, takes handles of memory on the device and gives handles; it knows no deep-learning framework. The models'
//! backend modules join these kernels to Burn's tensors.
//!
//! What a gradient sums has one owner, which sums it in one order: there are no atomic operations, and a call gives the same bits
//! every time. Nothing depends on planes (warps, subgroups), but for attention by tensor cores: workgroups share memory and barriers
//! only. Floats are stored as the call says (`f32`, `f16`, `bf16`) and computed with as `f32`.

#![allow(unsafe_code, reason = "kernels are launched over raw memory; the functions check its size")]

pub mod adam;
pub mod ahead;
pub mod attention;
pub mod block;
pub mod buffer;
pub mod cuda_headers;
pub mod dropout;
pub mod feedforward;
pub mod genes;
pub mod graph;
pub mod matrix;
pub mod memory;
pub mod output;
mod sum;
mod tile;
mod vector;
mod workgroup;

#[cfg(test)]
mod device;
