//! What we make of an image's layers is what the daemon shows of them: our squashfs file against
//! `docker export` of a container that was never started.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_layers::squashfs::{BlockCache, FileType, InodeNo, Options, RootfsWriter, Squashfs};
use pcocc_tests::{Docker, assert_same_files, run, scratch};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// What is compared of a file; `same_as` tells hard links apart from copies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    content: Vec<u8>,
    same_as: Option<PathBuf>,
}

type Tree = BTreeMap<PathBuf, Seen>;

/// Takes out what the daemon puts into every container, and what we put into every image.
fn comparable(mut tree: Tree) -> Tree {
    tree.retain(|path, _| {
        let added = ["", ".dockerenv", "dev", "proc", "sys"]
            .iter()
            .any(|name| path == Path::new(name));
        let of_etc = [
            "hostname",
            "hosts",
            "mtab",
            "resolv.conf",
            "group",
            "passwd",
        ]
        .iter()
        .any(|name| path == &Path::new("etc").join(name));
        !added && !of_etc && !path.starts_with("dev")
    });
    if let Some(etc) = tree.get_mut(Path::new("etc")) {
        etc.mtime = 0;
    }
    tree
}

/// Names hard links after the first of their names in byte order.
fn name_links(tree: &mut Tree, groups: BTreeMap<u64, Vec<PathBuf>>) {
    for mut paths in groups.into_values() {
        paths.sort();
        for path in &paths {
            if let Some(seen) = tree.get_mut(path).filter(|_| paths.len() > 1) {
                seen.same_as = paths.first().cloned();
            }
        }
    }
}

/// The tree in a `docker export` archive.
fn exported(archive: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut groups: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut group_of: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let mut archive = tar::Archive::new(File::open(archive).expect("open the export"));
    for entry in archive.entries().expect("read the export") {
        let mut entry = entry.expect("read the export");
        let path = OsStr::from_bytes(&entry.path_bytes()).to_owned();
        let path: PathBuf = Path::new(&path).components().collect();
        let header = entry.header().clone();
        let kind = header.entry_type();
        if kind == EntryType::Link {
            let target = entry.link_name_bytes().expect("a target").into_owned();
            let target: PathBuf = Path::new(OsStr::from_bytes(&target)).components().collect();
            let seen = tree
                .get(&target)
                .expect("a target that came before")
                .clone();
            tree.insert(path.clone(), seen);
            let group = group_of[&target];
            groups.entry(group).or_default().push(path.clone());
            group_of.insert(path, group);
            continue;
        }
        let mut content = Vec::new();
        let kind = match kind {
            EntryType::Directory => 'd',
            EntryType::Symlink => {
                content = entry.link_name_bytes().expect("a target").into_owned();
                'l'
            }
            EntryType::Char => 'c',
            EntryType::Block => 'b',
            EntryType::Fifo => 'p',
            _ => {
                entry.read_to_end(&mut content).expect("read the export");
                'f'
            }
        };
        let node = matches!(kind, 'b' | 'c');
        let seen = Seen {
            kind,
            mode: header.mode().expect("a mode") & 0o7777,
            owner: (
                header.uid().expect("an owner"),
                header.gid().expect("a group"),
            ),
            mtime: header.mtime().expect("a time"),
            device: if node {
                (
                    header.device_major().expect("a device").unwrap_or(0),
                    header.device_minor().expect("a device").unwrap_or(0),
                )
            } else {
                (0, 0)
            },
            content,
            same_as: None,
        };
        let group = tree.len() as u64;
        groups.insert(group, vec![path.clone()]);
        group_of.insert(path.clone(), group);
        tree.insert(path, seen);
    }
    name_links(&mut tree, groups);
    comparable(tree)
}

