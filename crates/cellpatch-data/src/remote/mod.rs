//! What is read from servers.
//!
//! `runtime` is the one place that knows how asynchronous work is done: everything here is a function that waits. `http` asks for
//! single files by their addresses.

mod http;
mod runtime;

pub(crate) use http::{Answer, Refusal, Wanted, get, local_path};
