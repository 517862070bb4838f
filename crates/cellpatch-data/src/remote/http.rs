//! Single files over HTTP.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_RANGE, LAST_MODIFIED, RANGE, RETRY_AFTER,
};
use reqwest::{Client, StatusCode, Url};

use super::runtime::wait;
use crate::error::{Error, Result};
use crate::transfer_failure::TransferFailure;

/// A server that says nothing for this long is taken for dead.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
pub(super) const CONNECTING: Duration = Duration::from_secs(30);

static CLIENT: OnceLock<Client> = OnceLock::new();

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) url: &'a str,
    /// From where on, and what the server called the version that the first bytes are of.
    pub(crate) rest: Option<(u64, &'a str)>,
}

/// What a server answered. Reading from it reads the body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What names this version for [`Wanted::rest`]: a strong ETag, else the date of the last change.
    pub(crate) version: Option<String>,
    /// Where the body starts in the file.
    pub(crate) start: u64,
    /// Bytes of the whole file, where the server says it.
    pub(crate) total: Option<u64>,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    response: reqwest::Response,
    rest: Bytes,
}

/// Asks for a file or the rest of it, following redirects.
///
/// # Errors
/// [`Error::Transfer`] if there is no answer; every status is an answer.
pub(crate) fn get(wanted: Wanted<'_>) -> Result<Answer> {
    let fail = |failure| Error::Transfer { url: wanted.url.to_owned(), failure };
    let url = Url::parse(wanted.url);
    let url = url.map_err(|error| fail(TransferFailure::BadUrl { reason: error.to_string() }))?;
    let request = async {
        let mut request = client()?.get(url).header(ACCEPT_ENCODING, "identity");
        if let Some((start, version)) = wanted.rest {
            request = request.header(RANGE, format!("bytes={start}-")).header(IF_RANGE, version);
        }
        request.send().await
    };
    let response =
        wait(request)?.map_err(|error| fail(TransferFailure::Unreachable { reason: innermost(&error) }))?;
    Ok(Answer::of(response))
}

/// The file a `file://` address names; nothing for the addresses of servers.
///
/// # Errors
/// [`Error::Transfer`] if it names a file of another machine, or is no address.
pub(crate) fn local_path(url: &str) -> Result<Option<PathBuf>> {
    if !url.starts_with("file://") {
        return Ok(None);
    }
    let fail =
        |reason: String| Error::Transfer { url: url.to_owned(), failure: TransferFailure::BadUrl { reason } };
    let parsed = Url::parse(url).map_err(|error| fail(error.to_string()))?;
    let path =
        parsed.to_file_path().map_err(|()| fail("it is not the path of a file of this machine".into()))?;
    Ok(Some(path))
}

fn client() -> Result<&'static Client, reqwest::Error> {
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let client = Client::builder()
        .user_agent(concat!("cellpatch/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECTING)
        .read_timeout(SILENCE)
        .build()?;
    Ok(CLIENT.get_or_init(|| client))
}

/// An answer without the file.
pub(crate) enum Refusal {
    /// Asking again may help.
    ForNow(TransferFailure),
    /// It will not.
    ForGood(TransferFailure),
}

impl Answer {
    /// What a status says that belongs to no file and no part of one.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Some(match self.status {
            200 | 206 | 416 => return None,
            404 | 410 => Refusal::ForGood(TransferFailure::NotFound),
            status @ (401 | 403 | 407) => {
                let reason = format!("the server answered with status {status}");
                Refusal::ForGood(TransferFailure::Denied { reason })
            }
            status @ (408 | 425 | 429 | 500..=599) => Refusal::ForNow(TransferFailure::Status { status }),
            status => Refusal::ForGood(TransferFailure::Status { status }),
        })
    }

    fn of(response: reqwest::Response) -> Self {
        let headers = response.headers();
        let length = response.content_length();
        let (start, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT => content_range(headers).unwrap_or((0, None)),
            _ => (0, length),
        };
        let seconds = text(headers, RETRY_AFTER).and_then(|text| text.parse().ok());
        Self {
            status: response.status().as_u16(),
            version: text(headers, ETAG)
                .filter(|tag| !tag.starts_with("W/"))
                .or_else(|| text(headers, LAST_MODIFIED))
                .map(str::to_owned),
            start,
            total,
            retry_after: seconds.map(Duration::from_secs),
            response,
            rest: Bytes::new(),
        }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let chunk = wait(self.response.chunk()).map_err(io::Error::other)?;
            match chunk.map_err(|error| io::Error::other(innermost(&error)))? {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let n_bytes = buffer.len().min(self.rest.len());
        buffer[..n_bytes].copy_from_slice(&self.rest.split_to(n_bytes));
        Ok(n_bytes)
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Start and total of `bytes START-END/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = text(headers, CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// The last of the reasons, which is the one that says something.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut reason = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    reason.to_string()
}
