//! Numbers on their way to a device.

use std::any::Any;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use crate::backend::ModelBackend;
use crate::tokens::HostTokens;

/// Numbers that a loader's thread sent to a device ([`ModelBackend::send`]), until the training's thread takes them as a tensor.
///
/// On a card they are copied while it computes something else. Cloning is cheap on a card.
#[derive(Debug, Clone)]
pub struct Sent(Place);

#[derive(Debug, Clone)]
enum Place {
    Host(TensorData),
    Device(Arc<dyn Any + Send + Sync>),
}

impl Sent {
    /// Numbers that stay where they are, where host and device are one.
    pub fn on_host(numbers: TensorData) -> Self {
        Self(Place::Host(numbers))
    }

    /// A backend's own tensor.
    pub fn on_device(tensor: impl Any + Send + Sync) -> Self {
        Self(Place::Device(Arc::new(tensor)))
    }

    /// As floats.
    ///
    /// # Panics
    /// When they were sent for another backend.
    #[expect(clippy::expect_used, reason = "the caller's error, and documented")]
    pub fn floats<B: ModelBackend, const D: usize>(self, device: &B::Device) -> Tensor<B, D> {
        match self.0 {
            Place::Host(numbers) => Tensor::from_data(numbers, device),
            Place::Device(tensor) => crate::operation::tensor(B::take_floats(&*tensor).expect(OTHER_BACKEND)),
        }
    }

    /// As integers.
    ///
    /// # Panics
    /// When they were sent for another backend.
    #[expect(clippy::expect_used, reason = "the caller's error, and documented")]
    pub fn integers<B: ModelBackend, const D: usize>(self, device: &B::Device) -> Tensor<B, D, Int> {
        match self.0 {
            Place::Host(numbers) => Tensor::from_data(numbers, device),
            Place::Device(tensor) => Tensor::from_primitive(B::take_integers(&*tensor).expect(OTHER_BACKEND)),
        }
    }
}

const OTHER_BACKEND: &str = "numbers are taken by the backend for which they were sent";

/// What a device may still read, though no thread will use it again.
///
/// Copies run beside what a card computes, and its memory manager does not know that a kernel still reads what the host let go:
/// the next batch would be copied over it. So whoever takes what was [`Sent`] holds this until a number has come back that
/// was computed after everything that reads it.
#[derive(Debug, Clone, Default)]
pub struct Held(Vec<Arc<dyn Any + Send + Sync>>);

impl Held {
    /// Holds numbers too, and with them the order of the tokens they belong to.
    pub fn hold(&mut self, numbers: &Sent, tokens: Option<&HostTokens>) {
        let Place::Device(tensor) = &numbers.0 else { return };
        self.0.push(Arc::clone(tensor));
        self.0.extend(tokens.map(|tokens| Arc::new(tokens.clone()) as Arc<dyn Any + Send + Sync>));
    }
}
