use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::store::Store;
use super::{CacheOptions, RemoteFiles};
use crate::error::{Error, Result};
use crate::shard::fixture::{MemorySource, options, write};
use crate::test_server::{Fault, Server};
use crate::transfer_failure::TransferFailure;
use crate::{Loader, LoaderOptions, MaskedBatch, RowSelection, ShardOptions, ShardSet};

/// A set of several files, on this machine and on a server.
struct Fixture {
    folder: TempDir,
    local: Arc<ShardSet>,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Enough cells for several files, of which each has more than one row group.
        let options = ShardOptions { max_memory: 16 << 20, row_group_cells: 512, ..options() };
        let local = write(&[MemorySource::random(40_000, 900, 1)], &folder.path().join("set"), &options);
        let local = Arc::new(local.unwrap());
        assert!(local.manifest().files.len() > 8, "{}", local.manifest().files.len());
        let server = Server::start();
        server.put_folder("sets/mine", local.path());
        Self { folder, local, server }
    }

    fn cache(&self, max_bytes: u64) -> CacheOptions {
        CacheOptions { folder: self.folder.path().join("cache"), max_bytes }
    }

    fn open(&self, max_bytes: u64) -> Result<Arc<ShardSet>> {
        ShardSet::open_url(&self.server.url("sets/mine/"), self.cache(max_bytes)).map(Arc::new)
    }

    /// Bytes of all files.
    fn bytes(&self) -> u64 {
        self.local.manifest().files.iter().map(|file| file.bytes).sum()
    }

    fn cached(&self) -> u64 {
        let entries = fs::read_dir(self.folder.path().join("cache")).unwrap();
        entries.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }
}

fn loader(set: &Arc<ShardSet>) -> Loader {
    let options = LoaderOptions {
        batch_size: 256,
        window_cells: 2_000,
        seed: 3,
        threads: 2,
        ..LoaderOptions::default()
    };
    Loader::new(Arc::clone(set), RowSelection::all(set.n_cells() as u64), options).unwrap()
}

fn epoch(loader: &Loader, number: u64, first_batch: usize) -> Vec<MaskedBatch> {
    loader.epoch(number, first_batch).map(Result::unwrap).collect()
}

