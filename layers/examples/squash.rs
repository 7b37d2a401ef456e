//! Packs plain layer tars, lowest first, into a squashfs file and tells how fast.
//!
//! `cargo run --release --example squash -- stored|LEVEL OUT.squashfs LAYER.tar…`, or
//! `… squash -- read IN.squashfs` to walk and read all of one.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use pcocc_core::cancel::Cancel;
use pcocc_layers::squashfs::{BlockCache, Data, FileType, Options, RootfsWriter, Squashfs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, file] = arguments.as_slice()
        && verb == "read"
    {
        return read(file);
    }
    let [_, data, out, layers @ ..] = arguments.as_slice() else {
        return Err("usage: squash stored|LEVEL OUT.squashfs LAYER.tar…".into());
    };
    let options = Options {
        data: match data.as_str() {
            "stored" => Data::Stored,
            level => Data::Zstd(level.parse()?),
        },
        ..Options::default()
    };
    let cancel = Cancel::new();
    let start = Instant::now();
    let mut writer = RootfsWriter::create(File::create(out)?, out.as_ref(), options)?;
    let (mut trees, mut bytes) = (Vec::new(), 0);
    for layer in layers {
        let mut tar = File::open(layer)?;
        bytes += tar.metadata()?.len();
        trees.push(writer.layer(layer, &mut tar, &cancel)?);
    }
    let read = start.elapsed();
    let summary = writer.finish(trees, b"{}", &cancel)?;
    let all = start.elapsed();
    let rate = bytes as f64 / 1e6 / all.as_secs_f64();
    println!("{data}: {read:.2?} layers, {all:.2?} in all, {rate:.0} MB/s, {summary:?}");
    print_memory()
}

fn read(file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let squashfs = Squashfs::open(Arc::new(File::open(file)?), BlockCache::new(32 << 20))?;
    let open = start.elapsed();
    let (mut files, mut pending) = (Vec::new(), vec![squashfs.root()]);
    let mut names = 0;
    while let Some(folder) = pending.pop() {
        for entry in squashfs.read_dir(folder)? {
            names += 1;
            let found = squashfs
                .lookup(folder, &entry.name)?
                .map(|found| squashfs.attributes(found.inode))
                .transpose()?;
            match found.map(|found| (found.file_type, found.size)) {
                Some((FileType::Directory, _)) => pending.push(entry.inode),
                Some((FileType::Regular, size)) => files.push((entry.inode, size)),
                _ => {}
            }
        }
    }
    let walked = start.elapsed();
    let (mut buffer, mut bytes) = (vec![0; 128 << 10], 0);
    for (inode, size) in files {
        for offset in (0..size).step_by(buffer.len()) {
            bytes += squashfs.read_at(inode, offset, &mut buffer)? as u64;
        }
    }
    let all = start.elapsed();
    let rate = bytes as f64 / 1e6 / (all - walked).as_secs_f64();
    println!(
        "open {open:.2?}; list, look up and stat {names} names {:.2?}",
        walked - open
    );
    println!("read {bytes} bytes {:.2?}, {rate:.0} MB/s", all - walked);
    print_memory()
}

fn print_memory() -> Result<(), Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!("{}", peak.unwrap_or(""));
    Ok(())
}
