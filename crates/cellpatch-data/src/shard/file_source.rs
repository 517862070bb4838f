//! Files of a set that lie elsewhere, and bringing them before they are needed.

use std::{
    fmt::Debug,
    fs::File,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::Builder,
};

use crate::error::{Error, Result};

/// A file as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedFile {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Where the files of a set come from, if they are not in its folder.
pub(crate) trait FileSource: Debug + Send + Sync {
    /// Opens a file, which is brought here first if need be, and says where it is. Its bytes have the manifest's checksum. It
    /// stays as long as the handle is open.
    ///
    /// # Errors
    /// [`Error::Transfer`] for whatever the network does, [`Error::Io`] for the disk.
    fn open(&self, file: &DescribedFile) -> Result<(File, PathBuf)>;

    /// How many bytes of files may be brought before their turn.
    fn bytes_ahead(&self) -> u64;
}

/// Threads that fetch: as many connections as they are.
const N_THREADS: usize = 4;

/// Brings files in the order of their use, some way ahead of who uses them. Dropped, it stops after the files it is at.
#[derive(Debug)]
pub(crate) struct FetchAhead {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    source: Arc<dyn FileSource>,
    /// Each with the turn in which it is needed.
    files: Vec<(usize, DescribedFile)>,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The file whose turn it is to be brought.
    next: usize,
    /// The turn that has begun.
    turn: usize,
    stopped: bool,
}

impl FetchAhead {
    /// Begins to bring files.
    ///
    /// - `files`: each with the turn in which it is needed, ascending
    pub(crate) fn start(source: Arc<dyn FileSource>, files: Vec<(usize, DescribedFile)>) -> Result<Self> {
        let turn = files.first().map_or(0, |&(turn, _)| turn);
        let state = Mutex::new(State { turn, ..State::default() });
        let shared = Arc::new(Shared { source, files, state, moved: Condvar::new() });
        for number in 0..N_THREADS {
            let shared = Arc::clone(&shared);
            Builder::new()
                .name(format!("fetch-{number}"))
                .spawn(move || shared.run())
                .map_err(|source| Error::io("start", "threads that fetch files", source))?;
        }
        Ok(Self { shared })
    }

    /// Says that a turn has begun: what was needed before counts no longer.
    pub(crate) fn reached(&self, turn: usize) {
        self.shared.state().turn = turn;
        self.shared.moved.notify_all();
    }
}

impl Drop for FetchAhead {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.moved.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(index) = self.next() {
            // Who needs the file asks for it again, and is told what is wrong with it.
            let _ = self.source.open(&self.files[index].1);
        }
    }

    /// Waits until a file may be brought.
    fn next(&self) -> Option<usize> {
        let mut state = self.state();
        loop {
            // Files of turns that are over need not be brought any more.
            while self.files.get(state.next).is_some_and(|&(turn, _)| turn < state.turn) {
                state.next += 1;
            }
            if state.stopped || state.next == self.files.len() {
                return None;
            }
            let ahead = &self.files[..=state.next];
            let ahead = ahead.iter().rev().take_while(|&&(turn, _)| turn > state.turn);
            let n_bytes: u64 = ahead.map(|(_, file)| file.bytes).sum();
            if n_bytes <= self.source.bytes_ahead() {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Notes what was asked for.
    #[derive(Debug, Default)]
    struct Notes(Mutex<Vec<String>>);

    impl FileSource for Notes {
        fn open(&self, file: &DescribedFile) -> Result<(File, PathBuf)> {
            self.0.lock().unwrap().push(file.name.clone());
            Err(Error::NotFound { path: file.name.clone().into() })
        }

        fn bytes_ahead(&self) -> u64 {
            25
        }
    }

    fn wait_for(notes: &Notes, n_files: usize) -> Vec<String> {
        let began = Instant::now();
        while notes.0.lock().unwrap().len() < n_files && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // What should not be asked for would be by now.
        std::thread::sleep(Duration::from_millis(30));
        let mut names = notes.0.lock().unwrap().clone();
        names.sort();
        names
    }

    #[test]
    fn files_are_brought_in_turn_and_not_too_far_ahead() {
        let notes = Arc::new(Notes::default());
        let file = |turn: usize| {
            (turn, DescribedFile { name: format!("f{turn}"), bytes: 10, sha256: String::new() })
        };
        let ahead = FetchAhead::start(Arc::clone(&notes) as _, (0..10).map(file).collect()).unwrap();
        assert_eq!(wait_for(&notes, 3), ["f0", "f1", "f2"]);
        ahead.reached(1);
        assert_eq!(wait_for(&notes, 4), ["f0", "f1", "f2", "f3"]);
        // Turns that went by unnoticed are not made up for.
        ahead.reached(6);
        assert_eq!(wait_for(&notes, 7), ["f0", "f1", "f2", "f3", "f6", "f7", "f8"]);
        drop(ahead);
        assert_eq!(wait_for(&notes, 7).len(), 7);
    }
}
