use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::*;
use crate::checkpoint::Fingerprint;

pub(crate) fn member(rank: usize, world_size: usize) -> Membership {
    Membership {
        world_size,
        rank,
        job: "7".into(),
        fingerprint: Fingerprint { config: "c".into(), data: "d".into(), backend: "b".into() },
        join_timeout: Duration::from_secs(30),
    }
}

/// Threads that are the ranks of one training, each running `work`; what they return, by rank.
pub(crate) fn ranks<T: Send + 'static>(
    world_size: usize,
    work: impl Fn(Collective) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let listener = listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let others: Vec<JoinHandle<T>> = (1..world_size)
        .map(|rank| {
            let (address, work) = (address.clone(), work.clone());
            thread::spawn(move || work(Collective::join(&address, &member(rank, world_size)).unwrap()))
        })
        .collect();
    let host = Collective::host(&listener, &member(0, world_size), &Waiting::default()).unwrap();
    let first = work(host);
    std::iter::once(first).chain(others.into_iter().map(|rank| rank.join().unwrap())).collect()
}

/// Numbers of very different sizes, so that sums in another order have other bits.
fn numbers(rank: usize, n: usize) -> Vec<f32> {
    let number = |index: usize| {
        let angle = (index as f32 * 0.37 + rank as f32 * 1.7).sin();
        angle * 10_f32.powi((rank as i32 * 5 + index as i32) % 9 - 4)
    };
    (0..n).map(number).collect()
}

#[test]
fn a_sum_has_the_bits_of_one_in_the_order_of_ranks() {
    for (world_size, n) in [(1, 10), (2, 0), (2, 9999), (3, 100), (3, SHORT + 1), (4, 70_001), (5, 50_000)] {
        let mut expected = numbers(0, n);
        for rank in 1..world_size {
            expected.iter_mut().zip(numbers(rank, n)).for_each(|(sum, value)| *sum += value);
        }
        for _ in 0..2 {
            let sums = ranks(world_size, move |collective| {
                // Who comes late changes nothing.
                thread::sleep(Duration::from_millis(7 * ((collective.rank() * 3 + n) % 4) as u64));
                let mut values = numbers(collective.rank(), n);
                collective.all_reduce_sum(&mut values).unwrap();
                let mut slices = numbers(collective.rank(), n);
                collective.sum_slices(&mut slices).unwrap();
                collective.leave();
                (values, slices)
            });
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for (whole, slices) in &sums {
                assert_eq!(bits(whole), bits(&expected), "{world_size} ranks, {n} numbers");
                assert_eq!(bits(slices), bits(&expected), "{world_size} ranks, {n} numbers, by slices");
            }
        }
    }
}

#[test]
fn everybody_gets_the_bytes_of_all_and_of_rank_0() {
    let got = ranks(4, |collective| {
        let own = vec![collective.rank() as u8; collective.rank()];
        let all = collective.all_gather(own.clone()).unwrap();
        let first = collective.broadcast(vec![collective.rank() as u8 + 40]).unwrap();
        collective.leave();
        (all, first)
    });
    for (all, first) in got {
        assert_eq!(all, [vec![], vec![1], vec![2; 2], vec![3; 3]]);
        assert_eq!(first, [40]);
    }
}

/// What the other three of four ranks are told when rank 1 goes in the way of `go`.
fn when_rank_1_goes(go: fn(Collective)) -> Vec<CollectiveError> {
    let ends = ranks(4, move |collective| {
        if collective.rank() == 1 {
            go(collective);
            return None;
        }
        let mut values = vec![1.0; 100_000];
        let error = crate::Error::from(collective.all_reduce_sum(&mut values).unwrap_err());
        collective.fail(&error);
        let crate::Error::Collective(error) = error else { panic!("{error}") };
        Some(error)
    });
    let ends: Vec<CollectiveError> = ends.into_iter().flatten().collect();
    assert_eq!(ends.len(), 3);
    ends
}