/// The tree in our squashfs file of a `docker save` archive.
fn written(save: &Path, folder: &Path) -> Tree {
    let unpacked = folder.join("saved");
    fs::create_dir(&unpacked).expect("make a folder");
    run(Command::new("tar")
        .arg("-xf")
        .arg(save)
        .arg("-C")
        .arg(&unpacked))
    .ok();
    let manifest = fs::read(unpacked.join("manifest.json")).expect("read the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("parse it");
    let image = folder.join("image.squashfs");
    let file = File::create(&image).expect("make a file");
    let mut writer = RootfsWriter::create(file, &image, Options::default()).expect("start");
    let cancel = Cancel::new();
    let names = manifest[0]["Layers"].as_array().expect("layers");
    let mut layers = Vec::new();
    // From the top, because layers may come in any order.
    for name in names.iter().rev() {
        let name = name.as_str().expect("a layer's name");
        let mut layer = plain(&unpacked.join(name));
        layers.push(
            writer
                .layer(name, &mut layer, &cancel)
                .expect("take a layer"),
        );
    }
    layers.reverse();
    writer.finish(layers, b"{}", &cancel).expect("finish");
    let file = Arc::new(File::open(&image).expect("open the squashfs file"));
    let squashfs = Squashfs::open(file, BlockCache::new(8 << 20)).expect("read the superblock");
    comparable(read_back(&squashfs))
}

/// A layer's plain tar, however the daemon stored it.
fn plain(layer: &Path) -> Box<dyn Read> {
    let mut file = File::open(layer).expect("open a layer");
    let mut magic = [0; 2];
    let gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
    file.rewind().expect("rewind a layer");
    if gzip {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    }
}

fn read_back(squashfs: &Squashfs) -> Tree {
    let mut tree = Tree::new();
    let mut groups: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let top = squashfs.find(b"rootfs").expect("look up").expect("rootfs");
    let mut pending = vec![(PathBuf::new(), top)];
    while let Some((path, inode)) = pending.pop() {
        let found = squashfs.attributes(inode).expect("look at a file");
        let mut content = Vec::new();
        let kind = match found.file_type {
            FileType::Directory => {
                for entry in squashfs.read_dir(inode).expect("list a folder") {
                    pending.push((path.join(OsStr::from_bytes(&entry.name)), entry.inode));
                }
                'd'
            }
            FileType::Symlink => {
                content = squashfs.read_link(inode).expect("read a link");
                'l'
            }
            FileType::Regular => {
                content = vec![0; found.size as usize];
                squashfs
                    .read_at(inode, 0, &mut content)
                    .expect("read a file");
                'f'
            }
            FileType::BlockDevice => 'b',
            FileType::CharDevice => 'c',
            FileType::Fifo | FileType::Socket => 'p',
        };
        if kind != 'd' {
            let InodeNo(number) = inode;
            groups.entry(number).or_default().push(path.clone());
        }
        let minor = (found.rdev & 0xff) | ((found.rdev >> 12) & !0xff);
        let seen = Seen {
            kind,
            mode: u32::from(found.mode),
            owner: (u64::from(found.uid), u64::from(found.gid)),
            mtime: u64::from(found.mtime),
            device: ((found.rdev >> 8) & 0xfff, minor),
            content,
            same_as: None,
        };
        tree.insert(path, seen);
    }
    name_links(&mut tree, groups);
    tree
}

/// Compares both views of an image; times of the folders in `newborn` are the daemon's own clock.
#[track_caller]
fn compare(docker: &Docker, image: &str, newborn: &[&str]) {
    let folder = scratch();
    let save = folder.path().join("save.tar");
    let export = folder.path().join("export.tar");
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    docker.run(&["save", "-o", &text(&save), image]);
    let container = docker.run(&["create", "--network=none", image, "/nothing"]);
    let outcome = docker.try_run(&["export", "-o", &text(&export), &container]);
    docker.run(&["rm", "-f", &container]);
    outcome.ok();

    let mut theirs = exported(&export);
    let mut ours = written(&save, folder.path());
    for tree in [&mut theirs, &mut ours] {
        for path in newborn {
            tree.get_mut(Path::new(path))
                .expect("a folder that was needed")
                .mtime = 0;
        }
    }
    assert_same_files(&theirs, &ours);
}

/// Builds a layer entry by entry, with names no honest tool would write.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &[u8], link: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1_000_000);
        header.set_gid(77);
        header.set_mtime(1_600_000_000 + path.len() as u64);
        header.set_size(content.len() as u64);
        header.set_device_major(1).expect("a device");
        header.set_device_minor(3).expect("a device");
        header.set_cksum();
        self.0.append(&header, content).expect("append an entry");
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(
            EntryType::Regular,
            path.as_bytes(),
            "",
            0o640,
            content.as_bytes(),
        )
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, path.as_bytes(), "", mode, b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path.as_bytes(), target, 0o640, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path.as_bytes(), target, 0o777, b"")
    }

    fn build(self) -> Vec<u8> {
        self.0.into_inner().expect("finish a layer")
    }
}

