//! Squashfs files as the kernel shows them are as our reader shows them, whoever wrote them; and what we
//! write, `unsquashfs` reads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_layers::squashfs::{BlockCache, Data, FileType, Options, RootfsWriter, Squashfs};
use pcocc_tests::assert_same_files;
use sha2::{Digest, Sha256};

/// What is compared of a file: kind, mode, owner, group, size, time, names, device; content; attributes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: char,
    numbers: [u64; 7],
    content: Vec<u8>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

type Tree = BTreeMap<PathBuf, Seen>;

fn digest(content: &[u8]) -> Vec<u8> {
    Sha256::digest(content).to_vec()
}

/// The tree below `top` as the kernel shows it.
fn kernel_tree(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = path.symlink_metadata().expect("look at a file");
        let file_type = metadata.file_type();
        let mut content = Vec::new();
        let kind = if file_type.is_dir() {
            for entry in fs::read_dir(&path).expect("list a folder") {
                pending.push(entry.expect("list a folder").path());
            }
            'd'
        } else if file_type.is_symlink() {
            let target = fs::read_link(&path).expect("read a link");
            content = target.into_os_string().into_vec();
            'l'
        } else if file_type.is_file() {
            content = digest(&fs::read(&path).expect("read a file"));
            'f'
        } else if file_type.is_block_device() {
            'b'
        } else if file_type.is_char_device() {
            'c'
        } else {
            'p'
        };
        let seen = Seen {
            kind,
            numbers: [
                u64::from(metadata.mode() & 0o7777),
                u64::from(metadata.uid()),
                u64::from(metadata.gid()),
                // What size a folder has is every file system's own affair.
                if kind == 'd' { 0 } else { metadata.size() },
                metadata.mtime() as u64,
                metadata.nlink(),
                metadata.rdev(),
            ],
            content,
            xattrs: kernel_xattrs(&path),
        };
        let inside = path.strip_prefix(top).expect("a path below").to_owned();
        tree.insert(inside, seen);
    }
    tree
}

fn kernel_xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        // A squashfs file without any attributes has no table of them.
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => panic!("list attributes of {}: {error}", path.display()),
    };
    let mut xattrs: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length =
                rustix::fs::lgetxattr(path, name, &mut value[..]).expect("read an attribute");
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect();
    xattrs.sort();
    xattrs
}

/// The tree as our reader shows it.
fn our_tree(file: &Path) -> Tree {
    let file = Arc::new(File::open(file).expect("open the squashfs file"));
    let squashfs = Squashfs::open(file, BlockCache::new(8 << 20)).expect("read the superblock");
    let mut tree = Tree::new();
    let mut pending = vec![(PathBuf::new(), squashfs.root())];
    while let Some((path, inode)) = pending.pop() {
        let found = squashfs.attributes(inode).expect("look at a file");
        let mut content = Vec::new();
        let kind = match found.file_type {
            FileType::Directory => {
                for entry in squashfs.read_dir(inode).expect("list a folder") {
                    let looked_up = squashfs.lookup(inode, &entry.name).expect("look up");
                    assert_eq!(looked_up.as_ref(), Some(&entry));
                    let name = std::ffi::OsStr::from_bytes(&entry.name);
                    pending.push((path.join(name), entry.inode));
                }
                'd'
            }
            FileType::Symlink => {
                content = squashfs.read_link(inode).expect("read a link");
                'l'
            }
            FileType::Regular => {
                let mut bytes = vec![0; found.size as usize];
                // In odd steps, across the borders of blocks.
                for (number, part) in bytes.chunks_mut(100_003).enumerate() {
                    let offset = number as u64 * 100_003;
                    let count = squashfs.read_at(inode, offset, part).expect("read a file");
                    assert_eq!(count, part.len());
                }
                content = digest(&bytes);
                'f'
            }
            FileType::BlockDevice => 'b',
            FileType::CharDevice => 'c',
            FileType::Fifo | FileType::Socket => 'p',
        };
        let mut xattrs = squashfs.xattrs(inode).expect("read attributes");
        xattrs.sort();
        let device = u64::from(found.rdev);
        let seen = Seen {
            kind,
            numbers: [
                u64::from(found.mode),
                u64::from(found.uid),
                u64::from(found.gid),
                if kind == 'd' { 0 } else { found.size },
                u64::from(found.mtime),
                u64::from(found.nlink),
                // The kernel's own encoding on disk, as `stat` spells it.
                rustix::fs::makedev((device as u32 >> 8) & 0xfff, {
                    (device as u32 & 0xff) | ((device as u32 >> 12) & !0xff)
                }),
            ],
            content,
            xattrs,
        };
        tree.insert(path, seen);
    }
    tree
}