#[test]
fn a_rank_that_vanishes_is_named_by_all_others() {
    // The connections close as the system closes those of a killed process.
    let ends = when_rank_1_goes(|collective| collective.links.vanish());
    for error in &ends {
        assert!(matches!(error, CollectiveError::Lost { rank: 1, .. }), "{error}");
    }
}

#[test]
fn a_rank_that_fails_tells_the_others_why() {
    let ends = when_rank_1_goes(|collective| {
        collective.fail(&crate::Error::Diverged { loss: f64::NAN, step: 9 });
    });
    for error in &ends {
        let CollectiveError::Stopped { rank: 1, reason } = error else { panic!("{error}") };
        assert!(reason.contains("NaN"), "{reason}");
    }
    let ends = when_rank_1_goes(drop);
    assert!(ends.iter().all(|error| matches!(error, CollectiveError::Stopped { rank: 1, .. })));
}

#[test]
fn a_rank_whose_machine_falls_silent_is_lost_after_the_silence() {
    let silence = Duration::from_millis(400);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = std::net::TcpStream::connect(address).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let streams = vec![None, Some(stream)];
    let collective = Collective::start(&member(0, 2), streams, silence).unwrap();
    let error =
        collective.broadcast(vec![0; 10]).and_then(|_| collective.all_gather(Vec::new())).unwrap_err();
    assert!(
        matches!(&error, CollectiveError::Lost { rank: 1, reason } if reason.contains("heard")),
        "{error}"
    );
    drop(silent);
}

#[test]
fn ranks_that_only_compute_for_long_are_not_lost() {
    let silence = Duration::from_millis(300);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = thread::spawn(move || {
        let streams = vec![Some(std::net::TcpStream::connect(address).unwrap()), None];
        let collective = Collective::start(&member(1, 2), streams, silence).unwrap();
        thread::sleep(4 * silence);
        collective.all_gather(vec![1]).unwrap();
        collective.leave();
    });
    let streams = vec![None, Some(listener.accept().unwrap().0)];
    let collective = Collective::start(&member(0, 2), streams, silence).unwrap();
    assert_eq!(collective.all_gather(vec![0]).unwrap(), [[0], [1]]);
    other.join().unwrap();
}

#[test]
fn ranks_that_do_different_things_are_told_apart() {
    let ends = ranks(2, |collective| match collective.rank() {
        0 => collective.all_reduce_sum(&mut [1.0; 8]).unwrap_err(),
        _ => collective.all_reduce_sum(&mut [1.0; 9]).unwrap_err(),
    });
    assert!(ends.iter().any(|error| matches!(error, CollectiveError::OutOfStep { .. })), "{ends:?}");
}

/// Rank 0 of two, which meets `strangers` before rank 1 comes; what it warned of.
fn with_strangers(strangers: impl FnOnce(SocketAddr)) -> Vec<String> {
    let listener = listen("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let host = thread::spawn(move || {
        let warnings = std::cell::RefCell::new(Vec::new());
        let warn = |text: &str| warnings.borrow_mut().push(text.to_owned());
        let waiting = Waiting { warn: &warn, ..Waiting::default() };
        let collective = Collective::host(&listener, &member(0, 2), &waiting).unwrap();
        collective.all_gather(vec![0]).unwrap();
        collective.leave();
        warnings.into_inner()
    });
    strangers(address);
    let collective = Collective::join(&address.to_string(), &member(1, 2)).unwrap();
    collective.all_gather(vec![1]).unwrap();
    collective.leave();
    host.join().unwrap()
}

