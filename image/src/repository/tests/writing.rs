//! Making repositories, publishing, finding, deleting, listing; and what must be refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::error::Error;
use crate::reference::ImageUri;
use crate::transfer::Context;

fn uri(text: &str) -> ImageUri {
    text.parse().unwrap()
}

#[test]
fn a_missing_repository_is_made_with_its_parents() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    assert!(!repository.path().exists());
    assert_eq!(repository.list().unwrap().metas, []);
    assert_eq!(
        fs::read_to_string(repository.path().join(".config")).unwrap(),
        "version: 2\n"
    );
    for dir in ["data", "meta", ".tmp"] {
        assert!(repository.path().join(dir).is_dir());
    }
    let names = fs::read_dir(repository.path().parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1, "the draft is gone");
    // An empty directory somebody made beforehand will do as well.
    let empty = Repository::new("empty", site.dir.path().join("empty"));
    fs::create_dir(empty.path()).unwrap();
    assert_eq!(empty.version().unwrap(), 2);
}

#[test]
fn many_make_the_same_repository() {
    let site = Site::new(&["user"]);
    thread::scope(|scope| {
        for i in 0..8 {
            let site = &site;
            scope.spawn(move || put_image(site.repo(), &format!("image-{i}"), &[b"same"]));
        }
    });
    assert_eq!(site.repo().list().unwrap().metas.len(), 8);
    let names = fs::read_dir(site.repo().path().parent().unwrap()).unwrap();
    assert_eq!(names.count(), 1);
}

#[test]
fn what_is_no_repository_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r");
    let error = || Repository::new("r", &path).list().unwrap_err().to_string();
    fs::write(&path, "").unwrap();
    assert!(error().contains("is a file"), "{}", error());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("thesis.tex"), "").unwrap();
    assert!(error().contains("not a repository"), "{}", error());
    for (config, part) in [
        ("version: 3\n", "is of version 3"),
        ("version: 0\n", "is of version 0"),
        ("version: two\n", ".config:1:"),
        ("version: 2\nextra: 1\n", ".config:2:"),
        ("", "bad config"),
        ("\u{0}\u{1}", "bad config"),
    ] {
        fs::write(path.join(".config"), config).unwrap();
        assert!(error().contains(part), "{config:?}: {}", error());
        assert!(error().contains(path.to_str().unwrap()));
    }
}

#[test]
fn what_cannot_be_made_is_empty_and_refuses_images() {
    let repository = Repository::new("r", "/proc/self/nowhere/images");
    assert!(repository.list().unwrap().metas.is_empty());
    assert!(matches!(
        repository.meta("x", None),
        Err(Error::NotFound(_))
    ));
    let error = repository.check_writable().unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(error.to_string().contains("cannot be created"), "{error}");
}

