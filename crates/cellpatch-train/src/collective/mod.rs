//! Several processes that train one model: how they meet, and how they add up their gradients.
//!
//! Every rank is connected to every other by TCP. A sum is computed where it is needed, always in the order of ranks, so it
//! has the same bits whatever arrives first. A long vector is divided: each rank sums up one slice and hands it to the
//! others, so a rank sends and receives less than twice the vector however many there are.
//!
//! Each connection has a thread that reads it all the time. A process that dies closes its connections, and the others
//! know at once; one whose machine or network dies falls silent, which the others notice by the missing pulse. Whoever
//! fails first is named to all, so that every rank reports the same.
//!
//! There is no encryption: the ranks of a training belong on a network of their own, as with MPI and NCCL.

mod error;
mod gradients;
mod reduce;
mod rendezvous;
#[cfg(test)]
mod tests;
mod transport;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use self::error::{CollectiveError, Refusal};
pub(crate) use self::gradients::{Exchanged, StepPart};
use self::reduce::{Term, read_floats, slice_of, sum_in_order, to_bytes};
pub use self::rendezvous::{Membership, Waiting, listen};
use self::transport::{Failure, Links, Pulse, SILENCE};

type Result<T> = std::result::Result<T, CollectiveError>;

/// Up to this many numbers every rank sends all of them to all others: one message is faster than two halves.
const SHORT: usize = 4096;

/// This process's place among those that train together.
///
/// All ranks call the same methods in the same order; a call returns when all have made it, or one of them is gone.
#[derive(Debug)]
pub struct Collective {
    rank: usize,
    world_size: usize,
    links: Arc<Links>,
    /// Exchanges begun; the same on all ranks, or they are out of step.
    exchange: AtomicU64,
    _pulse: Pulse,
}

impl Collective {
    /// Becomes rank 0: waits for the others.
    ///
    /// # Errors
    /// [`CollectiveError::NotAllJoined`] or [`CollectiveError::GaveUp`] when they do not come.
    pub fn host(listener: &TcpListener, me: &Membership, waiting: &Waiting<'_>) -> Result<Self> {
        Self::start(me, rendezvous::host(listener, me, waiting)?, SILENCE)
    }

    /// Becomes another rank: calls rank 0 until it answers.
    ///
    /// # Errors
    /// [`CollectiveError::Unreachable`], [`CollectiveError::NotRankZero`] or [`CollectiveError::Refused`].
    pub fn join(rendezvous: &str, me: &Membership) -> Result<Self> {
        Self::start(me, rendezvous::join(rendezvous, me)?, SILENCE)
    }

    fn start(me: &Membership, streams: Vec<Option<std::net::TcpStream>>, silence: Duration) -> Result<Self> {
        let failed = |source| CollectiveError::Listen { address: "its peers".into(), source };
        let (links, pulse) = Links::start(streams, silence).map_err(failed)?;
        let &Membership { rank, world_size, .. } = me;
        Ok(Self { rank, world_size, links, exchange: AtomicU64::new(0), _pulse: pulse })
    }