fn failure<T: std::fmt::Debug>(result: Result<T>) -> TransferFailure {
    match result {
        Err(Error::Transfer { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_set_on_a_server_gives_the_batches_of_its_copy_here_bit_for_bit() {
    let fixture = Fixture::new();
    let remote = fixture.open(1 << 30).unwrap();
    let (here, there) = (loader(&fixture.local), loader(&remote));
    let expected = epoch(&here, 1, 0);
    assert_eq!(epoch(&there, 1, 0), expected);
    assert_eq!(epoch(&there, 1, expected.len() / 2), expected[expected.len() / 2..]);
    assert_eq!(remote.rows().unwrap(), fixture.local.rows().unwrap());
    assert_eq!(remote.vocabulary().unwrap().hash(), fixture.local.vocabulary().unwrap().hash());
    remote.verify().unwrap();
}

#[test]
fn a_second_epoch_asks_for_nothing_and_another_run_for_the_manifest_alone() {
    let fixture = Fixture::new();
    let remote = loader(&fixture.open(1 << 30).unwrap());
    let n_batches = epoch(&remote, 1, 0).len();
    let asked: Vec<String> = fixture.server.requests().into_iter().map(|request| request.path).collect();
    for file in &fixture.local.manifest().files {
        let path = format!("/sets/mine/{}", file.name);
        assert_eq!(asked.iter().filter(|asked| **asked == path).count(), 1, "{path} of {asked:?}");
    }
    assert_eq!(epoch(&remote, 2, 0).len(), n_batches);
    assert_eq!(fixture.server.requests(), []);

    let again = loader(&fixture.open(1 << 30).unwrap());
    assert_eq!(epoch(&again, 1, 0), epoch(&loader(&fixture.local), 1, 0));
    let asked: Vec<String> = fixture.server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(asked, ["/sets/mine/manifest.json"]);
}

#[test]
fn files_come_before_anybody_waits_for_them() {
    let fixture = Fixture::new();
    let remote = fixture.open(1 << 30).unwrap();
    let all = remote.manifest().files.len() + remote.manifest().side_files.len() - 1;
    let mut batches = loader(&remote).epoch(1, 0);
    batches.next().unwrap().unwrap();
    // Nobody asks for another batch, and yet the rest of the files come.
    let began = Instant::now();
    let n_cached = || fs::read_dir(fixture.folder.path().join("cache")).unwrap().count();
    while n_cached() < all && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(n_cached() >= all, "{} of {all}", n_cached());
}

#[test]
fn a_cache_that_is_too_small_is_kept_small_and_gives_the_same() {
    let fixture = Fixture::new();
    let limit = fixture.bytes() / 4;
    let remote = loader(&fixture.open(limit).unwrap());
    let expected = epoch(&loader(&fixture.local), 1, 0);
    let mut most = 0;
    for (batch, expected) in remote.epoch(1, 0).zip(expected) {
        assert_eq!(batch.unwrap(), expected);
        most = most.max(fixture.cached());
    }
    // What is in use may come on top for a while.
    let largest = fixture.local.manifest().files.iter().map(|file| file.bytes).max().unwrap();
    assert!(limit + 4 * largest < fixture.bytes());
    assert!(most <= limit + 4 * largest && most > 0, "{most} of {limit}");
}

#[test]
fn a_server_that_fails_twice_works_and_one_that_always_fails_is_reported() {
    let fixture = Fixture::new();
    fixture.server.fail([Fault::Status(503), Fault::Status(500)]);
    let remote = fixture.open(1 << 30).unwrap();
    fixture.server.fail([Fault::Status(503), Fault::CutAfter(1_000), Fault::CutAfter(2_000)]);
    assert_eq!(epoch(&loader(&remote), 1, 0), epoch(&loader(&fixture.local), 1, 0));

    fs::remove_dir_all(fixture.folder.path().join("cache")).unwrap();
    let remote = fixture.open(1 << 30).unwrap();
    fixture.server.always("sets/mine/cells", Fault::Status(403));
    let mut batches = loader(&remote).epoch(1, 0);
    assert!(matches!(failure(batches.next().unwrap()), TransferFailure::Denied { .. }));
    assert!(batches.next().is_none());
}

#[test]
fn a_file_that_changed_is_refused_wherever_it_changed() {
    let fixture = Fixture::new();
    let name = &fixture.local.manifest().files[0].name;
    let mut bytes = fs::read(fixture.local.path().join(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fixture.server.put(&format!("sets/mine/{name}"), bytes.clone());
    let remote = fixture.open(1 << 30).unwrap();
    let failed = |batches: Vec<Result<MaskedBatch>>| failure(batches.into_iter().next_back().unwrap());
    let found = failed(loader(&remote).epoch(1, 0).collect());
    assert!(matches!(found, TransferFailure::WrongChecksum { .. }), "{found:?}");
    bytes.push(0);
    fixture.server.put(&format!("sets/mine/{name}"), bytes);
    assert!(matches!(failure(remote.verify()), TransferFailure::WrongLength { .. }));
    fixture.server.remove(&format!("sets/mine/{name}"));
    assert_eq!(failure(remote.verify()), TransferFailure::NotFound);

    // Nor is a file of the cache believed that somebody else wrote there: it comes again.
    fixture.server.put_folder("sets/mine", fixture.local.path());
    let entry = &fixture.local.manifest().files[0];
    let cached = fixture.folder.path().join(format!("cache/{}.parquet", entry.sha256));
    fs::write(&cached, vec![0; entry.bytes as usize]).unwrap();
    fixture.open(1 << 30).unwrap().verify().unwrap();
    assert_eq!(fs::read(cached).unwrap(), fs::read(fixture.local.path().join(name)).unwrap());
}

#[test]
fn what_is_no_set_says_so() {
    let fixture = Fixture::new();
    let open = |url: &str| ShardSet::open_url(url, fixture.cache(1 << 30));
    let nothing = open(&fixture.server.url("elsewhere")).unwrap_err();
    assert!(matches!(&nothing, Error::NotAShardSet { reason, .. } if reason.contains("manifest.json")));
    assert!(nothing.to_string().contains("/elsewhere"), "{nothing}");
    fixture.server.put("bad/manifest.json", "{}");
    assert!(matches!(open(&fixture.server.url("bad")), Err(Error::NotAShardSet { .. })));
    let manifest = fs::read_to_string(fixture.local.path().join("manifest.json")).unwrap();
    let hostile = manifest.replace(&fixture.local.manifest().files[0].sha256, "../../../escaped");
    fixture.server.put("bad/manifest.json", hostile);
    assert!(
        matches!(open(&fixture.server.url("bad")), Err(Error::NotAShardSet { reason, .. }) if reason.contains("64 hex"))
    );
    for url in ["ftp://host/set", "s3://", "https://host/set?key=1", "set"] {
        let failure = failure(open(url));
        assert!(matches!(failure, TransferFailure::BadUrl { .. }), "{url}: {failure:?}");
    }
    fixture.server.always("sets/mine", Fault::Status(401));
    let denied = failure(fixture.open(1 << 30));
    assert!(matches!(denied, TransferFailure::Denied { .. }));
    assert!(denied.help().unwrap().contains("AWS_ACCESS_KEY_ID"));
    let here = format!("file://{}", fixture.local.path().display());
    assert_eq!(open(&here).unwrap().n_cells(), fixture.local.n_cells());
}

#[test]
fn a_bucket_of_s3_is_read_like_a_folder() {
    let fixture = Fixture::new();
    fixture.server.put_folder("bucket/some/set", fixture.local.path());
    let environment = [
        ("AWS_ENDPOINT", fixture.server.url("")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_ACCESS_KEY_ID", "key".into()),
        ("AWS_SECRET_ACCESS_KEY", "secret".into()),
        ("AWS_REGION", "eu-central-1".into()),
        ("AWS_PAGER", "less".into()),
    ];
    let environment =
        environment.map(|(key, value)| (key.to_owned(), value.trim_end_matches('/').to_owned()));
    let store = Store::open("s3://bucket/some/set", environment.into_iter()).unwrap();
    let files = RemoteFiles::with(store, fixture.cache(1 << 30)).unwrap();
    let set = Arc::new(ShardSet::open_remote(files).unwrap());
    assert_eq!(epoch(&loader(&set), 1, 0), epoch(&loader(&fixture.local), 1, 0));
    assert_eq!(set.path(), Path::new("s3://bucket/some/set"));
}
