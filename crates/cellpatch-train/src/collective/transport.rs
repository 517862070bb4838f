//! Connections between ranks: frames, a reader for each peer, and a pulse that tells the living from the dead.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::CollectiveError;

/// A peer that has not even sent a pulse for this long is taken for lost; pulses come four times as often.
pub(super) const SILENCE: Duration = Duration::from_secs(20);

/// How long a rank that fails waits for the root of the failure to arrive from a peer.
const ROOT_CAUSE: Duration = Duration::from_millis(500);

/// The largest frame a peer may send: no vector of a training comes near it.
const MAX_FRAME: u64 = 1 << 32;

const DATA: u8 = 1;
const PULSE: u8 = 2;
const GOODBYE: u8 = 3;
const FAILURE: u8 = 4;

/// Why the ranks cannot go on, as they tell each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The rank it began with.
    pub(super) rank: usize,
    /// Whether that rank vanished, or stopped with an error of its own.
    pub(super) is_lost: bool,
    /// What was noticed, or its error.
    pub(super) reason: String,
}

impl From<Failure> for CollectiveError {
    fn from(Failure { rank, is_lost, reason }: Failure) -> Self {
        match is_lost {
            true => Self::Lost { rank, reason },
            false => Self::Stopped { rank, reason },
        }
    }
}

/// The connections of one rank to all others.
#[derive(Debug)]
pub(super) struct Links {
    /// By rank; none for the own.
    peers: Vec<Option<Mutex<TcpStream>>>,
    inbox: Inbox,
}

/// What has arrived.
#[derive(Debug)]
struct Inbox {
    state: Mutex<InboxState>,
    changed: Condvar,
}

#[derive(Debug)]
struct InboxState {
    /// By rank: numbered data that nobody has asked for yet.
    frames: Vec<VecDeque<(u64, Vec<u8>)>>,
    /// By rank: whether it has ended in good order.
    left: Vec<bool>,
    /// The first failure that was noticed or told.
    failure: Option<Failure>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut InboxState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl InboxState {
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

/// Stops the pulse when it is dropped.
#[derive(Debug)]
pub(super) struct Pulse {
    _stop: Sender<()>,
}

impl Links {
    /// Takes over connected streams and starts to read them.
    ///
    /// - streams: by rank, none for the own
    /// - silence: see [`SILENCE`]
    pub(super) fn start(
        streams: Vec<Option<TcpStream>>,
        silence: Duration,
    ) -> io::Result<(Arc<Self>, Pulse)> {
        let n_ranks = streams.len();
        let mut readers = Vec::new();
        for (rank, stream) in streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(silence))?;
            stream.set_write_timeout(Some(silence))?;
            readers.push((rank, stream.try_clone()?));
        }
        let state =
            InboxState { frames: vec![VecDeque::new(); n_ranks], left: vec![false; n_ranks], failure: None };
        let links = Arc::new(Self {
            peers: streams.into_iter().map(|stream| stream.map(Mutex::new)).collect(),
            inbox: Inbox { state: Mutex::new(state), changed: Condvar::new() },
        });
        for (rank, stream) in readers {
            let links = Arc::clone(&links);
            Builder::new().name(format!("rank-{rank}")).spawn(move || links.read(rank, stream))?;
        }
        let (stop, stopped) = mpsc::channel();
        let pulsing = Arc::clone(&links);
        Builder::new().name("pulse".into()).spawn(move || {
            while stopped.recv_timeout(silence / 4) == Err(RecvTimeoutError::Timeout) {
                pulsing.pulse();
            }
        })?;
        Ok((links, Pulse { _stop: stop }))
    }

    /// Reads what a peer sends until it leaves, fails or vanishes.
    fn read(&self, rank: usize, mut stream: TcpStream) {
        loop {
            match read_frame(&mut stream) {
                Ok((PULSE, ..)) => {}
                Ok((DATA, number, bytes)) => {
                    self.inbox.put(|state| state.frames[rank].push_back((number, bytes)));
                }
                Ok((GOODBYE, ..)) => return self.inbox.put(|state| state.left[rank] = true),
                Ok((FAILURE, _, bytes)) => {
                    let failure = serde_json::from_slice(&bytes).unwrap_or_else(|error| Failure {
                        rank,
                        is_lost: false,
                        reason: error.to_string(),
                    });
                    return self.inbox.put(|state| state.fail(failure));
                }
                Ok((kind, ..)) => return self.lose(rank, format!("it sent a frame of unknown kind {kind}")),
                Err(error) => return self.lose(rank, what_happened(&error)),
            }
        }
    }

