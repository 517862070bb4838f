//! Vectors of floats, and which instructions this processor has for them.
//!
//! A kernel is written once, generic over [`Simd`], and compiled for each set of instructions; [`Instructions::detect`]
//! chooses at run time. Everything is inlined into one function that carries the target feature, so an operation is
//! one instruction there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx512::Avx512;
pub(crate) use self::portable::Portable;

/// A set of vector instructions.
///
/// # Safety
/// Methods of an implementation may only be called where the processor has its instructions; [`dispatch`] sees to it.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` floats.
    type Vector: Copy;
    /// `LANES` unsigned numbers of 32 bits.
    type Bits: Copy;
    /// A yes or no for each lane.
    type Mask: Copy;
    const LANES: usize;

    /// Runs a piece of work as a function of its own, which is compiled once however many call it.
    fn call<W: Vectorized>(work: W) -> W::Output;

    fn splat(value: f32) -> Self::Vector;
    /// The first `LANES` elements.
    fn load(from: &[f32]) -> Self::Vector;
    /// Into the first `LANES` elements.
    fn store(vector: Self::Vector, to: &mut [f32]);
    fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`
    fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The greater of both; `b` where either is not a number.
    fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn abs(a: Self::Vector) -> Self::Vector;
    /// The magnitude of the one with the sign of the other.
    fn copy_sign(magnitude: Self::Vector, sign: Self::Vector) -> Self::Vector;
    /// The sum of the lanes, in an order that depends on the instructions only.
    fn sum(a: Self::Vector) -> f32;
    /// Whether any lane of `a` is above `limit`.
    fn any_above(a: Self::Vector, limit: Self::Vector) -> bool;
    /// `a * 2^n`, where `n` is in the lowest bits of `rounded`'s representation (see `exponential`).
    fn times_power_of_two(a: Self::Vector, rounded: Self::Vector) -> Self::Vector;

    fn load_bits(from: &[u32]) -> Self::Bits;
    fn splat_bits(value: u32) -> Self::Bits;
    fn xor(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn wrapping_mul(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    fn shift_right_16(a: Self::Bits) -> Self::Bits;
    fn shift_left_16(a: Self::Bits) -> Self::Bits;
    /// Lanes where `a` is less than `b`, as unsigned numbers.
    fn below(a: Self::Bits, b: Self::Bits) -> Self::Mask;
    /// The vector where the mask says yes, 0 elsewhere.
    fn keep(mask: Self::Mask, a: Self::Vector) -> Self::Vector;
}

/// Instructions a kernel was compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instructions {
    /// 16 lanes (x86-64 with AVX-512 F and DQ).
    Avx512,
    /// 8 lanes and fused multiply-add (x86-64 with AVX2 and FMA).
    Avx2,
    /// 8 lanes in whatever the compiler makes of them: any processor.
    Portable,
}

impl Instructions {
    /// The widest this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the widest first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut available = Vec::new();
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq") {
                available.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Self::Avx2);
            }
            available.push(Self::Portable);
            available
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Portable]
    }

    /// Floats in a vector.
    pub fn lanes(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Avx512::LANES,
            _ => Portable::LANES,
        }
    }
}

/// Work that is compiled for each set of instructions.
pub(crate) trait Vectorized {
    type Output;

    /// Must be inlined (`#[inline(always)]`), or it is compiled without the instructions.
    ///
    /// - `K`: rows or keys of a tile whose sums stay in registers
    /// - `Q`: queries of a panel, two vectors of them
    fn run<S: Simd, const K: usize, const Q: usize>(self) -> Self::Output;
}

/// Runs work with the instructions asked for.
///
/// # Panics
/// When the processor does not have them: [`Instructions::available`] tells.
pub(crate) fn dispatch<W: Vectorized>(instructions: Instructions, work: W) -> W::Output {
    match instructions {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => {
            assert!(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq"));
            // SAFETY: the processor has the instructions.
            unsafe { with_avx512(work) }
        }
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => {
            assert!(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
            // SAFETY: the processor has the instructions.
            unsafe { with_avx2(work) }
        }
        _ => portably(work),
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn with_avx512<W: Vectorized>(work: W) -> W::Output {
    work.run::<Avx512, 8, 32>()
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
fn with_avx2<W: Vectorized>(work: W) -> W::Output {
    work.run::<Avx2, 4, 16>()
}

#[inline(never)]
fn portably<W: Vectorized>(work: W) -> W::Output {
    work.run::<Portable, 4, 16>()
}
