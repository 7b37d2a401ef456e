//! Layers made of single changes, and those that are left to docker.

use std::collections::BTreeMap;
use std::io::Read;

use super::*;

fn part(path: &str, change: Change) -> Part {
    Part {
        path: path.to_owned(),
        change,
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

/// An archive of entries `(kind, path, link, mtime, data)`.
fn archive(entries: &[(tar::EntryType, &str, &str, u64, &str)]) -> Fetched {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, path, link, mtime, data) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_uid(5);
        header.set_gid(6);
        header.set_mtime(*mtime);
        header.set_size(data.len() as u64);
        if path.contains("..") {
            // The crate writes no such path, but reads it.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, data.as_bytes()).unwrap();
        } else if link.is_empty() {
            builder
                .append_data(&mut header, path, data.as_bytes())
                .unwrap();
        } else {
            builder.append_link(&mut header, path, link).unwrap();
        }
    }
    Fetched {
        archive: builder.into_inner().unwrap(),
        modified: None,
    }
}

fn read(layer: Layer) -> BTreeMap<String, (tar::EntryType, String, String)> {
    let tar = layer.finish().unwrap().unwrap();
    let mut archive = tar::Archive::new(tar.as_slice());
    let mut found = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let mut data = String::new();
        entry.read_to_string(&mut data).unwrap();
        let link = String::from_utf8(link).unwrap();
        found.insert(path, (entry.header().entry_type(), link, data));
    }
    found
}

#[test]
fn what_is_below_an_added_folder_comes_with_it() {
    use Change::{Added, Deleted, Modified};
    let changes = [
        ("/n/a/b", Added),
        ("/n", Added),
        ("/n.x", Added),
        ("/etc", Modified),
        ("/etc/q", Added),
        ("/etc/d", Deleted),
    ];
    let changes = changes.map(|(path, change)| (path.to_owned(), change));
    let parts = parts(changes.to_vec()).unwrap();
    let expected = [
        part("etc", Modified),
        part("etc/d", Deleted),
        part("etc/q", Added),
        part("n", Added),
        part("n.x", Added),
    ];
    assert_eq!(parts, expected);
    for name in [
        "relative",
        "/a/.wh.b",
        "/\u{fffd}",
        "/",
        "/..",
        "/a/../../b",
        "/a//b",
        "/./a",
    ] {
        assert_eq!(super::parts(vec![(name.to_owned(), Added)]), None, "{name}");
    }
}

#[test]
fn entries_get_their_full_names() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let mut layer = Layer::new(at(100));
    let long = "x".repeat(150);
    let deep = format!("n/{long}");
    let folder = [
        (Directory, "n/", "", 50, ""),
        (Regular, "n/a", "", 200, "a"),
        (Link, "n/b", "n/a", 200, ""),
        (Symlink, "n/c", "../else", 200, ""),
        (Regular, deep.as_str(), "", 201, "long"),
    ];
    layer
        .add(&part("usr/n", Change::Added), &archive(&folder))
        .unwrap();
    let modified = [
        (Directory, "etc/", "", 50, ""),
        (Regular, "etc/other", "", 1, "no"),
    ];
    layer
        .add(&part("etc", Change::Modified), &archive(&modified))
        .unwrap();
    layer
        .add(&part("etc/gone", Change::Deleted), &Fetched::default())
        .unwrap();
    layer
        .add(&part("gone", Change::Deleted), &Fetched::default())
        .unwrap();
    let found = read(layer);
    let entry = |kind, link: &str, data: &str| (kind, link.to_owned(), data.to_owned());
    let expected = BTreeMap::from([
        ("usr/n/".to_owned(), entry(Directory, "", "")),
        ("usr/n/a".to_owned(), entry(Regular, "", "a")),
        ("usr/n/b".to_owned(), entry(Link, "usr/n/a", "")),
        ("usr/n/c".to_owned(), entry(Symlink, "../else", "")),
        (format!("usr/n/{long}"), entry(Regular, "", "long")),
        ("etc/".to_owned(), entry(Directory, "", "")),
        ("etc/.wh.gone".to_owned(), entry(Regular, "", "")),
        (".wh.gone".to_owned(), entry(Regular, "", "")),
    ]);
    assert_eq!(found, expected);
    assert_eq!(Layer::new(at(0)).finish().unwrap(), Some(Vec::new()));
}

#[test]
fn what_may_be_a_link_is_left_to_docker() {
    use tar::EntryType::{Directory, Regular, XGlobalHeader};
    let file = |name, mtime, data| archive(&[(Regular, name, "", mtime, data)]);
    let mut layer = Layer::new(at(100));
    let mut add = |name: &str, fetched: &Fetched| layer.add(&part(name, Change::Added), fetched);
    add("a", &file("a", 200, "x")).unwrap();
    // As old as the image, or as the edit's beginning.
    add("b", &file("b", 99, "xx")).unwrap_err();
    add("b", &file("b", 100, "xx")).unwrap_err();
    // The same as "a" for all that is known.
    add("c", &file("c", 200, "y")).unwrap_err();
    add("d", &file("d", 200, "yy")).unwrap();
    // To the nanosecond they differ.
    let exactly = |name, nanosecond, data| Fetched {
        modified: Some(Timestamp::new(300, nanosecond).unwrap()),
        ..file(name, 300, data)
    };
    add("e", &exactly("e", 1, "x")).unwrap();
    add("f", &exactly("f", 2, "y")).unwrap();
    add("g", &exactly("g", 1, "z")).unwrap_err();
    // Not what was asked for, or nothing.
    add("h", &file("i", 200, "hhh")).unwrap_err();
    add("i", &file("i/../x", 200, "iii")).unwrap_err();
    add("j", &Fetched::default()).unwrap_err();
    add(
        "k",
        &archive(&[
            (Directory, "k/", "", 1, ""),
            (Regular, "k/.wh.x", "", 200, "k"),
        ]),
    )
    .unwrap_err();
    add("l", &archive(&[(XGlobalHeader, "l", "", 1, "5 a=b")])).unwrap_err();
    let mut garbage = file("m", 200, "mmmm");
    garbage.archive[0] = b'x';
    add("m", &garbage).unwrap_err();
}

#[test]
fn paths_are_encoded() {
    assert_eq!(encoded("a b/ä&?%"), "/a%20b/%C3%A4%26%3F%25");
}
