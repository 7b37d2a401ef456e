//! The cache: names, links, cleaning.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use super::*;
use crate::reference::ImageUri;
use crate::transfer::Context;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn fill(cache: &Cache, key: &CacheKey, content: &[u8]) {
    let mut temp = cache.temp().unwrap();
    temp.write_all(content).unwrap();
    cache.publish(temp, key).unwrap();
}

fn read(cache: &Cache, key: &CacheKey) -> Option<String> {
    let mut content = String::new();
    cache
        .open(key, &Context::silent().progress)
        .unwrap()?
        .read_to_string(&mut content)
        .unwrap();
    Some(content)
}

#[test]
fn entries_are_private_and_shared_by_link() {
    let site = Site::new(&["user"]);
    let cache = site.repositories.cache().unwrap();
    let image = put_image(site.repo(), "a", &[b"1"]);
    let meta = site.repo().meta("a", None).unwrap();
    let (by_id, by_meta) = (
        CacheKey::of_image(image.id()),
        CacheKey::of_meta(&meta, "user"),
    );
    assert_eq!(read(cache, &by_id), None);
    assert!(!cache.link(&by_id, &by_meta).unwrap());
    fill(cache, &by_id, b"squashfs");
    // An empty file is what pcocc 0.7 leaves when it is interrupted.
    let entry = cache.entry_path(&by_meta);
    fs::create_dir_all(entry.parent().unwrap()).unwrap();
    fs::write(&entry, "").unwrap();
    assert_eq!(read(cache, &by_meta), None);
    assert!(cache.link(&by_id, &by_meta).unwrap());
    assert_eq!(read(cache, &by_meta).unwrap(), "squashfs");
    let metadata = fs::metadata(&entry).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(metadata.nlink(), 2);
    let dir = fs::metadata(cache.path()).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    assert_eq!(cache.list().unwrap().len(), 2);
    assert_eq!(fs::read_dir(cache.path().join(".tmp")).unwrap().count(), 0);
    // Deleting the image takes the entry pcocc knows; ours goes with the next cleaning.
    let uri: ImageUri = "a".parse().unwrap();
    site.repositories.delete(&uri).unwrap();
    assert_eq!(read(cache, &by_meta), None);
}

#[test]
fn cleaning_keeps_what_images_need() {
    let site = Site::new(&["user"]);
    let cache = site.repositories.cache().unwrap();
    for (name, layer) in [("kept", b"1"), ("gone", b"2")] {
        let image = put_image(site.repo(), name, &[layer]);
        let meta = site.repo().meta(name, None).unwrap();
        let by_id = CacheKey::of_image(image.id());
        fill(cache, &by_id, layer);
        cache
            .link(&by_id, &CacheKey::of_meta(&meta, "user"))
            .unwrap();
    }
    site.repo().delete("gone", None).unwrap();
    let grace = |grace| GcOptions { grace };
    let collected = cache.collect(&site.repositories, grace(DAY), None).unwrap();
    assert_eq!(collected.entries, 0);
    for entry in cache.list().unwrap() {
        age(&entry.path, 2 * DAY);
    }
    let deleted = cache.path().join("ab").join("ab00.deleted");
    fs::create_dir_all(deleted.join("rootfs")).unwrap();
    age(&deleted, 2 * DAY);
    let collected = cache.collect(&site.repositories, grace(DAY), None).unwrap();
    assert_eq!((collected.entries, collected.temporary), (1, 1));
    assert_eq!(cache.list().unwrap().len(), 2);
    let collected = cache
        .collect(&site.repositories, grace(DAY), Some(0))
        .unwrap();
    assert_eq!((collected.entries, collected.bytes), (1, 1));
    assert!(cache.list().unwrap().is_empty());
}

#[test]
fn a_cache_that_cannot_be_made_says_so() {
    let cache = Cache::new("/proc/self/nowhere");
    assert!(cache.list().unwrap().is_empty());
    let error = cache.temp().unwrap_err().to_string();
    assert!(error.contains("/proc/self/nowhere"), "{error}");
}
