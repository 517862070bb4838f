//! Dropout from a counter: bit for bit what `cellpatch-kernels` draws, in 32-bit arithmetic.

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::memory::argument;

const GOLDEN_RATIO_LOW: u32 = 0x7f4a_7c15;
const GOLDEN_RATIO_HIGH: u32 = 0x9e37_79b9;
const LAST_MULTIPLIER: u32 = 0x846c_a68b;

/// What the dropout of a call is drawn from: two numbers below 2^24 on the device, so that the device may draw them itself.
#[derive(Debug, Clone)]
pub struct Seed {
    halves: Handle,
}

impl Seed {
    /// - seed: below 2^48
    pub fn new<R: Runtime>(client: &ComputeClient<R>, seed: u64) -> Self {
        let halves = [(seed >> 24) as u32 & 0xff_ffff, seed as u32 & 0xff_ffff];
        Self { halves: client.create_from_slice(u32::as_bytes(&halves)) }
    }

    /// Two 32-bit integers, from 0 to 2^24, the higher half first.
    pub fn on_device(halves: Handle) -> Self {
        Self { halves }
    }

    pub(crate) fn argument<R: Runtime>(&self) -> ArrayArg<R> {
        argument(&self.halves, 2, size_of::<u32>())
    }
}

/// The dropout of one call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    threshold: u32,
}

impl Dropout {
    /// The probability is rounded to a multiple of 2^-16.
    pub(crate) fn new(probability: f64) -> Self {
        let threshold = ((1.0 - probability) * 65536.0).round().clamp(1.0, 65536.0);
        Self { threshold: threshold as u32 }
    }

    /// Whether anything is dropped.
    pub(crate) fn drops(&self) -> bool {
        self.threshold < 65536
    }

    pub(crate) fn argument<R: Runtime>(&self) -> DrawnLaunch<R> {
        DrawnLaunch::new(self.threshold, (65536.0 / f64::from(self.threshold)) as f32)
    }
}

/// The dropout of one call, on the device.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct Drawn {
    /// A weight is kept if its 16 random bits are below this.
    threshold: u32,
    /// What a kept weight is multiplied by.
    pub(crate) scale: f32,
}

/// A number of 64 bits.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Wide {
    low: u32,
    high: u32,
}

/// The random state of one row of weights.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct RowState {
    pub(crate) offset: u32,
    pub(crate) multiplier: u32,
}

#[cube]
fn add(a: Wide, b: Wide) -> Wide {
    let low = a.low + b.low;
    let carry = select(low < a.low, 1u32, 0u32);
    Wide { low, high: a.high + b.high + carry }
}

#[cube]
fn xor(a: Wide, b: Wide) -> Wide {
    Wide { low: a.low ^ b.low, high: a.high ^ b.high }
}

/// The lower 64 bits of a product.
#[cube]
fn multiply(a: Wide, low: u32, high: u32) -> Wide {
    Wide { low: a.low * low, high: a.low.mul_hi(low) + a.low * high + a.high * low }
}

/// `a ^ (a >> by)`
#[cube]
fn xor_shifted(a: Wide, #[comptime] by: u32) -> Wide {
    let low = (a.low >> by) | (a.high << comptime!(32 - by));
    Wide { low: a.low ^ low, high: a.high ^ (a.high >> by) }
}

#[cube]
fn golden_ratio() -> Wide {
    Wide {
        low: u32::new(comptime!(GOLDEN_RATIO_LOW as i64)),
        high: u32::new(comptime!(GOLDEN_RATIO_HIGH as i64)),
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
#[cube]
fn mix(bits: Wide) -> Wide {
    let first = xor_shifted(add(bits, golden_ratio()), 30u32);
    let second = xor_shifted(multiply(first, 0x1ce4_e5b9u32, 0xbf58_476du32), 27u32);
    xor_shifted(multiply(second, 0x1331_11ebu32, 0x94d0_49bbu32), 31u32)
}

/// The key of a stream: of one head of one cell, say.
///
/// - seed: of the call, as [`Seed`] keeps it
#[cube]
pub(crate) fn stream_key(seed: &Array<u32>, first: Wide, second: Wide) -> Wide {
    let seed = Wide { low: (seed[0] << 24u32) | seed[1], high: seed[0] >> 8u32 };
    let key = mix(xor(seed, mix(first)));
    mix(xor(key, mix(second)))
}

/// A number below 2^32.
#[cube]
pub(crate) fn wide(low: u32) -> Wide {
    Wide { low, high: 0u32 }
}

/// The highest number of 64 bits: where attention has its head, the output layer has what no head has.
#[cube]
pub(crate) fn last() -> Wide {
    Wide { low: 0xffff_ffffu32, high: 0xffff_ffffu32 }
}

#[cube]
pub(crate) fn row_state(key: Wide, row: u32) -> RowState {
    let bits = mix(add(key, multiply(golden_ratio(), row, 0u32)));
    RowState { offset: bits.low, multiplier: bits.high | 1u32 }
}

/// The random bits of a pair of neighbouring weights: the lower half belongs to the even one.
#[cube]
pub(crate) fn pair_bits(state: RowState, pair: u32) -> u32 {
    let bits = (state.offset ^ (pair * u32::new(comptime!(GOLDEN_RATIO_LOW as i64)))) * state.multiplier;
    let bits = (bits ^ (bits >> 16u32)) * u32::new(comptime!(LAST_MULTIPLIER as i64));
    bits ^ (bits >> 16u32)
}

/// A weight if it is kept, else 0; kept ones are scaled elsewhere.
///
/// - half: 0 for the even weight of a pair, 1 for the odd
#[cube]
pub(crate) fn kept(drawn: &Drawn, bits: u32, half: u32, weight: f32) -> f32 {
    let own = (bits >> (half * 16u32)) & 0xffffu32;
    select(own < drawn.threshold, weight, 0.0f32)
}
