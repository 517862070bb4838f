//! A small HTTP server for tests: serves bytes with ranges and ETags, and misbehaves on request.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several tests, each of which uses a part; and clippy takes only functions marked as tests for tests"
)]

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// How the next answers go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This status, without the file.
    Status(u16),
    /// A redirect to this path.
    Redirect(String),
    /// The connection is cut after this many bytes of the body.
    CutAfter(usize),
    /// The whole file, whatever part was asked for.
    IgnoreRange,
    /// Both.
    IgnoreRangeAndCutAfter(usize),
    /// The part that was asked for, whatever `If-Range` says, under the file's present ETag.
    IgnoreIfRange,
    /// A body of other bytes of the same length.
    OtherBytes,
    /// No `Content-Length`, no ETag: the end is where the connection ends.
    Unmarked,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// Header `Range`.
    pub(crate) range: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<String, Arc<Vec<u8>>>,
    faults: VecDeque<Fault>,
    /// Faults of every answer to a path that begins so.
    standing: Vec<(String, Fault)>,
    requests: Vec<Request>,
}

/// A server on a port of its own. Its threads end with the process.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap().to_string(), state: Arc::default() };
        let state = Arc::clone(&server.state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // What breaks here is seen by the client.
                std::thread::spawn(move || answer(&state, stream));
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Serves `bytes` at `path`, instead of what was there.
    pub(crate) fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(format!("/{path}"), Arc::new(bytes.into()));
    }

    /// Serves every file of a folder under `path/`.
    pub(crate) fn put_folder(&self, path: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            let name = entry.file_name().into_string().unwrap();
            self.put(&format!("{path}/{name}"), std::fs::read(entry.path()).unwrap());
        }
    }

    pub(crate) fn remove(&self, path: &str) {
        self.state.lock().unwrap().files.remove(&format!("/{path}"));
    }

    /// The next answers go wrong like this, one after the other.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    /// Every answer about a path that begins like this goes wrong.
    pub(crate) fn always(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().standing.push((format!("/{path}"), fault));
    }

    /// What has been asked for since the last time.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(state: &Mutex<State>, stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let (file, fault) = {
        let mut state = state.lock().unwrap();
        state.requests.push(Request { path: path.clone(), range: headers.get("range").cloned() });
        let standing = state.standing.iter().find(|(start, _)| path.starts_with(start.as_str()));
        let standing = standing.map(|(_, fault)| fault.clone());
        let file = state.files.get(path.split('?').next()?).cloned();
        (file, standing.or_else(|| state.faults.pop_front()))
    };
    respond(stream, file.as_deref(), &headers, fault.as_ref())
}

fn respond(
    mut stream: TcpStream,
    file: Option<&Vec<u8>>,
    headers: &HashMap<String, String>,
    fault: Option<&Fault>,
) -> Option<()> {
    let mut empty = |status: &str, more: &str| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).ok()
    };
    match fault {
        Some(Fault::Status(status)) => return empty(&format!("{status} X"), ""),
        Some(Fault::Redirect(to)) => return empty("302 Found", &format!("Location: {to}\r\n")),
        _ => {}
    }
    let Some(file) = file else { return empty("404 Not Found", "") };
    let etag =
        format!("\"{:016x}\"", file.iter().fold(7u64, |sum, &byte| sum.wrapping_mul(31) + u64::from(byte)));
    let same = fault == Some(&Fault::IgnoreIfRange) || headers.get("if-range").is_none_or(|tag| *tag == etag);
    let whole = matches!(fault, Some(Fault::IgnoreRange | Fault::IgnoreRangeAndCutAfter(_)));
    let range = headers.get("range").filter(|_| same && !whole);
    let range = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (start, end) = match range {
        Some(("", last)) => (file.len().saturating_sub(last.parse().ok()?), file.len()),
        Some((start, end)) => {
            (start.parse().ok()?, end.parse().map_or(file.len(), |end: usize| (end + 1).min(file.len())))
        }
        None => (0, file.len()),
    };
    if range.is_some() && start >= file.len() {
        return empty("416 Range Not Satisfiable", "");
    }
    let mut body = file[start..end].to_vec();
    if fault == Some(&Fault::OtherBytes) {
        body.iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if fault != Some(&Fault::Unmarked) {
        head += &format!("Content-Length: {}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n", body.len());
    }
    if range.is_some() {
        head += &format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, file.len());
    }
    if let Some(Fault::CutAfter(n_bytes) | Fault::IgnoreRangeAndCutAfter(n_bytes)) = fault {
        body.truncate(*n_bytes);
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    stream.write_all(&body).ok()
}