#[test]
fn strangers_at_the_rendezvous_neither_stop_nor_delay_rank_0() {
    use std::io::Write as _;
    let began = Instant::now();
    let mut silent = Vec::new();
    let warnings = with_strangers(|address| {
        let mut random = std::net::TcpStream::connect(address).unwrap();
        random.write_all(&[0xA5; 4096]).unwrap();
        let mut web = std::net::TcpStream::connect(address).unwrap();
        web.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut long = std::net::TcpStream::connect(address).unwrap();
        long.write_all(b"cellptch\x01\0\0\0\xff\xff\xff\xff").unwrap();
        let mut broken = std::net::TcpStream::connect(address).unwrap();
        broken.write_all(b"cellptch\x01\0\0\0\x05\0\0\0[1,2]").unwrap();
        silent.extend((0..5).map(|_| std::net::TcpStream::connect(address).unwrap()));
        // The greetings are heard on threads of their own: give those that speak the time to be heard.
        thread::sleep(Duration::from_millis(500));
    });
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    assert!(warnings.iter().any(|text| text.contains("another language")), "{warnings:?}");
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waits for those that say nothing");
}

#[test]
fn a_process_of_another_protocol_is_told_so() {
    use std::io::{Read as _, Write as _};
    let mut answer = String::new();
    let warnings = with_strangers(|address| {
        let mut later = std::net::TcpStream::connect(address).unwrap();
        later.write_all(b"cellptch\x63\0\0\0\x02\0\0\0{}").unwrap();
        let mut bytes = Vec::new();
        later.read_to_end(&mut bytes).unwrap();
        answer = String::from_utf8_lossy(&bytes).into_owned();
    });
    assert!(warnings[0].contains("protocol 99"), "{warnings:?}");
    assert!(answer.contains("protocol 1") && answer.contains("protocol 99"), "{answer}");
}

#[test]
fn a_rank_with_other_settings_is_refused_and_the_right_one_still_taken() {
    let refused = |change: fn(&mut Membership)| {
        let mut refusal = None;
        let warnings = with_strangers(|address| {
            let mut other = member(1, 2);
            change(&mut other);
            match Collective::join(&address.to_string(), &other) {
                Err(CollectiveError::Refused { refusal: reason }) => refusal = Some(reason),
                joined => panic!("{joined:?}"),
            }
        });
        assert!(warnings[0].contains("refused"), "{warnings:?}");
        refusal.unwrap()
    };
    let settings = refused(|member| member.fingerprint.config = "x".into());
    assert!(settings.to_string().contains("the configuration of rank 0 is c"), "{settings}");
    assert!(matches!(refused(|member| member.fingerprint.data = "x".into()), Refusal::Settings { .. }));
    assert!(matches!(refused(|member| member.job = "8".into()), Refusal::Job { .. }));
    assert!(matches!(refused(|member| member.rank = 0), Refusal::NoSuchRank { .. }));
    assert!(matches!(refused(|member| member.rank = 2), Refusal::NoSuchRank { .. }));
    let size = refused(|member| member.world_size = 3);
    assert_eq!(size, Refusal::WorldSize { host: 2, joining: 3 });
}

#[test]
fn rank_0_says_who_is_missing() {
    let listener = listen("127.0.0.1:0").unwrap();
    let me = Membership { join_timeout: Duration::from_millis(200), ..member(0, 4) };
    let error = Collective::host(&listener, &me, &Waiting::default()).unwrap_err();
    assert!(error.to_string().contains("3 of 4 ranks") && error.to_string().contains("1, 2, 3"), "{error}");
    let waiting = Waiting { give_up: &|| Some("a process ended".into()), ..Waiting::default() };
    let error = Collective::host(&listener, &member(0, 4), &waiting).unwrap_err();
    assert!(matches!(error, CollectiveError::GaveUp { .. }), "{error}");
}

#[test]
fn nobody_and_somebody_else_at_the_rendezvous_are_told_apart() {
    use std::io::Write as _;
    let short = Membership { join_timeout: Duration::from_millis(500), ..member(1, 2) };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let other = thread::spawn(move || {
        let (mut stream, _) = taken.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        // Reads so that closing does not discard what was written.
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
    });
    let error = Collective::join(&address.to_string(), &short).unwrap_err();
    assert!(matches!(error, CollectiveError::NotRankZero { .. }), "{error}");
    other.join().unwrap();
    let error = Collective::join(&address.to_string(), &short).unwrap_err();
    assert!(matches!(error, CollectiveError::Unreachable { .. }), "{error}");
}