/// A loop mount, gone on drop.
struct Loop(PathBuf);

impl Loop {
    fn new(file: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).expect("make a folder");
        run(Command::new("mount")
            .args(["-o", "loop,ro"])
            .args([file, at]));
        Self(at.to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; is it installed?"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A folder with everything a file can be.
fn sample(folder: &Path) {
    let script = r#"
        set -e
        mkdir -p d/e many && cd d
        cp /bin/busybox big && ln big hard && ln -s "../else where" soft
        head -c 5000 /dev/zero >zeros && truncate -s 3M holey && echo end >>holey
        : >empty && echo small >small && mkfifo fifo && mknod null c 1 3 && mknod disk b 259 70000
        chmod 4755 big && chown 1000:4000000000 small && chmod 1777 e && touch -d 2001-02-03 small
        ln -s "$(head -c 600 /dev/zero | tr '\0' x)" long-link
        echo latin >"$(printf 'caf\351')"
        setfattr -n user.note -v value small && setfattr -h -n trusted.t -v v soft
        setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= empty
        cd ../many && seq -f 'file-with-a-rather-long-name-%.0f' 5000 | xargs touch
    "#;
    run(Command::new("bash")
        .current_dir(folder)
        .args(["-c", script]));
    run(Command::new("cp")
        .arg("-a")
        .arg("/usr/share/perl")
        .arg(folder));
}

#[test]
fn the_kernel_and_unsquashfs_read_what_we_write_as_root() {
    let scratch = pcocc_tests::scratch();
    let at = |name: &str| scratch.path().join(name);
    let source = at("source");
    fs::create_dir(&source).expect("make a folder");
    sample(&source);
    let tar = at("layer.tar");
    run(Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--sparse",
            "--format=pax",
            "-cf",
        ])
        .arg(&tar)
        .arg("-C")
        .args([&source, Path::new(".")]));
    for data in [Data::Stored, Data::Zstd(1)] {
        let image = at(&format!("{data:?}.squashfs"));
        let options = Options {
            data,
            ..Options::default()
        };
        let file = File::create(&image).expect("make a file");
        let mut writer = RootfsWriter::create(file, &image, options).expect("start");
        let mut stream = File::open(&tar).expect("open the tar");
        let cancel = Cancel::new();
        let layer = writer
            .layer("one", &mut stream, &cancel)
            .expect("take the layer");
        writer.finish(vec![layer], b"{}", &cancel).expect("finish");

        let mount = Loop::new(&image, &at("mount"));
        let kernel = kernel_tree(&mount.0);
        assert_same_files(&kernel, &our_tree(&image));
        // Against the source: all but what the writer adds.
        let mut inside = kernel_tree(&mount.0.join("rootfs"));
        inside.retain(|path, _| !path.starts_with("etc"));
        let mut original = kernel_tree(&source);
        for tree in [&mut inside, &mut original] {
            // The writer's own `etc` is one more name in here.
            tree.remove(Path::new(""));
        }
        assert_same_files(&original, &inside);
        drop(mount);

        let out = at("unpacked");
        run(Command::new("unsquashfs")
            .args(["-q", "-n", "-d"])
            .args([&out, &image]));
        assert_same_files(&kernel, &kernel_tree(&out));
        fs::remove_dir_all(&out).expect("remove a folder");
    }
}

#[test]
fn we_read_what_mksquashfs_writes_as_root() {
    let scratch = pcocc_tests::scratch();
    let at = |name: &str| scratch.path().join(name);
    let source = at("source");
    fs::create_dir(&source).expect("make a folder");
    sample(&source);
    let ways: [&[&str]; 6] = [
        &["-comp", "gzip"],
        &["-comp", "gzip", "-Xcompression-level", "1", "-b", "4096"],
        &["-comp", "xz", "-b", "1M"],
        &["-comp", "zstd", "-always-use-fragments", "-no-exports"],
        &["-comp", "zstd", "-noI", "-noD", "-noF", "-noX"],
        &["-comp", "gzip", "-no-fragments", "-no-xattrs"],
    ];
    for (number, way) in ways.iter().enumerate() {
        // A new file each time: a loop device goes late, and would show the old one's pages.
        let image = at(&format!("{number}.squashfs"));
        run(Command::new("mksquashfs")
            .args([&source, &image])
            .args(["-noappend", "-quiet", "-no-progress"])
            .args(*way));
        let mount = Loop::new(&image, &at("mount"));
        assert_same_files(&kernel_tree(&mount.0), &our_tree(&image));
    }
}
