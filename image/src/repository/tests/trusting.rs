//! What others have put into the cache or the repository is not believed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::receiving::{memory, sink, watched};
use super::*;
use crate::error::Error;
use crate::ingest::Options;
use crate::transfer::{self, Context};

/// The content of the root filesystem of the image `name`.
fn root_of(repositories: &Repositories, name: &str, context: &Context) -> Vec<u8> {
    let (repository, meta) = repositories.find(&name.parse().unwrap()).unwrap();
    let options = Options::default();
    let mut content = Vec::new();
    repositories
        .root_filesystem(repository, &meta, options, context)
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    content
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A site whose cache has the root filesystem of its image `a`, and the entry.
fn site() -> (Site, std::path::PathBuf) {
    let site = Site::new(&["user"]);
    transfer::copy(&memory("hello"), &sink(&site, "a"), &Context::silent()).unwrap();
    let meta = site.repo().meta("a", None).unwrap();
    let cache = site.repositories.cache().unwrap();
    let entry = cache.entry_path(&CacheKey::of_meta(&meta, "user"));
    (site, entry)
}

/// The same repositories and cache as another process has them.
fn again(site: &Site) -> Repositories {
    let config = ReposConfig {
        repos: vec![RepoDefinition {
            name: "user".into(),
            path: site.repo().path().to_owned(),
            scope: Scope::User,
            layer_compression: LayerCompression::default(),
        }],
        cache: Some(site.dir.path().join("cache")),
    };
    Repositories::new(&config, "doe")
}

/// Removes an entry with all its names, and puts `content` in its place, under one name or under both.
fn plant(site: &Site, entry: &Path, content: &[u8], names: usize) {
    let cache = site.repositories.cache().unwrap();
    for entry in cache.list().unwrap() {
        fs::remove_file(entry.path).unwrap();
    }
    fs::write(entry, content).unwrap();
    if names == 2 {
        let key = CacheKey::of_image(memory("hello").image.id());
        fs::hard_link(entry, cache.entry_path(&key)).unwrap();
    }
}

#[test]
fn an_entry_that_others_can_write_to_is_made_anew() {
    let (site, entry) = site();
    let good = root_of(&site.repositories, "a", &Context::silent());
    assert!(good.starts_with(b"hsqs"));
    let planted = [&good[..], b"planted"].concat();
    for (mode, is_used) in [(0o600, true), (0o666, false)] {
        plant(&site, &entry, &planted, 2);
        set_mode(&entry, mode);
        let (context, warnings) = watched();
        let root = root_of(&again(&site), "a", &context);
        assert_eq!(root == planted, is_used);
        let warnings = warnings.texts();
        assert_eq!(warnings.is_empty(), is_used, "{warnings:?}");
        if !is_used {
            assert!(
                warnings[0].contains(entry.to_str().unwrap()),
                "{warnings:?}"
            );
            assert_eq!(root, good);
            // The next run finds it in the cache, and has nothing to warn of.
            let (context, warnings) = watched();
            let cache = again(&site);
            let cache = cache.cache().unwrap();
            let key = CacheKey::of_image(memory("hello").image.id());
            assert!(cache.open(&key, &context.progress).unwrap().is_some());
            assert!(warnings.texts().is_empty());
        }
    }
}

#[test]
fn an_entry_of_pcocc_0_7_stays_and_is_not_used() {
    let (site, entry) = site();
    let good = root_of(&site.repositories, "a", &Context::silent());
    let theirs = [&good[..], b"without setuid bits"].concat();
    plant(&site, &entry, &theirs, 1);
    for _ in 0..2 {
        let (context, warnings) = watched();
        assert_eq!(root_of(&again(&site), "a", &context), good);
        assert!(warnings.texts().is_empty());
        assert_eq!(fs::read(&entry).unwrap(), theirs);
    }
}

#[test]
fn an_entry_that_is_cut_off_is_made_anew() {
    let (site, entry) = site();
    let good = root_of(&site.repositories, "a", &Context::silent());
    // `bytes_used` of the superblock; what follows is padding.
    let used = usize::from(u16::from_le_bytes([good[40], good[41]]));
    for cut in [1, 95, used / 2, used - 1] {
        plant(&site, &entry, &good[..cut], 2);
        let (context, warnings) = watched();
        assert!(root_of(&again(&site), "a", &context) == good, "{cut}");
        let warnings = warnings.texts();
        assert!(warnings[0].contains("cut off"), "{warnings:?}");
        let (context, warnings) = watched();
        assert!(root_of(&again(&site), "a", &context) == good, "{cut}");
        assert!(warnings.texts().is_empty(), "{:?}", warnings.texts());
    }
}

#[test]
fn a_cache_folder_that_others_can_write_to_is_passed_over() {
    let (site, entry) = site();
    let good = root_of(&site.repositories, "a", &Context::silent());
    plant(&site, &entry, b"planted", 2);
    let cache = site.dir.path().join("cache");
    for folder in [&*cache, entry.parent().unwrap(), site.dir.path()] {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        set_mode(folder, 0o777);
        let (context, warnings) = watched();
        let temporary = tempfile::tempdir().unwrap();
        let repositories = again(&site).with_temporary(temporary.path());
        assert_eq!(root_of(&repositories, "a", &context), good);
        let warnings = warnings.texts();
        assert!(
            warnings[0].contains(folder.to_str().unwrap()),
            "{warnings:?}"
        );
        assert!(warnings[0].contains("repos.yaml"), "{warnings:?}");
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
        // What somebody planted stays where it is, and nothing of ours is put beside it.
        assert_eq!(fs::read(&entry).unwrap(), b"planted");
        set_mode(folder, mode & 0o7777);
        // Of another folder than the entry's, the entry by the image's ID may have been made.
        plant(&site, &entry, b"planted", 2);
    }
    set_mode(&cache, 0o777);
    let repositories = again(&site);
    let (repository, meta) = repositories.find(&"a".parse().unwrap()).unwrap();
    let root =
        repositories.root_filesystem(repository, &meta, Options::default(), &Context::silent());
    assert!(matches!(root, Err(Error::Denied { .. })), "{root:?}");
    assert!(repositories.cache().unwrap().list().is_err());
}

#[test]
fn an_entry_of_somebody_else_is_passed_over_as_root() {
    let (site, entry) = site();
    let good = root_of(&site.repositories, "a", &Context::silent());
    plant(&site, &entry, b"planted", 2);
    chown(&entry, Some(4242), Some(4242)).unwrap();
    let (context, warnings) = watched();
    assert_eq!(root_of(&again(&site), "a", &context), good);
    assert!(warnings.texts()[0].contains("4242"));
}

#[test]
fn only_images_of_the_user_are_recalled_as_root() {
    let (site, _) = site();
    let id = memory("hello").image.id();
    assert!(site.repo().recall(id).unwrap().is_some());
    let meta = site.repo().path().join("meta/a@0");
    set_mode(&meta, 0o666);
    assert!(site.repo().recall(id).unwrap().is_none());
    set_mode(&meta, 0o644);
    chown(&meta, Some(4242), None).unwrap();
    assert!(site.repo().recall(id).unwrap().is_none());
    assert!(site.repo().known_layers().unwrap().len() <= 1);
}