/// Loads layers, lowest first, as an image of the daemon.
fn load(docker: &Docker, name: &str, layers: &[Vec<u8>]) -> String {
    let name = format!("{}:latest", docker.name(name));
    let folder = scratch();
    let digests: Vec<String> = layers
        .iter()
        .map(|layer| {
            let digest = Sha256::digest(layer);
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{hex}")
        })
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/nothing"]},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}.tar")).collect();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": [name], "Layers": names}
    ]);
    let at = |name: &str| folder.path().join(name);
    for (name, layer) in names.iter().zip(layers) {
        fs::write(at(name), layer).expect("write a layer");
    }
    fs::write(at("config.json"), config.to_string()).expect("write the config");
    fs::write(at("manifest.json"), manifest.to_string()).expect("write the manifest");
    let archive = at("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(folder.path());
    run(tar.args(["config.json", "manifest.json"]).args(&names)).ok();
    docker.run(&["load", "-i", archive.to_str().expect("a path")]);
    name
}

#[test]
fn a_built_image_is_as_docker_shows_it() {
    let docker = Docker::shared();
    let image = docker.busybox_image("bb");
    compare(&docker, &image, &[]);
}

#[test]
fn layers_with_everything_are_as_docker_shows_them() {
    let docker = Docker::shared();
    let lower = Layer::new()
        .dir("./", 0o755)
        .dir("keep/", 0o700)
        .file("keep/a", "1")
        .file("keep/b", "2")
        .dir("gone/", 0o755)
        .file("gone/x", "x")
        .dir("opaque/", 0o755)
        .dir("opaque/old/", 0o755)
        .file("opaque/old/x", "o")
        .file("was-file", "f")
        .dir("was-dir/", 0o755)
        .file("was-dir/x", "")
        .file("/absolute/path", "a")
        .file("clean/../cleaned", "c")
        .add(EntryType::Regular, b"caf\xe9", "", 0o4755, b"latin")
        .add(EntryType::Char, b"null", "", 0o666, b"")
        .add(EntryType::Fifo, b"fifo", "", 0o600, b"")
        .symlink("dangling", "no/where")
        .link("link-to-link", "dangling")
        .file("one", "same")
        .link("two", "one")
        .link("three", "/two")
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/through", "t")
        .dir("sticky/", 0o1777);
    let upper = Layer::new()
        .dir("keep/", 0o711)
        .file("keep/c", "3")
        .file("keep/.wh.a", "")
        .file(".wh.gone", "")
        .dir("opaque/", 0o750)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "n")
        .dir("was-file/", 0o750)
        .file("was-file/in", "")
        .file("was-dir", "now a file")
        .file("two", "no longer the same")
        .file(".wh.never-was", "")
        .symlink("here", "keep")
        .file("here/d", "4");
    let image = load(&docker, "odd", &[lower.build(), upper.build()]);
    compare(&docker, &image, &["absolute"]);
}

#[test]
fn a_folder_over_a_link_of_a_lower_layer_replaces_it_as_docker_does() {
    let docker = Docker::shared();
    let lower = Layer::new()
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o755)
        .symlink("lib", "usr/lib");
    let upper = Layer::new().file("lib/real", "r");
    let driver = docker.run(&["info", "--format", "{{.Driver}}"]);
    let image = load(&docker, "over", &[lower.build(), upper.build()]);
    // Other drivers unpack on top of the lower layers' files, and follow the link.
    if driver == "overlay2" {
        compare(&docker, &image, &["lib"]);
    }
}
