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
use pcocc_layers::DiffId;
use pcocc_layers::squashfs::{BlockCache, Data, FileType, Options, RootfsWriter, Squashfs, Toc};
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

/// A mount, gone on drop.
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

/// The layer on top of [`sample`]: other content, what hides and what is hidden, links to the layer below.
fn upper(folder: &Path) {
    let script = r#"
        set -e
        mkdir -p d/e2 many/.wh.x && rmdir many/.wh.x && cd d
        head -c 700000 /dev/urandom >holey && echo other >small && : >.wh.soft && : >.wh.zeros
        mknod pipe2 p && mknod -m 600 disk b 259 70001 && ln -s below fifo && chmod 700 .
        setfattr -n user.note -v another small
        head -c 300000 /dev/urandom >big2 && ln big2 hard2
        cd .. && mkdir perl && : >perl/.wh..wh..opq && echo only >perl/only
        cd many && : >.wh.file-with-a-rather-long-name-7 && echo 8 >file-with-a-rather-long-name-8
    "#;
    run(Command::new("bash")
        .current_dir(folder)
        .args(["-c", script]));
}

/// Makes the tar of a folder.
fn tar_of(folder: &Path, tar: &Path) -> Vec<u8> {
    run(Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--sparse",
            "--format=pax",
            "-cf",
        ])
        .arg(tar)
        .arg("-C")
        .args([folder, Path::new(".")]));
    fs::read(tar).expect("read the tar")
}

#[test]
fn a_file_on_a_base_is_read_by_all_as_root() {
    let scratch = pcocc_tests::scratch();
    let at = |name: &str| scratch.path().join(name);
    let (cancel, options) = (Cancel::new(), Options::default());
    let mut layers = Vec::new();
    for (name, fill) in [("lower", sample as fn(&Path)), ("upper", upper)] {
        fs::create_dir(at(name)).expect("make a folder");
        fill(&at(name));
        layers.push(tar_of(&at(name), &at("layer.tar")));
    }
    let ids = [0, 1].map(|number: usize| DiffId(pcocc_layers::Digest::of(&layers[number])));
    let create = |path: &Path| {
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        options.open(path).expect("make a file")
    };
    let take = |writer: &mut RootfsWriter, number: usize| {
        let tar = &mut layers[number].as_slice();
        writer.layer("layer", tar, &cancel).expect("take a layer")
    };

    let whole = at("whole.squashfs");
    let mut writer = RootfsWriter::create(create(&whole), &whole, options).expect("start");
    let trees = vec![take(&mut writer, 0), take(&mut writer, 1)];
    writer.finish(trees, b"{}", &cancel).expect("finish");

    // The base has something before the layer that is wanted, so that its blocks move.
    let base = at("base.squashfs");
    let mut writer = RootfsWriter::create(create(&base), &base, options).expect("start");
    let unwanted = take(&mut writer, 1);
    let trees = vec![take(&mut writer, 0), unwanted];
    let finished = writer.finish(trees, b"{}", &cancel).expect("finish");
    let toc = Toc::new(&ids, finished.layers).expect("two layers");

    let on_base = at("on-base.squashfs");
    let (file, from) = (create(&on_base), File::open(&base).expect("open the base"));
    let (mut writer, trees) =
        RootfsWriter::on_base(file, &on_base, options, &from, &toc, &ids[..1], &cancel)
            .expect("start");
    let mut trees: Vec<_> = trees.into_iter().map(|(_, tree)| tree).collect();
    assert_eq!(trees.len(), 1);
    trees.push(take(&mut writer, 1));
    writer.finish(trees, b"{}", &cancel).expect("finish");

    let mount = Loop::new(&whole, &at("whole"));
    let expected = kernel_tree(&mount.0);
    drop(mount);
    assert!(expected.len() > 5000 && !expected.contains_key(Path::new("rootfs/d/zeros")));
    let mount = Loop::new(&on_base, &at("mount"));
    assert_same_files(&expected, &kernel_tree(&mount.0));
    drop(mount);
    assert_same_files(&expected, &our_tree(&on_base));
    let out = at("unpacked");
    run(Command::new("unsquashfs")
        .args(["-q", "-n", "-d"])
        .args([&out, &on_base]));
    assert_same_files(&expected, &kernel_tree(&out));
    // squashfuse takes security attributes for trusted ones, and the reverse, in any file.
    let [through_fuse, expected] = [&on_base, &whole].map(|file| {
        let folder = file.with_extension("fuse");
        fs::create_dir(&folder).expect("make a folder");
        run(Command::new("squashfuse").args([file, &folder]));
        kernel_tree(&Loop(folder).0)
    });
    assert_same_files(&expected, &through_fuse);
    let same = fs::read(&on_base).expect("read") == fs::read(&whole).expect("read");
    assert!(same, "not the file from nothing");
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
