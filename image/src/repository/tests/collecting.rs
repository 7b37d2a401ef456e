//! Garbage collection, alone and beside writers.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::error::Error;
use crate::transfer::Context;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn collect(repository: &Repository, grace: Duration) -> Collected {
    repository
        .collect(GcOptions { grace }, &Context::silent())
        .unwrap()
}

#[test]
fn only_what_is_old_and_unused_goes() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "a", &[b"shared", b"only a"]);
    put_image(repository, "b", &[b"shared", b"only b"]);
    let young = put_blob(repository, b"an import in progress");
    assert_eq!(collect(repository, Duration::ZERO).blobs, 1);
    assert_eq!(repository.blob_size(young).unwrap(), None);
    let young = put_blob(repository, b"an import in progress");
    repository.delete("a", None).unwrap();
    for digest in repository.blob_files().unwrap().blobs {
        if digest != young {
            age(&repository.blob_path(digest), 2 * DAY);
        }
    }
    let collected = collect(repository, DAY);
    assert_eq!((collected.blobs, collected.spared), (3, 1));
    assert_eq!(repository.blob_size(young).unwrap(), Some(21));
    assert_eq!(
        repository.blob_size(Digest::of(b"shared")).unwrap(),
        Some(6)
    );
    assert!(
        repository
            .verify(&Context::silent())
            .unwrap()
            .problems
            .is_empty()
    );
}

#[test]
fn unreadable_metadata_stops_it() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "a", &[b"1"]);
    let garbage = put_blob(repository, b"garbage");
    for (file, content) in [("bad@0", "{"), ("junk", "x")] {
        let path = repository.path().join("meta").join(file);
        fs::write(&path, content).unwrap();
        let options = GcOptions {
            grace: Duration::ZERO,
        };
        let error = repository
            .collect(options, &Context::silent())
            .unwrap_err()
            .to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert_eq!(repository.blob_size(garbage).unwrap(), Some(7));
        fs::remove_file(path).unwrap();
    }
    assert_eq!(collect(repository, Duration::ZERO).blobs, 1);
}

#[test]
fn what_dead_processes_left_goes() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    repository.version().unwrap();
    let tmp = repository.path().join(".tmp");
    let mine = repository.temp_blob().unwrap();
    let path = mine.path();
    let name = path.file_name().unwrap().to_str().unwrap();
    let own_pid = format!(".{}.", std::process::id());
    let dead = tmp.join(name.replace(&own_pid, ".4194999."));
    fs::write(&dead, "x").unwrap();
    let old = tmp.join("tmpab12");
    fs::create_dir(&old).unwrap();
    age(&old, 30 * DAY);
    let young = tmp.join("tmpcd34");
    fs::write(&young, "x").unwrap();
    assert_eq!(collect(repository, DAY).temporary, 1);
    assert!(dead.exists());
    assert_eq!(collect(repository, Duration::ZERO).temporary, 1);
    assert!(mine.path().exists() && young.exists());
    assert!(!dead.exists() && !old.exists());
}

#[test]
fn a_collection_that_died_is_undone_or_completed() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "a", &[b"used"]);
    put_blob(repository, b"unused");
    for content in [b"used".as_slice(), b"unused"] {
        let digest = Digest::of(content);
        let host = temp::prefix().replace(&format!(".{}.", std::process::id()), ".4194999.");
        let trash = repository
            .path()
            .join(".tmp")
            .join(format!("{host}trash-{}", digest.hex()));
        fs::rename(repository.blob_path(digest), trash).unwrap();
    }
    collect(repository, Duration::ZERO);
    assert_eq!(repository.blob_size(Digest::of(b"used")).unwrap(), Some(4));
    assert_eq!(repository.blob_size(Digest::of(b"unused")).unwrap(), None);
    assert_eq!(
        fs::read_dir(repository.path().join(".tmp"))
            .unwrap()
            .count(),
        0
    );
}

/// Without any grace, every published image keeps all its blobs, however the steps interleave.
#[test]
fn writers_and_collectors_at_once() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    repository.version().unwrap();
    let done = AtomicBool::new(false);
    let published = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    collect(repository, Duration::ZERO);
                }
            });
        }
        let writers: Vec<_> = (0..3u8)
            .map(|writer| {
                let published = &published;
                scope.spawn(move || {
                    for round in 0..60u8 {
                        let name = format!("image-{writer}-{round}");
                        // Some layers are shared between the writers, so that they are reused, too.
                        let layers = [vec![round % 3], vec![writer, round]];
                        let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
                        let image = put_blobs(repository, &layers);
                        match repository.publish(&meta_of(&name, &image)) {
                            Ok(()) => {
                                published.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(Error::NotFound(_)) => {
                                assert!(repository.revisions(&name).unwrap().is_empty());
                                continue;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        if round % 2 == 0 {
                            repository.delete(&name, None).unwrap();
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
        done.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    println!("{published:?} of 180 were published");
    let verified = repository.verify(&Context::silent()).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    collect(repository, Duration::ZERO);
    assert_eq!(
        fs::read_dir(repository.path().join(".tmp"))
            .unwrap()
            .count(),
        0
    );
}

/// With the grace everybody has, no writer is ever disturbed.
#[test]
fn grace_spares_every_writer() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    repository.version().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Raised however this thread leaves the scope, so that a failure ends the test.
        let _done = Raised(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                collect(repository, DAY);
            }
        });
        for round in 0..40u8 {
            // Blobs that nothing names and that are old: taken by the next collection, unless this
            // writer was first.
            let image = image_of(&[&[round]]);
            put_blob(repository, &[round]);
            age(&repository.blob_path(image.layers()[0].digest), 2 * DAY);
            put_blobs(repository, &[&[round]]);
            repository
                .publish(&meta_of(&format!("image-{round}"), &image))
                .unwrap();
        }
    });
    let verified = repository.verify(&Context::silent()).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    assert_eq!(verified.images, 40);
}

/// Raises a flag when it is dropped.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_file_far_larger_than_its_blob_is_not_read() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "a", &[b"layer"]);
    for digest in repository.blob_files().unwrap().blobs {
        let path = repository.blob_path(digest);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // It has a hole of 4 TiB, which nobody reads in the time of a test.
        let file = fs::File::create(&path).unwrap();
        file.set_len(1 << 42).unwrap();
        let verified = repository.verify(&Context::silent()).unwrap();
        assert!(verified.bytes < 1 << 20, "{} bytes", verified.bytes);
        let problems: Vec<String> = verified.problems.iter().map(ToString::to_string).collect();
        let named = format!("a file of {} bytes", 1_u64 << 42);
        let told = |text: &String| text.contains(&digest.to_string()) && text.contains(&named);
        assert!(problems.iter().any(told), "{problems:?}");
        fs::write(&path, content).unwrap();
    }
}