    /// Which process this is, from 0. Rank 0 writes what a training leaves behind.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Everybody's bytes, by rank.
    ///
    /// # Errors
    /// [`CollectiveError::Lost`], [`CollectiveError::Stopped`] or [`CollectiveError::OutOfStep`], here and below.
    pub fn all_gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let number = self.next_exchange();
        for peer in self.peers() {
            self.links.send(peer, number, &bytes)?;
        }
        self.receive_all(number, bytes)
    }

    /// The bytes of rank 0; what other ranks give is not looked at.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let number = self.next_exchange();
        if self.rank != 0 {
            return self.links.receive(0, number);
        }
        for peer in self.peers() {
            self.links.send(peer, number, &bytes)?;
        }
        Ok(bytes)
    }

    /// Replaces a vector by its sum over all ranks, in the order of ranks: the same bits everywhere and every time.
    ///
    /// - values: as many on every rank
    pub fn all_reduce_sum(&self, values: &mut [f32]) -> Result<()> {
        if self.world_size <= 2 || values.len() <= SHORT {
            return self.sum_whole(values);
        }
        self.sum_slices(values)
    }

    /// Every rank gets everything and sums it up.
    fn sum_whole(&self, values: &mut [f32]) -> Result<()> {
        let all = self.all_gather(to_bytes(values))?;
        self.check_lengths(&all, |_| values.len())?;
        sum_in_order(values, all.iter().map(|bytes| Term::Bytes(bytes)));
        Ok(())
    }

    /// Every rank sums up one slice and hands it to the others.
    fn sum_slices(&self, values: &mut [f32]) -> Result<()> {
        let slice = |rank| slice_of(values.len(), rank, self.world_size);
        let number = self.next_exchange();
        for peer in self.peers() {
            self.links.send(peer, number, &to_bytes(&values[slice(peer)]))?;
        }
        let own = slice(self.rank);
        let parts = self.receive_all(number, Vec::new())?;
        self.check_lengths(&parts, |rank| if rank == self.rank { 0 } else { own.len() })?;
        let mut sum = vec![0.0; own.len()];
        let term = |(rank, bytes)| {
            if rank == self.rank { Term::Own(&values[own.clone()]) } else { Term::Bytes(bytes) }
        };
        sum_in_order(&mut sum, parts.iter().map(Vec::as_slice).enumerate().map(term));
        let sums = self.all_gather(to_bytes(&sum))?;
        self.check_lengths(&sums, |rank| slice(rank).len())?;
        for (rank, bytes) in sums.iter().enumerate() {
            let slice = slice_of(values.len(), rank, self.world_size);
            read_floats(bytes, &mut values[slice], |value, sum| *value = sum);
        }
        Ok(())
    }

    /// Ends in good order: the others may still have to do.
    pub fn leave(&self) {
        self.links.leave();
    }

    /// Ends because of an error, which the others will report: `error` is the collective's own, or this rank's.
    pub fn fail(&self, error: &crate::Error) {
        let own = |reason| Failure { rank: self.rank, is_lost: false, reason };
        self.links.fail(&match error {
            crate::Error::Collective(CollectiveError::Lost { rank, reason }) => {
                Failure { rank: *rank, is_lost: true, reason: reason.clone() }
            }
            crate::Error::Collective(CollectiveError::Stopped { rank, reason }) => {
                Failure { rank: *rank, is_lost: false, reason: reason.clone() }
            }
            other => own(other.to_string()),
        });
    }

    fn next_exchange(&self) -> u64 {
        self.exchange.fetch_add(1, Ordering::Relaxed)
    }

    /// The other ranks, those after this one first, so that not all send to the same at once.
    fn peers(&self) -> impl Iterator<Item = usize> {
        (self.rank + 1..self.world_size).chain(0..self.rank)
    }

    /// What the peers sent, by rank, with `own` in this rank's place.
    fn receive_all(&self, number: u64, own: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let mut all: Vec<Vec<u8>> = Vec::with_capacity(self.world_size);
        for rank in 0..self.world_size {
            all.push(if rank == self.rank { Vec::new() } else { self.links.receive(rank, number)? });
        }
        all[self.rank] = own;
        Ok(all)
    }

    fn check_lengths(&self, all: &[Vec<u8>], n_values: impl Fn(usize) -> usize) -> Result<()> {
        let is_wrong = |&rank: &usize| all[rank].len() != size_of::<f32>() * n_values(rank);
        match (0..all.len()).find(is_wrong) {
            Some(rank) => {
                let reason = format!("it sent {} bytes for {} numbers", all[rank].len(), n_values(rank));
                Err(CollectiveError::OutOfStep { rank, reason })
            }
            None => Ok(()),
        }
    }
}

impl Drop for Collective {
    /// A rank that ends without a word, in a panic say, is missed at once; after a last word this one reaches nobody.
    fn drop(&mut self) {
        self.links.fail(&Failure { rank: self.rank, is_lost: false, reason: "it ended early".into() });
    }
}
