//! How the ranks of a training find each other.
//!
//! Rank 0 listens; every other rank connects, says who it is and what it would compute, and is taken or refused. When all
//! have come, rank 0 tells each where the others listen, and they connect among themselves. Whoever else
//! knocks at the port is turned away and noted.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{CollectiveError, Refusal};
use crate::checkpoint::Fingerprint;

type Result<T> = std::result::Result<T, CollectiveError>;

const MAGIC: [u8; 8] = *b"cellptch";
const PROTOCOL: u32 = 1;

/// How long a caller may take to say who it is.
const GREETING: Duration = Duration::from_secs(10);
/// How often it is looked who has come.
const LOOK: Duration = Duration::from_millis(20);
/// How long a rank waits until it tries again to reach rank 0.
const RETRY: Duration = Duration::from_millis(200);
/// The longest a greeting or its answer can be, in bytes.
const MAX_GREETING: u32 = 1 << 20;
/// Callers that are listened to at the same time, beside one a rank.
const STRANGERS: usize = 64;

/// Who a process is among those that train together.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// How many processes there are.
    pub world_size: usize,
    /// Which of them this is, from 0.
    pub rank: usize,
    /// The job they belong to, such as Slurm's job id; empty where there is none.
    pub job: String,
    /// What they compute: the same on all of them.
    pub fingerprint: Fingerprint,
    /// How long the ranks wait for each other.
    pub join_timeout: Duration,
}

/// What rank 0 does while it waits for the others.
pub struct Waiting<'a> {
    /// Asked now and then; a reason ends the waiting.
    pub give_up: &'a dyn Fn() -> Option<String>,
    /// Told about callers that were turned away.
    pub warn: &'a dyn Fn(&str),
}

impl Default for Waiting<'_> {
    /// Waits for the whole time, silently.
    fn default() -> Self {
        Self { give_up: &|| None, warn: &|_| {} }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: String,
    job: String,
    world_size: usize,
    rank: usize,
    fingerprint: Fingerprint,
    /// Where this rank listens for its peers.
    port: u16,
}

impl Hello {
    fn of(me: &Membership, port: u16) -> Self {
        let Membership { job, world_size, rank, fingerprint, .. } = me.clone();
        Self { version: env!("CARGO_PKG_VERSION").into(), job, world_size, rank, fingerprint, port }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Welcome(Welcome),
    Refused(Refusal),
}

/// What the ranks need to connect among themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Welcome {
    /// Known to the ranks of this training only.
    token: String,
    /// By rank; none for rank 0, to which everybody is connected.
    addresses: Vec<Option<SocketAddr>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PeerHello {
    token: String,
    rank: usize,
}

/// Listens at an address that is given as `HOST:PORT`; port 0 leaves the choice to the system.
///
/// Where the host's name leads to an address that is not this machine's, such as a service in front of it, all
/// addresses of the machine are listened at.
///
/// # Errors
/// [`CollectiveError::Listen`] when the name is unknown or the port is taken.
pub fn listen(address: &str) -> Result<TcpListener> {
    let failed = |source| CollectiveError::Listen { address: address.into(), source };
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().map_err(failed)?.collect();
    match TcpListener::bind(&addresses[..]) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let port = addresses.first().map_or(0, SocketAddr::port);
            TcpListener::bind((IpAddr::from([0, 0, 0, 0]), port)).map_err(failed)
        }
        bound => bound.map_err(failed),
    }
}