    fn lose(&self, rank: usize, reason: String) {
        self.inbox.put(|state| state.fail(Failure { rank, is_lost: true, reason }));
    }

    fn lock(stream: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
        stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows every peer that this process lives.
    fn pulse(&self) {
        for stream in self.peers.iter().flatten() {
            // A stream that is being written to shows it by that; one that cannot be, its reader finds out about.
            if let Ok(mut stream) = stream.try_lock() {
                let _ = write_frame(&mut stream, PULSE, 0, &[]);
            }
        }
    }

    /// Sends numbered data to a peer.
    pub(super) fn send(&self, rank: usize, number: u64, bytes: &[u8]) -> Result<(), CollectiveError> {
        if let Some(failure) = self.inbox.lock().failure.clone() {
            return Err(failure.into());
        }
        let Some(stream) = &self.peers[rank] else { return Ok(()) };
        write_frame(&mut Self::lock(stream), DATA, number, bytes).map_err(|error| {
            // Why the connection broke may be on its way: a peer says so before it goes.
            let state = self.inbox.lock();
            let wait =
                self.inbox.changed.wait_timeout_while(state, ROOT_CAUSE, |state| state.failure.is_none());
            let (mut state, _) = wait.unwrap_or_else(PoisonError::into_inner);
            state.fail(Failure { rank, is_lost: true, reason: what_happened(&error) });
            match state.failure.clone() {
                Some(failure) => failure.into(),
                None => CollectiveError::Lost { rank, reason: what_happened(&error) },
            }
        })
    }

    /// Waits for the data of that number from a peer.
    pub(super) fn receive(&self, rank: usize, number: u64) -> Result<Vec<u8>, CollectiveError> {
        let mut state = self.inbox.lock();
        loop {
            if let Some(failure) = state.failure.clone() {
                return Err(failure.into());
            }
            match state.frames[rank].pop_front() {
                Some((found, bytes)) if found == number => return Ok(bytes),
                Some((found, _)) => {
                    let reason = format!("its exchange {found} meets this rank's {number}");
                    return Err(CollectiveError::OutOfStep { rank, reason });
                }
                None if state.left[rank] => {
                    let reason = "it has ended and this rank has not".into();
                    return Err(CollectiveError::OutOfStep { rank, reason });
                }
                None => {}
            }
            state = self.inbox.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends in good order.
    pub(super) fn leave(&self) {
        self.close(GOODBYE, &[]);
    }

    /// Ends because of a failure, and tells the peers.
    pub(super) fn fail(&self, failure: &Failure) {
        self.close(FAILURE, &serde_json::to_vec(failure).unwrap_or_default());
    }

    /// Closes every connection without a word, as the system does for a process that is killed.
    #[cfg(test)]
    pub(super) fn vanish(&self) {
        for stream in self.peers.iter().flatten() {
            let _ = Self::lock(stream).shutdown(Shutdown::Both);
        }
    }

    fn close(&self, kind: u8, bytes: &[u8]) {
        for stream in self.peers.iter().flatten() {
            let mut stream = Self::lock(stream);
            // Whoever cannot be told has gone already.
            let _ = write_frame(&mut stream, kind, 0, bytes);
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

/// Kind, number, length, bytes; integers are little-endian.
fn write_frame(stream: &mut TcpStream, kind: u8, number: u64, bytes: &[u8]) -> io::Result<()> {
    let mut header = [0; 17];
    header[0] = kind;
    header[1..9].copy_from_slice(&number.to_le_bytes());
    header[9..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    stream.write_all(&header)?;
    stream.write_all(bytes)
}

fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, u64, Vec<u8>)> {
    let mut header = [0; 17];
    stream.read_exact(&mut header)?;
    let (numbers, _) = header[1..].as_chunks::<8>();
    let [number, length] = [numbers[0], numbers[1]].map(u64::from_le_bytes);
    if length > MAX_FRAME {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    // The vector grows as bytes come, so a wrong length takes no memory.
    let mut bytes = Vec::new();
    stream.take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok((header[0], number, bytes)),
        false => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// An input or output error as something that happened to a peer.
fn what_happened(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe => "its connection closed, as when a process is killed".into(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "nothing was heard from it for too long".into(),
        _ => error.to_string(),
    }
}
