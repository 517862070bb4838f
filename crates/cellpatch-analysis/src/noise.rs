//! Random numbers from a seed, the same on every machine.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Noise(ChaCha8Rng);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly in 0..1.
    pub(crate) fn even(&mut self) -> f64 {
        self.0.random()
    }

    /// Around 0 with variance 1 (Box and Muller's method).
    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, turn) = ((-2.0 * (1.0 - self.even()).ln()).sqrt(), std::f64::consts::TAU * self.even());
        radius * turn.cos()
    }

    /// Evenly one of `0..n`, `n` above 0.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        // The high half of a product: even to within n / 2^32, without a division.
        ((u64::from(self.0.random::<u32>()) * u64::from(n)) >> 32) as u32
    }
}