/// Waits as rank 0 until all have come; the streams are by rank, none for rank 0.
pub(super) fn host(
    listener: &TcpListener,
    me: &Membership,
    waiting: &Waiting<'_>,
) -> Result<Vec<Option<TcpStream>>> {
    let mut joined: Vec<Option<(TcpStream, SocketAddr)>> = (0..me.world_size).map(|_| None).collect();
    let missing = |joined: &[Option<_>]| (1..me.world_size).filter(|&rank| joined[rank].is_none()).collect();
    let deadline = Instant::now() + me.join_timeout;
    greet(listener, "the rendezvous", me.world_size, |event| {
        match event {
            Event::Called(caller, hello) => match judge(&hello, me, &joined) {
                Ok(()) => {
                    let address = caller.peer_addr().map(|from| SocketAddr::new(from.ip(), hello.port));
                    joined[hello.rank] = address.ok().map(|address| (caller, address));
                }
                Err(refusal) => {
                    (waiting.warn)(&format!(
                        "refused a process that wants to be rank {}: {refusal}",
                        hello.rank
                    ));
                    // Whoever does not wait for the answer needs none.
                    let _ = write_greeting(&caller, &Answer::Refused(refusal));
                }
            },
            Event::Stranger { reason, answer } => {
                (waiting.warn)(&format!("turned away a caller at the rendezvous: {reason}"));
                if let Some((caller, joining)) = answer {
                    let host = format!("version {} (protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"));
                    let refusal = Refusal::Version { host, joining };
                    let _ = write_greeting(&caller, &Answer::Refused(refusal));
                }
            }
            Event::Nobody => {
                if let Some(reason) = (waiting.give_up)() {
                    return Err(CollectiveError::GaveUp { reason });
                }
                if Instant::now() >= deadline {
                    return Err(CollectiveError::NotAllJoined {
                        missing: missing(&joined),
                        world_size: me.world_size,
                        seconds: me.join_timeout.as_secs(),
                    });
                }
            }
        }
        let all_came = |joined: &[Option<_>]| joined.iter().skip(1).all(Option::is_some);
        if all_came(&joined) {
            // Whoever died while it waited is waited for again.
            for rank in &mut joined {
                rank.take_if(|(stream, _)| is_closed(stream));
            }
        }
        Ok(all_came(&joined))
    })?;
    let addresses = joined.iter().map(|rank| rank.as_ref().map(|&(_, address)| address)).collect();
    let welcome = Welcome { token: token(), addresses };
    for (rank, (stream, _)) in
        joined.iter().enumerate().filter_map(|(rank, joined)| Some((rank, joined.as_ref()?)))
    {
        write_greeting(stream, &Answer::Welcome(welcome.clone()))
            .map_err(|error| CollectiveError::Lost { rank, reason: error.to_string() })?;
    }
    Ok(joined.into_iter().map(|joined| joined.map(|(stream, _)| stream)).collect())
}

/// Whether a process that calls is the one rank 0 waits for.
fn judge(
    hello: &Hello,
    me: &Membership,
    joined: &[Option<(TcpStream, SocketAddr)>],
) -> std::result::Result<(), Refusal> {
    let &Hello { rank, world_size, .. } = hello;
    if hello.version != env!("CARGO_PKG_VERSION") {
        return Err(Refusal::Version {
            host: format!("version {}", env!("CARGO_PKG_VERSION")),
            joining: format!("version {}", hello.version),
        });
    }
    if hello.job != me.job {
        return Err(Refusal::Job { host: me.job.clone(), joining: hello.job.clone() });
    }
    if world_size != me.world_size {
        return Err(Refusal::WorldSize { host: me.world_size, joining: world_size });
    }
    if rank == 0 || rank >= world_size {
        return Err(Refusal::NoSuchRank { rank, world_size });
    }
    if let Some((what, host, joining)) = me.fingerprint.first_difference(&hello.fingerprint) {
        return Err(Refusal::Settings { what: what.into(), host: host.into(), joining: joining.into() });
    }
    // A rank that died while it waited may come again.
    match &joined[rank] {
        Some((stream, _)) if !is_closed(stream) => Err(Refusal::RankTaken { rank }),
        _ => Ok(()),
    }
}

/// Joins as any other rank; the streams are by rank, none for the own.
pub(super) fn join(rendezvous: &str, me: &Membership) -> Result<Vec<Option<TcpStream>>> {
    let deadline = Instant::now() + me.join_timeout;
    let (host, listener, welcome) = loop {
        match call(rendezvous, me, deadline) {
            Ok(joined) => break joined,
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(reason)) if Instant::now() + RETRY >= deadline => {
                let seconds = me.join_timeout.as_secs();
                return Err(CollectiveError::Unreachable { address: rendezvous.into(), seconds, reason });
            }
            Err(Attempt::Again(_)) => thread::sleep(RETRY),
        }
    };
    let host_ip = host.peer_addr().map(|address| address.ip()).ok();
    let mut streams: Vec<Option<TcpStream>> = (0..me.world_size).map(|_| None).collect();
    streams[0] = Some(host);
    for (rank, stream) in streams.iter_mut().enumerate().take(me.rank).skip(1) {
        let Some(Some(mut address)) = welcome.addresses.get(rank).copied() else { continue };
        // A rank on rank 0's machine was seen there by an address that means another machine elsewhere.
        if let (true, Some(host_ip)) = (address.ip().is_loopback(), host_ip) {
            address.set_ip(host_ip);
        }
        let lost = |error: io::Error| CollectiveError::Lost { rank, reason: error.to_string() };
        let peer = TcpStream::connect_timeout(&address, GREETING).map_err(lost)?;
        write_greeting(&peer, &PeerHello { token: welcome.token.clone(), rank: me.rank }).map_err(lost)?;
        *stream = Some(peer);
    }
    let is_missing =
        |streams: &[Option<_>]| (me.rank + 1..me.world_size).find(|&rank| streams[rank].is_none());
    let deadline = Instant::now() + GREETING;
    greet(&listener, "a rank", me.world_size, |event: Event<PeerHello>| {
        if let Event::Called(caller, hello) = event
            && hello.token == welcome.token
            && (me.rank + 1..me.world_size).contains(&hello.rank)
        {
            streams[hello.rank] = Some(caller);
        }
        match is_missing(&streams) {
            Some(rank) if Instant::now() >= deadline => {
                Err(CollectiveError::Lost { rank, reason: "it did not connect to its peers".into() })
            }
            missing => Ok(missing.is_none()),
        }
    })?;
    Ok(streams)
}

