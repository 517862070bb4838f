use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::{
    DatasetFile, DatasetManifest, FetchOptions, FetchState, FetchedFile, Unpack, fetch, find_dataset,
};
use crate::error::{Error, ErrorCategory, Result};
use crate::test_server::{Fault, Request, Server};
use crate::transfer_failure::TransferFailure;

fn bytes(n_bytes: usize) -> Vec<u8> {
    (0..n_bytes as u64).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sum(bytes: &[u8]) -> String {
    crate::shard::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes))
}

fn manifest(server: &Server, sha256: Option<String>) -> DatasetManifest {
    let file = DatasetFile {
        name: "cells.bin".into(),
        url: server.url("cells.bin"),
        sha256,
        bytes: None,
        unpack: None,
    };
    DatasetManifest { name: "mine".into(), files: vec![file], ..find_dataset("xin").unwrap() }
}

/// A fetch that does not wait between its tries.
fn run(manifest: &DatasetManifest, folder: &Path) -> Result<Vec<FetchedFile>> {
    let options = FetchOptions { retries: 3, pause: Duration::from_millis(1) };
    fetch(manifest, folder, &options, &mut |_| {})
}

fn failure(result: Result<Vec<FetchedFile>>) -> TransferFailure {
    match result {
        Err(Error::Transfer { failure, .. }) => failure,
        other => panic!("{other:?}"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn ranges(requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().map(|request| request.range.as_deref()).collect()
}

fn set_up(n_bytes: usize) -> (Server, Vec<u8>, TempDir) {
    let server = Server::start();
    let content = bytes(n_bytes);
    server.put("cells.bin", content.clone());
    (server, content, tempfile::tempdir().unwrap())
}

#[test]
fn a_file_is_fetched_once_and_compared_the_next_time() {
    let (server, content, folder) = set_up(700_000);
    let manifest = manifest(&server, Some(sum(&content)));
    let mut reported = Vec::new();
    let fetched = fetch(&manifest, folder.path(), &FetchOptions::default(), &mut |progress| {
        reported.push((progress.done, progress.total));
    })
    .unwrap();
    assert_eq!((fetched[0].state, fetched[0].verified), (FetchState::Downloaded, true));
    assert_eq!(fs::read(&fetched[0].path).unwrap(), content);
    assert_eq!(reported.last(), Some(&(700_000, Some(700_000))));
    assert_eq!(names(folder.path()), ["cells.bin", "fetched.json"]);
    assert_eq!(server.requests().len(), 1);

    assert_eq!(run(&manifest, folder.path()).unwrap()[0].state, FetchState::Present);
    assert_eq!(server.requests(), []);
    fs::write(folder.path().join("cells.bin"), b"mine").unwrap();
    let error = run(&manifest, folder.path()).unwrap_err();
    assert!(matches!(&error, Error::FetchedFileChanged { expected, .. } if *expected == sum(&content)));
    assert!(error.help().is_some());
}

#[test]
fn without_a_stated_checksum_what_came_is_remembered() {
    let (server, content, folder) = set_up(5_000);
    let manifest = manifest(&server, None);
    let first = run(&manifest, folder.path()).unwrap();
    assert_eq!((first[0].verified, &first[0].sha256), (false, &sum(&content)));
    assert!(!run(&manifest, folder.path()).unwrap()[0].verified);

    fs::remove_file(folder.path().join("cells.bin")).unwrap();
    server.put("cells.bin", bytes(4_999));
    let TransferFailure::WrongChecksum { expected, found } = failure(run(&manifest, folder.path())) else {
        panic!()
    };
    assert_eq!((expected, found), (sum(&content), sum(&bytes(4_999))));
    assert_eq!(names(folder.path()), ["fetched.json"], "what is wrong does not stay");
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    let (server, content, folder) = set_up(900_000);
    let manifest = manifest(&server, Some(sum(&content)));
    server.fail([Fault::CutAfter(300_000), Fault::Status(503), Fault::CutAfter(200_000)]);
    run(&manifest, folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("cells.bin")).unwrap(), content);
    let requests = server.requests();
    assert_eq!(
        ranges(&requests),
        [None, Some("bytes=300000-"), Some("bytes=300000-"), Some("bytes=500000-")]
    );
}

#[test]
fn another_run_goes_on_where_the_first_gave_up() {
    let (server, content, folder) = set_up(900_000);
    let manifest = manifest(&server, Some(sum(&content)));
    server.fail([Fault::CutAfter(300_000), Fault::Status(500), Fault::Status(502), Fault::Status(429)]);
    assert_eq!(failure(run(&manifest, folder.path())), TransferFailure::Status { status: 429 });
    assert_eq!(names(folder.path()), ["cells.bin.part", "cells.bin.part.json"]);
    server.requests();

    run(&manifest, folder.path()).unwrap();
    assert_eq!(ranges(&server.requests()), [Some("bytes=300000-")]);
    assert_eq!(fs::read(folder.path().join("cells.bin")).unwrap(), content);
    assert_eq!(names(folder.path()), ["cells.bin", "fetched.json"]);
}

#[test]
fn a_file_that_changed_meanwhile_is_not_glued_together() {
    for ignores in [false, true] {
        let (server, _, folder) = set_up(900_000);
        let manifest = manifest(&server, None);
        server.fail([Fault::CutAfter(300_000), Fault::Status(404)]);
        assert_eq!(failure(run(&manifest, folder.path())), TransferFailure::NotFound);
        let new = [bytes(800_000), vec![1]].concat();
        server.put("cells.bin", new.clone());
        // A server that sends the rest in spite of its other name is caught by that name.
        server.fail(ignores.then_some(Fault::IgnoreIfRange));
        run(&manifest, folder.path()).unwrap();
        assert!(fs::read(folder.path().join("cells.bin")).unwrap() == new, "ignores: {ignores}");
    }
}

#[test]
fn a_server_that_sends_no_parts_is_asked_for_everything_again() {
    let (server, content, folder) = set_up(400_000);
    let manifest = manifest(&server, Some(sum(&content)));
    server.fail([Fault::CutAfter(150_000), Fault::IgnoreRange]);
    run(&manifest, folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("cells.bin")).unwrap(), content);

    // Nor does it go on for ever, however much comes each time.
    fs::remove_dir_all(folder.path()).unwrap();
    server.requests();
    server.always("", Fault::IgnoreRangeAndCutAfter(150_000));
    let broken = failure(run(&manifest, folder.path()));
    assert!(matches!(broken, TransferFailure::Interrupted { received: 150_000, .. }), "{broken:?}");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn what_cannot_be_had_says_why() {
    let (server, content, folder) = set_up(10_000);
    let url = server.url("cells.bin");
    let with = |sha256: Option<String>, bytes: Option<u64>, url: String| {
        let mut manifest = manifest(&server, sha256);
        manifest.files[0] = DatasetFile { bytes, url, ..manifest.files[0].clone() };
        failure(run(&manifest, folder.path()))
    };
    let other = "0".repeat(64);
    assert_eq!(
        with(Some(other.clone()), None, url.clone()),
        TransferFailure::WrongChecksum { expected: other, found: sum(&content) }
    );
    assert_eq!(with(None, Some(9), url.clone()), TransferFailure::WrongLength { expected: 9, found: 10_000 });
    assert_eq!(with(None, None, server.url("nothing")), TransferFailure::NotFound);
    server.fail([Fault::Status(403)]);
    assert!(matches!(with(None, None, url.clone()), TransferFailure::Denied { .. }));
    server.fail([Fault::Status(418)]);
    assert_eq!(with(None, None, url.clone()), TransferFailure::Status { status: 418 });
    // Nobody listens on a port that was just let go of.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let offline = with(None, None, format!("http://{free}/cells.bin"));
    assert!(matches!(offline, TransferFailure::Unreachable { .. }), "{offline:?}");
    assert_eq!(offline.category(), ErrorCategory::Environment);
    assert!(matches!(with(None, None, "http://".into()), TransferFailure::BadUrl { .. }));
    server.fail([Fault::OtherBytes]);
    assert!(matches!(with(Some(sum(&content)), None, url), TransferFailure::WrongChecksum { .. }));
    assert!(names(folder.path()).iter().all(|name| name.starts_with("cells.bin.part")));
}

#[test]
fn redirects_are_followed_and_an_answer_without_a_length_ends_where_it_ends() {
    let (server, content, folder) = set_up(300_000);
    let manifest = manifest(&server, Some(sum(&content)));
    server.fail([Fault::Redirect("/cells.bin?moved".into()), Fault::Unmarked]);
    run(&manifest, folder.path()).unwrap();
    assert_eq!(fs::read(folder.path().join("cells.bin")).unwrap(), content);
    assert_eq!(server.requests().last().unwrap().path, "/cells.bin?moved");
}

#[test]
fn gzip_is_unpacked_where_the_manifest_says_so() {
    let (server, content, folder) = set_up(200_000);
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(&content).unwrap();
    let packed = packer.finish().unwrap();
    server.put("cells.csv.gz", packed.clone());
    let file = DatasetFile {
        name: "cells.csv.gz".into(),
        url: server.url("cells.csv.gz"),
        sha256: Some(sum(&packed)),
        bytes: None,
        unpack: Some(Unpack::Gzip),
    };
    let mut manifest = DatasetManifest { files: vec![file], ..manifest(&server, None) };
    let fetched = run(&manifest, folder.path()).unwrap();
    assert_eq!((fetched[0].bytes, &fetched[0].sha256), (200_000, &sum(&packed)));
    assert_eq!(names(folder.path()), ["cells.csv", "fetched.json"]);
    assert_eq!(fs::read(folder.path().join("cells.csv")).unwrap(), content);
    assert_eq!(run(&manifest, folder.path()).unwrap()[0].state, FetchState::Present);

    let folder = tempfile::tempdir().unwrap();
    server.put("cells.csv.gz", &packed[..packed.len() - 9]);
    manifest.files[0].sha256 = None;
    assert!(matches!(failure(run(&manifest, folder.path())), TransferFailure::BadAnswer { .. }));
    assert_eq!(names(folder.path()), [""; 0], "neither half a file nor a packed one that is damaged");
}

#[test]
fn a_file_of_this_machine_is_copied_and_one_that_is_there_is_taken_if_it_is_the_one() {
    let (server, content, folder) = set_up(3_000);
    let source = folder.path().join("a source.bin");
    fs::write(&source, &content).unwrap();
    let mut manifest = manifest(&server, Some(sum(&content)));
    manifest.files[0].url = format!("file://{}", source.to_str().unwrap().replace(' ', "%20"));
    let copies = folder.path().join("copies");
    run(&manifest, &copies).unwrap();
    assert_eq!(fs::read(copies.join("cells.bin")).unwrap(), content);

    fs::remove_file(copies.join("fetched.json")).unwrap();
    fs::remove_file(&source).unwrap();
    assert_eq!(run(&manifest, &copies).unwrap()[0].state, FetchState::Present);
    fs::remove_file(copies.join("fetched.json")).unwrap();
    fs::write(copies.join("cells.bin"), b"mine").unwrap();
    assert!(matches!(run(&manifest, &copies), Err(Error::FileExists { .. })));
    assert_eq!(fs::read(copies.join("cells.bin")).unwrap(), b"mine");
}

#[test]
fn two_processes_do_not_write_the_same_file() {
    let (server, _, folder) = set_up(3_000);
    let part = fs::File::create(folder.path().join("cells.bin.part")).unwrap();
    part.lock().unwrap();
    assert!(matches!(run(&manifest(&server, None), folder.path()), Err(Error::FolderBusy { .. })));
    drop(part);
    run(&manifest(&server, None), folder.path()).unwrap();
}

#[test]
fn cells_that_are_made_cannot_be_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let made = find_dataset("synthetic").unwrap();
    assert!(matches!(run(&made, folder.path()), Err(Error::NothingToFetch { .. })));
}