#[test]
fn names_are_never_overwritten() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    let image = put_image(repository, "a", &[b"1"]);
    let before = repository.meta("a", None).unwrap();
    let again = repository.publish(&meta_of("a", &image)).unwrap_err();
    assert!(matches!(again, Error::Exists(_)), "{again}");
    assert_eq!(again.to_string(), "image user:a already exists");
    assert_eq!(repository.meta("a", None).unwrap(), before);
    assert_eq!(
        fs::read_dir(repository.path().join(".tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn of_two_writers_one_wins() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    repository.version().unwrap();
    for round in 0..20 {
        let name = format!("image-{round}");
        let results: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4u8)
                .map(|i| {
                    let name = &name;
                    scope.spawn(move || {
                        let image = put_blobs(repository, &[&[i]]);
                        repository.publish(&meta_of(name, &image)).map(|()| image)
                    })
                })
                .collect();
            writers.into_iter().map(|w| w.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(
            results
                .iter()
                .filter(|r| matches!(r, Err(Error::Exists(_))))
                .count(),
            3
        );
        let meta = repository.meta(&name, None).unwrap();
        assert_eq!(&repository.image(&meta).unwrap(), winners[0]);
    }
}

#[test]
fn metadata_needs_its_blobs() {
    let site = Site::new(&["user"]);
    site.repo().version().unwrap();
    let error = site
        .repo()
        .publish(&meta_of("a", &image_of(&[b"absent"])))
        .unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    assert!(site.repo().revisions("a").unwrap().is_empty());
}

#[test]
fn blobs_are_read_only_and_repaired() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    repository.version().unwrap();
    let digest = put_blob(repository, b"content");
    let path = repository.blob_path(digest);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
    assert_eq!(repository.blob_size(digest).unwrap(), Some(7));
    assert_eq!(repository.blob_size(Digest::of(b"no")).unwrap(), None);
    // What a crash of another writer left is replaced.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "con").unwrap();
    put_blob(repository, b"content");
    assert_eq!(fs::read(&path).unwrap(), b"content");
    // An old blob that is used again is young again.
    age(&path, Duration::from_secs(100_000));
    put_blob(repository, b"content");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(modified.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(
        fs::read_dir(repository.path().join(".tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn damaged_images_are_refused() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    let image = put_image(repository, "a", &[b"1"]);
    let meta = repository.meta("a", None).unwrap();
    let path = repository.blob_path(image.id());
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(repository.image(&meta), Err(Error::NotFound(_))));
    assert!(repository.recall(image.id()).unwrap().is_none());
    fs::write(&path, vec![b' '; content.len()]).unwrap();
    assert!(matches!(
        repository.image(&meta),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(
        repository
            .verify(&Context::silent())
            .unwrap()
            .problems
            .len(),
        2
    );
}

#[test]
fn bad_metadata_hides_nothing_else() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    put_image(repository, "good", &[b"1"]);
    let meta = repository.path().join("meta");
    fs::write(meta.join("bad@0"), "{").unwrap();
    fs::write(meta.join("no-revision"), "{}").unwrap();
    fs::write(meta.join("binary@1"), [0xff, 0xfe]).unwrap();
    fs::create_dir(meta.join("folder@0")).unwrap();
    fs::copy(meta.join("good@0"), meta.join("other@0")).unwrap();
    let pipe = meta.join("pipe@0");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::write(meta.join(".nfs0001"), "x").unwrap();
    let listing = repository.list().unwrap();
    assert_eq!(listing.metas.len(), 1);
    assert_eq!(listing.bad.len(), 6);
    for bad in &listing.bad {
        let file = bad.path.to_str().unwrap();
        assert!(bad.error.to_string().contains(file), "{}", bad.error);
    }
    repository.meta("good", None).unwrap();
    let error = repository.meta("bad", None).unwrap_err().to_string();
    assert!(error.contains("meta/bad@0"), "{error}");
    let error = repository.meta("other", None).unwrap_err().to_string();
    assert!(error.contains("is of good@0"), "{error}");
}

#[test]
fn the_first_repository_that_has_the_image_is_taken() {
    let site = Site::new(&["user", "site"]);
    let repositories = &site.repositories;
    let first = put_image(repositories.get("user").unwrap(), "both", &[b"1"]);
    let second = put_image(repositories.get("site").unwrap(), "both", &[b"2"]);
    put_image(repositories.get("site").unwrap(), "only", &[b"2"]);
    let id = |text: &str| {
        let (repository, meta) = repositories.find(&uri(text)).unwrap();
        repository.image(&meta).unwrap().id()
    };
    assert_eq!(id("both"), first.id());
    assert_eq!(id("site:both@0"), second.id());
    assert_eq!(id("only"), second.id());
    for (text, part) in [
        ("none", "image none not found"),
        ("user:only", "image user:only not found"),
        ("only@7", "not found"),
        ("debian:12", "\"debian-12\" would be a legal name"),
    ] {
        let error = repositories.find(&uri(text)).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // Without a repository, the default one is meant: nobody else's image goes by accident.
    let error = repositories.delete(&uri("only")).unwrap_err().to_string();
    assert!(error.contains("site:only"), "{error}");
    repositories.delete(&uri("site:only")).unwrap();
    assert!(repositories.find(&uri("only")).is_err());
}

#[test]
fn a_broken_repository_does_not_hide_the_next() {
    let site = Site::new(&["user", "site"]);
    put_image(site.repositories.get("site").unwrap(), "a", &[b"1"]);
    fs::write(site.dir.path().join("repos/user"), "").unwrap();
    site.repositories.find(&uri("a")).unwrap();
    let error = site.repositories.find(&uri("b")).unwrap_err().to_string();
    assert!(error.contains("is a file"), "{error}");
}

#[test]
fn virtual_machines_come_and_go() {
    let site = Site::new(&["user", "site"]);
    let repositories = &site.repositories;
    let context = Context::silent();
    repositories.get("user").unwrap().version().unwrap();
    let disk = || {
        let mut temp = repositories.get("user").unwrap().temp_blob().unwrap();
        temp.write_all(b"QFI\xfb disk").unwrap();
        temp
    };
    let meta = repositories
        .add_virtual_machine(&uri("vm"), disk(), &context)
        .unwrap();
    assert_eq!(meta.data_blobs(), [Digest::of(b"QFI\xfb disk")]);
    let again = repositories.add_virtual_machine(&uri("vm"), disk(), &context);
    assert!(matches!(again, Err(Error::Exists(_))));
    repositories
        .copy_virtual_machine(&uri("vm"), &uri("site:copy"), &context)
        .unwrap();
    let (site_repo, copy) = repositories.find(&uri("copy")).unwrap();
    assert_eq!(copy.data_blobs(), meta.data_blobs());
    assert_eq!(site_repo.blob_size(copy.data_blobs()[0]).unwrap(), Some(9));
    assert!(site_repo.image(&copy).is_err());
    let (_, deleted) = repositories.delete(&uri("vm")).unwrap();
    assert_eq!(deleted, [0]);
}

#[test]
fn ten_thousand_images_are_listed_quickly() {
    let site = Site::new(&["user"]);
    let repository = site.repo();
    let image = put_image(repository, "image-0", &[b"a", b"b", b"c", b"d"]);
    for i in 1..10_000 {
        let meta = meta_of(&format!("image-{i}"), &image);
        let path = repository.meta_path(2, meta.name(), 0);
        fs::write(path, meta.render()).unwrap();
    }
    let start = Instant::now();
    assert_eq!(repository.list().unwrap().metas.len(), 10_000);
    println!("10 000 images listed in {:?}", start.elapsed());
    let start = Instant::now();
    repository.meta("image-5000", None).unwrap();
    println!("one of them found in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_path_of_a_repository_may_be_a_link() {
    let site = Site::new(&["user"]);
    put_image(site.repo(), "a", &[b"1"]);
    let link = site.dir.path().join("link");
    std::os::unix::fs::symlink(site.repo().path(), &link).unwrap();
    let linked = Repository::new("linked", Path::new(&link));
    linked.meta("a", None).unwrap();
}