/// Whether it makes sense to call again.
enum Attempt {
    Again(String),
    Final(CollectiveError),
}

/// Calls rank 0 once and waits until it says that all are there.
fn call(
    rendezvous: &str,
    me: &Membership,
    deadline: Instant,
) -> std::result::Result<(TcpStream, TcpListener, Welcome), Attempt> {
    let again = |error: io::Error| Attempt::Again(error.to_string());
    let mut connected = Err(Attempt::Again("its name leads nowhere".into()));
    for address in rendezvous.to_socket_addrs().map_err(again)? {
        connected = TcpStream::connect_timeout(&address, GREETING).map_err(again);
        if connected.is_ok() {
            break;
        }
    }
    let host = connected?;
    // Where rank 0 is called by the machine's own address, all ranks are on this machine.
    let ip = match host.peer_addr().map_err(again)?.ip() {
        ip if ip.is_loopback() && rendezvous_is_local(rendezvous) => ip,
        IpAddr::V4(_) => IpAddr::from([0, 0, 0, 0]),
        IpAddr::V6(_) => IpAddr::from([0_u16; 8]),
    };
    let failed = |source| {
        Attempt::Final(CollectiveError::Listen { address: format!("{ip}, for the other ranks"), source })
    };
    let listener = TcpListener::bind((ip, 0)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    write_greeting(&host, &Hello::of(me, port)).map_err(again)?;
    let patience = deadline.saturating_duration_since(Instant::now()).max(GREETING);
    host.set_read_timeout(Some(patience)).map_err(again)?;
    match read_greeting::<Answer>(&host) {
        Ok(Answer::Welcome(welcome)) => Ok((host, listener, welcome)),
        Ok(Answer::Refused(refusal)) => Err(Attempt::Final(CollectiveError::Refused { refusal })),
        Err(Unread::Broken(error)) => Err(again(error)),
        Err(Unread::Foreign { reason, .. }) => {
            Err(Attempt::Final(CollectiveError::NotRankZero { address: rendezvous.into(), reason }))
        }
    }
}

fn rendezvous_is_local(rendezvous: &str) -> bool {
    let host = rendezvous.rsplit_once(':').map_or(rendezvous, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What happens at a listener.
enum Event<T> {
    /// Somebody said what was expected.
    Called(TcpStream, T),
    /// Somebody said something else; with the stream and the version where an answer would be understood.
    Stranger { reason: String, answer: Option<(TcpStream, String)> },
    /// Nothing, for a moment.
    Nobody,
}

/// Listens until `on_event` says that it is enough. Each caller is heard on a thread of its own, so that one that says
/// nothing keeps nobody waiting.
fn greet<T: DeserializeOwned + Send + 'static>(
    listener: &TcpListener,
    what: &str,
    world_size: usize,
    mut on_event: impl FnMut(Event<T>) -> Result<bool>,
) -> Result<()> {
    let failed = |source| CollectiveError::Listen { address: what.into(), source };
    listener.set_nonblocking(true).map_err(failed)?;
    let (heard, calls) = mpsc::channel();
    let mut n_callers = 0;
    loop {
        let accepted = match n_callers < world_size + STRANGERS {
            true => listener.accept(),
            false => Err(ErrorKind::WouldBlock.into()),
        };
        if let Ok((caller, _)) = accepted {
            let heard = heard.clone();
            let listening = Builder::new().name("greeting".into()).spawn(move || {
                let hello = caller
                    .set_nonblocking(false)
                    .and_then(|()| caller.set_read_timeout(Some(GREETING)))
                    .map_err(Unread::Broken)
                    .and_then(|()| read_greeting::<T>(&caller));
                // Nobody listens any more once all have come.
                let _ = heard.send((caller, hello));
            });
            n_callers += usize::from(listening.is_ok());
            continue;
        }
        let event = match calls.recv_timeout(LOOK) {
            Ok((caller, hello)) => {
                n_callers -= 1;
                match hello {
                    Ok(hello) => Event::Called(caller, hello),
                    Err(Unread::Broken(error)) => Event::Stranger { reason: error.to_string(), answer: None },
                    Err(Unread::Foreign { reason, version }) => {
                        Event::Stranger { reason, answer: version.map(|version| (caller, version)) }
                    }
                }
            }
            Err(_) => Event::Nobody,
        };
        if on_event(event)? {
            return Ok(());
        }
    }
}

/// Why a greeting could not be read.
enum Unread {
    /// The connection ended or was silent.
    Broken(io::Error),
    /// It is not one of ours; with its version where it is one of another version.
    Foreign { reason: String, version: Option<String> },
}

/// Magic bytes, protocol, length, JSON.
fn write_greeting(mut stream: &TcpStream, greeting: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(greeting)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(PROTOCOL.to_le_bytes());
    bytes.extend((json.len() as u32).to_le_bytes());
    bytes.extend(json);
    stream.set_write_timeout(Some(GREETING))?;
    stream.write_all(&bytes)
}

fn read_greeting<T: DeserializeOwned>(mut stream: &TcpStream) -> std::result::Result<T, Unread> {
    let foreign = |reason: String| Unread::Foreign { reason, version: None };
    let mut magic = [0; 8];
    stream.read_exact(&mut magic).map_err(Unread::Broken)?;
    if magic != MAGIC {
        return Err(foreign("it speaks another language".into()));
    }
    let mut numbers = [[0; 4]; 2];
    for number in &mut numbers {
        stream.read_exact(number).map_err(Unread::Broken)?;
    }
    let [protocol, length] = numbers.map(u32::from_le_bytes);
    if length > MAX_GREETING {
        return Err(foreign(format!("it announces {length} bytes")));
    }
    // Read whatever it is: an answer is lost where something unread is left behind.
    let mut json = Vec::new();
    stream.take(length.into()).read_to_end(&mut json).map_err(Unread::Broken)?;
    if protocol != PROTOCOL {
        let reason = format!("it speaks protocol {protocol} and this is protocol {PROTOCOL}");
        return Err(Unread::Foreign { reason, version: Some(format!("of protocol {protocol}")) });
    }
    serde_json::from_slice(&json).map_err(|error| foreign(error.to_string()))
}

/// Whether the other side has closed a stream on which nothing is expected.
fn is_closed(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let restored = stream.set_nonblocking(false);
    match peeked {
        Ok(n_bytes) => n_bytes == 0 || restored.is_err(),
        Err(error) => error.kind() != ErrorKind::WouldBlock || restored.is_err(),
    }
}

/// Something no stranger guesses: the standard library's hash keys are the operating system's random numbers.
fn token() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::super::Collective;
    use super::super::tests::member;
    use super::*;

    /// A rank that has said who it is, and waits.
    fn waiting(address: &str, me: &Membership) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        write_greeting(&stream, &Hello::of(me, 9)).unwrap();
        thread::sleep(Duration::from_millis(300));
        stream
    }

    #[test]
    fn two_processes_cannot_have_one_rank_but_one_can_come_again_when_the_first_died() {
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let host = thread::spawn(move || {
            let host = Collective::host(&listener, &member(0, 3), &Waiting::default()).unwrap();
            let all = host.all_gather(vec![0]);
            host.leave();
            all.unwrap()
        });
        let me = member(1, 3);
        let first = waiting(&address, &me);
        let second = Collective::join(&address, &me).unwrap_err();
        assert!(
            matches!(second, CollectiveError::Refused { refusal: Refusal::RankTaken { rank: 1 } }),
            "{second}"
        );
        drop(first);
        let work = |rank| {
            let address = address.clone();
            thread::spawn(move || {
                let rank = Collective::join(&address, &member(rank, 3)).unwrap();
                let all = rank.all_gather(vec![rank.rank() as u8]);
                rank.leave();
                all.unwrap()
            })
        };
        let others = [1, 2].map(work);
        assert_eq!(host.join().unwrap(), [[0], [1], [2]]);
        for other in others {
            assert_eq!(other.join().unwrap(), [[0], [1], [2]]);
        }
    }

    #[test]
    fn nobody_begins_with_a_rank_that_died_while_it_waited() {
        let listener = listen("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let host = thread::spawn(move || {
            let host = Collective::host(&listener, &member(0, 3), &Waiting::default()).unwrap();
            host.leave();
        });
        drop(waiting(&address, &member(1, 3)));
        let join = |rank| {
            let address = address.clone();
            thread::spawn(move || Collective::join(&address, &member(rank, 3)).map(|rank| rank.leave()))
        };
        let second = join(2);
        thread::sleep(Duration::from_millis(300));
        assert!(!second.is_finished());
        join(1).join().unwrap().unwrap();
        second.join().unwrap().unwrap();
        host.join().unwrap();
    }

    #[test]
    fn only_an_address_of_this_machine_alone_is_local() {
        for (address, is_local) in [
            ("127.0.0.1:80", true),
            ("localhost:80", true),
            ("[::1]:80", true),
            ("node3:80", false),
            ("10.0.0.1:80", false),
        ] {
            assert_eq!(rendezvous_is_local(address), is_local, "{address}");
        }
    }
}
