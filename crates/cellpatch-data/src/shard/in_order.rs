//! Work on several threads whose results are taken in order.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc},
};

use crate::error::{Error, Result};

/// How far the work is.
#[derive(Debug, Default)]
struct Progress {
    n_begun: usize,
    n_taken: usize,
    is_over: bool,
}

/// Ends the work where a thread leaves it, by an error or a panic too.
struct OverOnDrop<'a>(&'a Mutex<Progress>, &'a Condvar);

impl Drop for OverOnDrop<'_> {
    fn drop(&mut self) {
        lock(self.0).is_over = true;
        self.1.notify_all();
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    // A thread that panicked has changed no more than a count.
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes `n_items` items on as many threads as the current pool has, and takes each on this thread, in order.
///
/// - `n_ahead`: items that are begun and not taken yet, at most
///
/// # Errors
/// The first of `take`, or the first of `make` that is taken.
pub(super) fn in_order<T: Send>(
    n_items: usize,
    n_ahead: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let n_ahead = n_ahead.max(1);
    let n_threads = rayon::current_num_threads().min(n_items).min(n_ahead);
    let (progress, changed) = (Mutex::new(Progress::default()), Condvar::new());
    let next = || {
        let mut progress = lock(&progress);
        while !progress.is_over
            && progress.n_begun < n_items
            && progress.n_begun >= progress.n_taken + n_ahead
        {
            progress = changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if progress.is_over || progress.n_begun == n_items {
            return None;
        }
        progress.n_begun += 1;
        Some(progress.n_begun - 1)
    };
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        let _over = OverOnDrop(&progress, &changed);
        for _ in 0..n_threads {
            let sender = sender.clone();
            let (next, make, progress, changed) = (&next, &make, &progress, &changed);
            scope.spawn(move || {
                while let Some(index) = next() {
                    let guard = OverOnDrop(progress, changed);
                    let item = make(index);
                    std::mem::forget(guard);
                    // Fails when the taker gave up.
                    if sender.send((index, item)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let mut waiting = BTreeMap::new();
        for index in 0..n_items {
            let item = loop {
                match waiting.remove(&index) {
                    Some(item) => break item,
                    None => {
                        let (index, item) = receiver.recv().map_err(|_| Error::Io {
                            action: "make",
                            path: "shards".into(),
                            source: std::io::Error::other("a thread panicked"),
                        })?;
                        waiting.insert(index, item);
                    }
                }
            };
            take(index, item?)?;
            lock(&progress).n_taken = index + 1;
            changed.notify_all();
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn items_are_taken_in_order_and_few_are_made_ahead() {
        for n_items in [0, 1, 2, 100] {
            let (n_made, mut taken) = (AtomicUsize::new(0), Vec::new());
            let ahead = 4;
            let make = |index: usize| {
                n_made.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(std::time::Duration::from_micros((index as u64 * 37) % 300));
                Ok(index * 2)
            };
            in_order(n_items, ahead, make, |index, item| {
                assert!(n_made.load(Ordering::SeqCst) <= index + ahead, "{index}");
                taken.push((index, item));
                Ok(())
            })
            .unwrap();
            assert_eq!(taken, (0..n_items).map(|index| (index, index * 2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_the_work() {
        let fail = || Error::Io { action: "make", path: "x".into(), source: std::io::Error::other("no") };
        let mut n_taken = 0;
        let made = in_order(
            50,
            3,
            |index| if index == 7 { Err(fail()) } else { Ok(index) },
            |_, _| {
                n_taken += 1;
                Ok(())
            },
        );
        assert!(made.is_err());
        assert_eq!(n_taken, 7);
        assert!(in_order(50, 3, Ok, |index, _| if index == 3 { Err(fail()) } else { Ok(()) }).is_err());
    }
}
