//! What is on the disk when a process is killed, and what the next one makes of it.

use super::{super::fixture::Inputs, *};

const WORK: &str = ".cellpatch-shards-unfinished";

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let copy = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &copy),
            false => fs::copy(entry.path(), copy).map(drop).unwrap(),
        }
    }
}

/// Three files' worth of cells from three inputs, in 16 MiB.
fn inputs() -> (Inputs, ShardOptions) {
    let sources: Vec<_> = (0..3).map(|index| MemorySource::random(1000, 2000, index)).collect();
    let options = ShardOptions { max_memory: 16 << 20, row_group_cells: 256, ..options() };
    (Inputs::new(&sources), options)
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_bytes() {
    const N_MOMENTS: usize = 24;
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("whole");
    let mut n_events = 0;
    inputs.write(&out, &options, &mut |_| n_events += 1).unwrap();
    let whole = contents_of(&out);
    assert!(whole.len() > 5, "several files are made: {:?}", whole.keys());

    // A killed process leaves the disk as it is at that moment.
    let (first_read, mut event, mut moments) = (inputs.n_reads(), 0, Vec::new());
    let out = folder.path().join("watched");
    inputs
        .write(&out, &options, &mut |progress| {
            let is_moment = event * N_MOMENTS / n_events != (event + 1) * N_MOMENTS / n_events;
            if is_moment || progress.stage == ShardStage::Write {
                let copy = folder.path().join(format!("moment-{event}"));
                copy_folder(&out, &copy);
                let n_begun = inputs.n_reads() - first_read;
                let n_read = if progress.stage == ShardStage::Write { n_begun } else { n_begun - 1 };
                moments.push((copy, n_read));
            }
            event += 1;
        })
        .unwrap();
    assert!(moments.len() >= N_MOMENTS, "{} moments", moments.len());
    for (copy, n_read) in moments {
        let interrupted = ShardSet::open(&copy).unwrap_err();
        assert!(matches!(interrupted, Error::NotAShardSet { .. }), "{interrupted}");
        let reads_before = inputs.n_reads();
        inputs.write(&copy, &options, &mut |_| {}).unwrap();
        assert_eq!(inputs.n_reads() - reads_before, 6 - n_read, "finished inputs are not read again");
        assert!(contents_of(&copy) == whole, "{}", copy.display());
    }
}

/// Cuts the files that nothing vouches for yet, as if the process had been killed in the middle of writing them.
fn cut_unfinished(out: &Path, random: &mut crate::random::RandomStream) {
    let work = out.join(WORK);
    let names: Vec<String> =
        fs::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in names.iter().filter(|name| name.ends_with(".parquet")) {
        let note = name.replace("cells-", "encoded-").replace(".parquet", ".json");
        if !names.contains(&note) {
            let file = fs::File::options().write(true).open(work.join(name)).unwrap();
            let n_bytes = file.metadata().unwrap().len();
            file.set_len(u64::from(random.below(n_bytes as u32 + 1))).unwrap();
        }
    }
}

#[test]
fn runs_killed_at_fifty_random_moments_go_on_to_the_same_bytes() {
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let mut random = crate::random::stream(17, crate::random::Purpose::Synthesis, 0, 0);
    let whole = folder.path().join("whole");
    // All cells are kept from the first pass, those of one input, or none.
    let mut n_killed = [0; 3];
    for (way, keep_bytes) in [usize::MAX, 3 << 20, 0].into_iter().enumerate() {
        let mut n_events = 0;
        inputs.write_keeping(keep_bytes, &whole, &options, &mut |_| n_events += 1).unwrap();
        let contents = contents_of(&whole);
        fs::remove_dir_all(&whole).unwrap();
        let mut moments: Vec<u32> = (0..[16, 17, 17][way]).map(|_| random.below(n_events)).collect();
        moments.sort_unstable();
        let out = folder.path().join(format!("watched-{way}"));
        let (mut event, mut copies) = (0, Vec::new());
        let mut watch = |_| {
            for (index, _) in moments.iter().enumerate().filter(|&(_, &moment)| moment == event) {
                let copy = folder.path().join(format!("moment-{way}-{index}"));
                copy_folder(&out, &copy);
                cut_unfinished(&copy, &mut random);
                copies.push(copy);
            }
            event += 1;
        };
        inputs.write_keeping(keep_bytes, &out, &options, &mut watch).unwrap();
        for copy in copies {
            assert!(ShardSet::open(&copy).is_err());
            inputs.write_keeping(keep_bytes, &copy, &options, &mut |_| {}).unwrap();
            assert!(contents_of(&copy) == contents, "{}", copy.display());
            fs::remove_dir_all(&copy).unwrap();
            n_killed[way] += 1;
        }
    }
    assert_eq!(n_killed, [16, 17, 17]);
}

#[test]
fn a_commit_interrupted_between_any_two_renames_is_completed() {
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let (out, before) = (folder.path().join("whole"), folder.path().join("before"));
    inputs
        .write(&out, &options, &mut |progress| {
            if progress.stage == ShardStage::Write && progress.done == progress.total {
                copy_folder(&out, &before);
            }
        })
        .unwrap();
    let whole = contents_of(&out);
    for side in [VOCABULARY_FILE, SOURCES_FILE] {
        fs::copy(out.join(side), before.join(WORK).join(side)).unwrap();
    }
    let set = ShardSet::open(&out).unwrap();
    let names = set.manifest().files.iter().map(|file| &file.name);
    let names: Vec<&String> = names.chain(set.manifest().side_files.iter().map(|file| &file.name)).collect();
    for n_moved in 0..=names.len() {
        let copy = folder.path().join(format!("moved-{n_moved}"));
        copy_folder(&before, &copy);
        for name in &names[..n_moved] {
            fs::rename(copy.join(WORK).join(name), copy.join(name)).unwrap();
        }
        fs::write(copy.join(WORK).join(MANIFEST_FILE), b"{\"format\": \"cell").unwrap();
        assert!(ShardSet::open(&copy).is_err());
        let n_reads = inputs.n_reads();
        inputs.write(&copy, &options, &mut |_| {}).unwrap();
        assert_eq!(inputs.n_reads(), n_reads, "nothing is read again");
        assert!(contents_of(&copy) == whole, "{n_moved} files had been moved");
    }
    // Killed after the last rename: the set is whole, and what is left beside it goes.
    copy_folder(&before.join(WORK), &out.join(WORK));
    inputs.write(&out, &options, &mut |_| {}).unwrap();
    assert!(contents_of(&out) == whole);
}

#[test]
fn notes_that_are_damaged_are_not_relied_on() {
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let (out, before) = (folder.path().join("whole"), folder.path().join("before"));
    inputs
        .write(&out, &options, &mut |progress| {
            let in_last_input = progress.stage == ShardStage::Permute && progress.done > 2500;
            if in_last_input && !before.exists() {
                copy_folder(&out, &before);
            }
        })
        .unwrap();
    let whole = contents_of(&out);
    for (name, damage) in [
        ("job.json", "\"another job\""),
        ("survey-00001.json", "{\"n_cells\": 1"),
        ("buckets.json", "[]"),
        ("bucket-00001", "cut short"),
    ] {
        let copy = folder.path().join(format!("without-{name}"));
        copy_folder(&before, &copy);
        assert!(copy.join(WORK).join(name).exists(), "{name} is there to be damaged");
        fs::write(copy.join(WORK).join(name), damage).unwrap();
        inputs.write(&copy, &options, &mut |_| {}).unwrap();
        assert!(contents_of(&copy) == whole, "{name}");
    }
    // A byte of a bucket that was complete, as a failing disk would change it.
    let bucket = before.join(WORK).join("bucket-00002");
    let mut bytes = fs::read(&bucket).unwrap();
    bytes[1000] ^= 1;
    fs::write(&bucket, bytes).unwrap();
    inputs.write(&before, &options, &mut |_| {}).unwrap();
    assert!(contents_of(&before) == whole);
}

#[test]
fn another_request_starts_over_and_the_same_one_is_done_at_once() {
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let (out, before) = (folder.path().join("whole"), folder.path().join("before"));
    inputs
        .write(&out, &options, &mut |progress| {
            if progress.stage == ShardStage::Permute && !before.exists() {
                copy_folder(&out, &before);
            }
        })
        .unwrap();
    let (whole, n_reads) = (contents_of(&out), inputs.n_reads());
    inputs.write(&out, &options, &mut |_| {}).unwrap();
    assert_eq!(inputs.n_reads(), n_reads, "a finished set is not made again");
    assert!(contents_of(&out) == whole);
    let other = ShardOptions { seed: 8, ..options };
    let refused = inputs.write(&out, &other, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, Error::FolderNotEmpty { .. }), "{refused}");

    let fresh = folder.path().join("fresh");
    inputs.write(&before, &other, &mut |_| {}).unwrap();
    inputs.write(&fresh, &other, &mut |_| {}).unwrap();
    assert!(contents_of(&before) == contents_of(&fresh));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (inputs, options) = inputs();
    let folder = TempDir::new().unwrap();
    let on = |n_threads: usize, keep_bytes: usize| {
        let out = folder.path().join(format!("{n_threads}-threads-{keep_bytes}"));
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        threads.install(|| inputs.write_keeping(keep_bytes, &out, &options, &mut |_| {})).unwrap();
        contents_of(&out)
    };
    let one = on(1, 0);
    for n_threads in [1, 2, 8] {
        assert!(on(n_threads, 0) == one && on(n_threads, usize::MAX) == one, "{n_threads} threads");
    }
}
