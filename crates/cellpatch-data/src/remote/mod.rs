//! What is read from servers.
//!
//! `runtime` is the one place that knows how asynchronous work is done: everything here is a function that waits. `http` asks for
//! single files by their addresses. `store` reads folders of S3, GCS, Azure and HTTP servers, `cache` keeps what was read, and
//! `files` brings the files of a shard set from the one into the other.

mod cache;
mod files;
mod http;
mod runtime;
mod store;
#[cfg(test)]
mod tests;

pub use cache::CacheOptions;
pub(crate) use files::RemoteFiles;
pub(crate) use http::{Answer, Refusal, Wanted, get, local_path};
