//! What schedulers tell the processes they start.

use super::RankSource;
use crate::failure::{Category, Failure};

/// First port of those that a Slurm job's number chooses from, below those that systems hand out by themselves.
const FIRST_PORT: u64 = 20_000;
const N_PORTS: u64 = 10_000;

/// A process's place, as far as the scheduler says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Assigned {
    pub(super) rank: Option<usize>,
    pub(super) world_size: Option<usize>,
    pub(super) local_rank: Option<usize>,
    pub(super) rendezvous: Option<String>,
    /// Told apart from other jobs at the same rendezvous by this; empty where the scheduler numbers none.
    pub(super) job: String,
}

/// Reads a scheduler's variables.
///
/// # Errors
/// When they are not there, or no numbers.
pub(super) fn assigned(
    source: RankSource,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Assigned, Failure> {
    let variables = Variables { source, variable };
    match source {
        RankSource::Slurm => variables.slurm(),
        RankSource::Mpi => variables.mpi(),
        RankSource::Env => variables.env(),
    }
}

struct Variables<'a> {
    source: RankSource,
    variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    fn slurm(&self) -> Result<Assigned, Failure> {
        let job = self.text(&["SLURM_JOB_ID"])?;
        let nodes = self.text(&["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"])?;
        let number: u64 = self.number(&["SLURM_JOB_ID"])?;
        let step = (self.variable)("SLURM_STEP_ID").unwrap_or_default();
        Ok(Assigned {
            rank: Some(self.number(&["SLURM_PROCID"])?),
            world_size: Some(self.number(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"])?),
            local_rank: Some(self.number(&["SLURM_LOCALID"])?),
            rendezvous: Some(format!("{}:{}", first_host(&nodes), FIRST_PORT + number % N_PORTS)),
            job: format!("{job}.{step}"),
        })
    }

    fn mpi(&self) -> Result<Assigned, Failure> {
        let local_rank = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"];
        Ok(Assigned {
            rank: Some(self.number(&["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"])?),
            world_size: Some(self.number(&["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])?),
            local_rank: self.find(&local_rank).map(|_| self.number(&local_rank)).transpose()?,
            ..Assigned::default()
        })
    }

    fn env(&self) -> Result<Assigned, Failure> {
        let (address, port) = (self.text(&["MASTER_ADDR"])?, self.number::<u16>(&["MASTER_PORT"])?);
        Ok(Assigned {
            rank: Some(self.number(&["RANK"])?),
            world_size: Some(self.number(&["WORLD_SIZE"])?),
            local_rank: self.find(&["LOCAL_RANK"]).map(|_| self.number(&["LOCAL_RANK"])).transpose()?,
            rendezvous: Some(format!("{address}:{port}")),
            job: String::new(),
        })
    }

    fn find(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, (self.variable)(name)?)))
    }

    fn text(&self, names: &[&'static str]) -> Result<String, Failure> {
        let (_, value) = self.find(names).ok_or_else(|| self.missing(names))?;
        Ok(value)
    }

    fn number<T: std::str::FromStr>(&self, names: &[&'static str]) -> Result<T, Failure> {
        let (name, value) = self.find(names).ok_or_else(|| self.missing(names))?;
        value.trim().parse().map_err(|_| {
            Failure::new(Category::Environment, format!("{name} is {value:?} and no number this can be"))
        })
    }

    fn missing(&self, names: &[&str]) -> Failure {
        let (from, help) = match self.source {
            RankSource::Slurm => ("slurm", "start it by srun, one task a process"),
            RankSource::Mpi => ("mpi", "start it by mpirun or mpiexec"),
            RankSource::Env => {
                ("env", "whoever starts the processes sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT")
            }
        };
        let message = format!("--ranks-from {from}, and {} is not in the environment", names.join(" or "));
        Failure::new(Category::Environment, message).with_help(help)
    }
}

/// The first name of a list as Slurm writes it: `gpu[003-006,010],cpu1` begins with `gpu003`.
fn first_host(list: &str) -> String {
    let mut host = String::new();
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        match character {
            ',' => break,
            '[' => {
                let inside: String = characters.by_ref().take_while(|&character| character != ']').collect();
                host.extend(inside.chars().take_while(|character| !matches!(character, ',' | '-')));
            }
            character => host.push(character),
        }
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: RankSource, variables: &[(&str, &str)]) -> Result<Assigned, Failure> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        assigned(source, &variable)
    }

    #[test]
    fn slurm_s_lists_begin_with_their_first_host() {
        for (list, host) in [
            ("node7", "node7"),
            ("gpu[003-006,010],cpu1", "gpu003"),
            ("gpu[12,14]", "gpu12"),
            ("rack[1-2]n[3-4].cluster", "rack1n3.cluster"),
            ("a,b", "a"),
        ] {
            assert_eq!(first_host(list), host);
        }
    }

    #[test]
    fn slurm_says_all() {
        let step = [
            ("SLURM_JOB_ID", "123456"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NODELIST", "gpu[01-04]"),
            ("SLURM_JOB_NODELIST", "login,gpu[01-04]"),
            ("SLURM_PROCID", "5"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_LOCALID", "1"),
        ];
        let expected = Assigned {
            rank: Some(5),
            world_size: Some(8),
            local_rank: Some(1),
            rendezvous: Some("gpu01:23456".into()),
            job: "123456.0".into(),
        };
        assert_eq!(read(RankSource::Slurm, &step).unwrap(), expected);
    }

    #[test]
    fn open_mpi_and_mpich_number_their_processes() {
        let open = [
            ("OMPI_COMM_WORLD_RANK", "2"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ];
        let mpich = [("PMI_RANK", "2"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "0")];
        for variables in [open, mpich] {
            let found = read(RankSource::Mpi, &variables).unwrap();
            assert_eq!((found.rank, found.world_size, found.local_rank), (Some(2), Some(4), Some(0)));
        }
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let failure = read(RankSource::Env, &[("MASTER_ADDR", "a")]).unwrap_err();
        assert!(failure.render().contains("MASTER_PORT"), "{}", failure.render());
        let failure = read(RankSource::Env, &[("MASTER_ADDR", "a"), ("MASTER_PORT", "70000")]).unwrap_err();
        assert!(failure.render().contains("70000"), "{}", failure.render());
        let failure = read(RankSource::Slurm, &[]).unwrap_err();
        assert!(failure.render().contains("srun"), "{}", failure.render());
    }
}
