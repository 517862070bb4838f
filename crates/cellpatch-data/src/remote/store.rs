//! Folders on S3, GCS, Azure and HTTP servers.

use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};
use reqwest::Url;

use super::http::{CONNECTING, SILENCE, innermost};
use super::runtime::{prepare, wait};
use crate::error::{Error, Result};
use crate::transfer_failure::TransferFailure;

/// A folder of a store.
#[derive(Debug)]
pub(super) struct Store {
    url: String,
    store: Box<dyn ObjectStore>,
    folder: Path,
}

impl Store {
    /// The folder of an address: `s3://`, `gs://`, `az://`, `https://` or `http://`.
    ///
    /// - `environment`: where credentials and other settings are, under the names that the stores' own tools use
    ///
    /// # Errors
    /// [`Error::Transfer`] if it is no such address, or what the environment says makes no sense.
    pub(super) fn open(url: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        prepare();
        let url = url.trim_end_matches('/').to_owned();
        let bad = |reason: String| Error::Transfer {
            url: url.clone(),
            failure: TransferFailure::BadUrl { reason },
        };
        let parsed = Url::parse(&url).map_err(|error| bad(error.to_string()))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("it has a query or a fragment: give the folder alone".into()));
        }
        let folder = Path::from_url_path(parsed.path()).map_err(|error| bad(error.to_string()))?;
        let retry = RetryConfig {
            backoff: BackoffConfig { init_backoff: Duration::from_millis(200), ..BackoffConfig::default() },
            max_retries: 6,
            retry_timeout: Duration::from_secs(120),
        };
        // However large a file is, it must only not stand still.
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(CONNECTING)
            .with_read_timeout(SILENCE)
            .with_allow_http(matches!(parsed.scheme(), "http"));
        macro_rules! store {
            ($builder:ty, $prefix:literal) => {{
                let mut builder =
                    <$builder>::new().with_client_options(client).with_retry(retry).with_url(&url);
                for (key, value) in environment.filter(|(key, _)| key.starts_with($prefix)) {
                    // Variables that other programs read are of no concern.
                    if let Ok(key) = key.to_ascii_lowercase().parse() {
                        builder = builder.with_config(key, value);
                    }
                }
                builder.build().map(|store| Box::new(store) as Box<dyn ObjectStore>)
            }};
        }
        let store = match parsed.scheme() {
            "s3" | "s3a" => store!(AmazonS3Builder, "AWS_"),
            "gs" => store!(GoogleCloudStorageBuilder, "GOOGLE_"),
            "az" | "azure" | "abfs" | "abfss" => store!(MicrosoftAzureBuilder, "AZURE_"),
            "http" | "https" => {
                let server = parsed.origin().ascii_serialization();
                let builder =
                    HttpBuilder::new().with_url(server).with_client_options(client).with_retry(retry);
                builder.build().map(|store| Box::new(store) as Box<dyn ObjectStore>)
            }
            scheme => return Err(bad(format!("{scheme}:// is not one of s3, gs, az, https and http"))),
        };
        let store = store.map_err(|error| bad(error.to_string()))?;
        Ok(Self { url, store, folder })
    }

    /// The address.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Reads a file of the folder, a piece at a time.
    ///
    /// # Errors
    /// [`Error::Transfer`], and what `take` says.
    pub(super) fn read(&self, name: &str, take: &mut dyn FnMut(Bytes) -> Result<()>) -> Result<()> {
        let path = self.folder.clone().join(name);
        wait(async {
            let answer = self.store.get(&path).await.map_err(|error| self.failed(name, 0, &error))?;
            let mut pieces = answer.into_stream();
            let mut received = 0;
            while let Some(piece) = pieces.next().await {
                let piece = piece.map_err(|error| self.failed(name, received, &error))?;
                received += piece.len() as u64;
                take(piece)?;
            }
            Ok(())
        })?
    }

    fn failed(&self, name: &str, received: u64, error: &object_store::Error) -> Error {
        use object_store::Error as StoreError;
        let reason = innermost(error);
        let failure = match error {
            StoreError::NotFound { .. } => TransferFailure::NotFound,
            StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
                TransferFailure::Denied { reason }
            }
            // Where a store's machines would give credentials, nobody answered.
            _ if ["169.254.", "metadata.google"].iter().any(|server| error.to_string().contains(server)) => {
                TransferFailure::Denied { reason: "no credentials were found".into() }
            }
            _ => match connection(error) {
                None if status(&reason).is_some() => {
                    TransferFailure::Status { status: status(&reason).unwrap_or_default() }
                }
                Some(HttpErrorKind::Connect | HttpErrorKind::Timeout) if received == 0 => {
                    TransferFailure::Unreachable { reason }
                }
                _ => TransferFailure::Interrupted { received, expected: None, reason },
            },
        };
        Error::Transfer { url: format!("{}/{name}", self.url), failure }
    }
}

/// The status of an answer, which the library gives in its text alone.
fn status(reason: &str) -> Option<u16> {
    let (_, rest) = reason.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// What the connection did, if it was the connection.
fn connection(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}
