//! Several processes that pretrain one model: which of them this one is, and how it meets the others.

mod launch;
mod scheduler;

use std::num::NonZeroUsize;
use std::time::Duration;

use cellpatch_train::Fingerprint;
use cellpatch_train::collective::{Collective, CollectiveError, Membership, Waiting, listen};
use clap::{Args, ValueEnum};

pub(crate) use self::launch::{follow, launch};
use self::scheduler::Assigned;
use crate::failure::{Category, Failure};
use crate::terminal::Terminal;

/// Seconds that ranks wait for each other where nothing else is said: a scheduler starts them within minutes.
const JOIN_SECONDS: u64 = 600;

/// How a training is divided among processes. It belongs to a start, not to a run: another number may go on with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Several processes")]
pub(crate) struct RankOptions {
    /// Start N processes on this machine that train one model together; with CUDA each on a card of its own
    #[arg(long, value_name = "N", conflicts_with_all = ["ranks_from", "rank", "world_size", "rendezvous"])]
    pub processes: Option<NonZeroUsize>,
    /// Where this process is told which rank it is: slurm (srun), mpi (mpirun of Open MPI or MPICH; needs --rendezvous), or
    /// env (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, LOCAL_RANK)
    #[arg(long, value_name = "slurm|mpi|env", hide_possible_values = true)]
    pub ranks_from: Option<RankSource>,
    /// Which of the processes this is, from 0
    #[arg(long, value_name = "R", requires = "world_size")]
    pub rank: Option<usize>,
    /// How many processes train together
    #[arg(long, value_name = "N", requires = "rank")]
    pub world_size: Option<usize>,
    /// Where rank 0 listens and the others call: a name of its machine, and a port that is free there
    #[arg(long, value_name = "HOST:PORT")]
    pub rendezvous: Option<String>,
    /// Seconds that the processes wait for each other [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub join_timeout: Option<u64>,
    /// Save a checkpoint and end when standard input does: how a launcher that is gone is noticed
    #[arg(long, hide = true)]
    pub follow: bool,
}

/// Who numbers the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RankSource {
    Slurm,
    Mpi,
    Env,
}

/// One of several processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rank {
    pub rank: usize,
    pub world_size: usize,
    /// The place among the processes of this machine.
    pub local_rank: usize,
    rendezvous: String,
    job: String,
    join_timeout: Duration,
}

impl RankOptions {
    /// Which process this is; none where it trains alone.
    ///
    /// - variable: of the environment, by its name
    ///
    /// # Errors
    /// What is missing or makes no sense.
    pub(crate) fn resolve(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Rank>, Failure> {
        let assigned = match self.ranks_from {
            Some(source) => scheduler::assigned(source, variable)?,
            None => Assigned::default(),
        };
        let (Some(rank), Some(world_size)) =
            (self.rank.or(assigned.rank), self.world_size.or(assigned.world_size))
        else {
            return match &self.rendezvous {
                None => Ok(None),
                Some(_) => Err(Failure::new(Category::Usage, "--rendezvous is for several processes")
                    .with_help("give --rank and --world-size, or --ranks-from")),
            };
        };
        if rank >= world_size {
            let message = format!("there is no rank {rank} among {world_size}: ranks count from 0");
            return Err(Failure::new(Category::Usage, message));
        }
        if world_size == 1 {
            return Ok(None);
        }
        let Some(rendezvous) = self.rendezvous.clone().or(assigned.rendezvous) else {
            let message = format!("rank {rank} of {world_size} does not know where rank 0 listens");
            return Err(Failure::new(Category::Usage, message)
                .with_help("give all of them --rendezvous HOST:PORT, with a name of rank 0's machine"));
        };
        Ok(Some(Rank {
            rank,
            world_size,
            local_rank: assigned.local_rank.unwrap_or(rank),
            rendezvous,
            job: assigned.job,
            join_timeout: Duration::from_secs(self.join_timeout.unwrap_or(JOIN_SECONDS)),
        }))
    }
}

impl Rank {
    /// Meets the others; ends when all are there.
    ///
    /// - fingerprint: of what is to be computed, which all must agree on
    /// - is_interrupted: asked now and then while rank 0 waits
    pub(crate) fn meet(
        &self,
        terminal: &Terminal,
        fingerprint: Fingerprint,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<Collective, Failure> {
        let Self { rank, world_size, .. } = *self;
        let me = Membership {
            world_size,
            rank,
            job: self.job.clone(),
            fingerprint,
            join_timeout: self.join_timeout,
        };
        let met = if rank == 0 {
            let others =
                if world_size == 2 { "rank 1".to_owned() } else { format!("ranks 1 to {}", world_size - 1) };
            terminal.note(&format!("rank 0 waits for {others} at {}", self.rendezvous));
            let waiting = Waiting {
                give_up: &|| is_interrupted().then(|| "interrupted".to_owned()),
                warn: &|message| terminal.warn(message),
            };
            listen(&self.rendezvous).and_then(|listener| Collective::host(&listener, &me, &waiting))
        } else {
            Collective::join(&self.rendezvous, &me)
        };
        let met = met.map_err(|error| match error {
            CollectiveError::GaveUp { .. } => {
                Failure::new(Category::Interrupted, "interrupted before the others came")
            }
            error => cellpatch_train::Error::from(error).into(),
        })?;
        terminal.note(&format!("all {world_size} processes are here"));
        Ok(met)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_a_rank_a_process_is_alone() {
        assert_eq!(RankOptions::default().resolve(&nothing).unwrap(), None);
        let one = RankOptions { rank: Some(0), world_size: Some(1), ..Default::default() };
        assert_eq!(one.resolve(&nothing).unwrap(), None);
    }

    #[test]
    fn a_rank_needs_its_place_and_a_rendezvous() {
        let options = |rank, rendezvous: Option<&str>| RankOptions {
            rank: Some(rank),
            world_size: Some(2),
            rendezvous: rendezvous.map(String::from),
            ..Default::default()
        };
        let found = options(1, Some("host:1")).resolve(&nothing).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank), (1, 2, 1));
        for wrong in [
            options(2, Some("host:1")),
            options(1, None),
            RankOptions { rendezvous: Some("host:1".into()), ..Default::default() },
        ] {
            assert_eq!(wrong.resolve(&nothing).unwrap_err().category(), Category::Usage, "{wrong:?}");
        }
    }

    #[test]
    fn flags_win_over_the_scheduler() {
        let options = RankOptions {
            ranks_from: Some(RankSource::Env),
            rendezvous: Some("other:9".into()),
            ..Default::default()
        };
        let variable = |name: &str| {
            let value = match name {
                "RANK" => "3",
                "WORLD_SIZE" => "4",
                "LOCAL_RANK" => "1",
                "MASTER_ADDR" => "node0",
                "MASTER_PORT" => "5000",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let found = options.resolve(&variable).unwrap().unwrap();
        assert_eq!((found.rank, found.local_rank, found.rendezvous.as_str()), (3, 1, "other:9"));
    }
}
