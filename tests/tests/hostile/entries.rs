//! Entries of layers that would break out, and a layer that would fill everything.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tar::{EntryType, Header};

use crate::image::{Image, LAYER, digest, ended, file_layer, layer};
use crate::{Bed, snapshot};

#[test]
fn tar_entries_that_would_break_out() {
    let bed = Bed::new();
    let file = |name: &[u8]| layer(EntryType::Regular, name, b"", b"evil");
    let link = |kind, name: &[u8], target: &[u8]| layer(kind, name, target, b"");
    let long = "n".repeat(4096);
    let deep = "d/".repeat(4096);
    for (entry, words) in [
        (file(b"../evil"), "leaves the image's root"),
        (file(b"a/../../evil"), "root"),
        (file(b"/../../evil"), "root"),
        (file(long.as_bytes()), "longer"),
        (file(format!("{deep}x").as_bytes()), "longer"),
        (
            link(EntryType::Link, b"hard", b"nowhere"),
            "not a file of this layer",
        ),
        (
            link(EntryType::Link, b"hard", b"../../etc/passwd"),
            "leaves the image's root",
        ),
        (
            link(EntryType::Link, b"hard", b"/etc/passwd"),
            "not a file of this layer",
        ),
        (link(EntryType::Symlink, b"empty", b""), "link to nothing"),
    ] {
        bed.refuses_image(&Image::new(&[ended(entry)]), words);
    }
    let mut torn = file_layer("whole", &[1; 5000]);
    torn.truncate(3000);
    bed.refuses_image(&Image::new(&[torn]), "truncated");
    bed.refuses_image(
        &Image::new(&[b"this is no tar".repeat(100)]),
        "not a tar archive",
    );
    let mut sum = file_layer("a", b"a");
    sum[10] ^= 1;
    bed.refuses_image(&Image::new(&[sum]), "checksum");
    bed.end();
}

#[test]
fn odd_tar_entries_that_docker_takes_too() {
    let bed = Bed::new();
    let entry = |kind, name: &[u8], target: &[u8]| layer(kind, name, target, b"");
    let layers = [
        layer(EntryType::Regular, b"/absolute", b"", b"1"),
        entry(EntryType::Symlink, b"out", b"../../../../etc"),
        layer(EntryType::Regular, b"out/through-a-link", b"", b"2"),
        entry(EntryType::Symlink, b"absolute-link", b"/etc/passwd"),
        entry(EntryType::Char, b"null", b""),
        entry(EntryType::Block, b"disk", b""),
        entry(EntryType::Fifo, b"fifo", b""),
        layer(EntryType::Regular, b"not \xff\xfe utf-8", b"", b"3"),
        layer(EntryType::Regular, b"twice", b"", b"first"),
        layer(EntryType::Regular, b"twice", b"", b"second"),
        layer(EntryType::Regular, b"a/../b", b"", b"4"),
        layer(EntryType::Directory, b"twice-again/", b"", b""),
        layer(EntryType::Regular, b"twice-again", b"", b"5"),
        layer(EntryType::Regular, &[b'p'; 250], b"", b"6"),
    ];
    let outside = snapshot(&bed.at("good"));
    for (i, entry) in layers.iter().enumerate() {
        Image::new(&[file_layer("etc/x", b"x"), ended(entry.clone())])
            .write(&bed.at(&format!("odd{i}")));
        bed.pcocc.run(&[
            "image",
            "import",
            &format!("oci:odd{i}"),
            &format!("odd{i}"),
        ]);
    }
    let all = ended(
        [
            layer(EntryType::Regular, b"etc/x", b"", b"x"),
            layers.concat(),
        ]
        .concat(),
    );
    Image::new(&[all]).write(&bed.at("odd"));
    bed.pcocc.run(&["image", "import", "oci:odd", "odd"]);
    assert_eq!(snapshot(&bed.at("good")), outside);
    assert!(!Path::new("/etc/through-a-link").exists());
    bed.end();
}

#[test]
fn a_decompression_bomb_fills_neither_memory_nor_disk() {
    let bed = Bed::new();
    let size: u64 = 200 << 20;
    let mut start = layer(EntryType::Regular, b"bomb", b"", b"");
    let mut header = Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&start[..512]);
    header.set_size(size);
    header.set_cksum();
    start = header.as_bytes().to_vec();
    let plain = bed.at("bomb.tar");
    let mut file = File::create(&plain).unwrap();
    file.write_all(&start).unwrap();
    file.set_len(512 + size + 1024).unwrap();
    let sum = Command::new("sha256sum")
        .arg(&plain)
        .output()
        .unwrap()
        .stdout;
    let diff_id = format!(
        "sha256:{}",
        String::from_utf8(sum).unwrap().split(' ').next().unwrap()
    );
    let packed = Command::new("gzip")
        .args(["-1c"])
        .arg(&plain)
        .output()
        .unwrap()
        .stdout;
    fs::remove_file(&plain).unwrap();
    let media_type = format!("{LAYER}+gzip");
    bed.refuses_image(
        &Image::of(&[(packed.clone(), digest(b"other"))], &media_type),
        "corrupt",
    );
    Image::of(&[(packed.clone(), diff_id)], &media_type).write(&bed.at("bomb"));
    let mut child = bed
        .pcocc
        .command(&["image", "import", "oci:bomb", "bomb"])
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(ended.success());
    assert!(peak > 1000 && peak < 150 << 10, "{peak} kB of memory");
    let written: u64 = [bed.pcocc.repository(), bed.pcocc.cache()]
        .iter()
        .flat_map(|folder| snapshot(folder).into_keys())
        .map(|path| fs::metadata(path).unwrap())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum();
    assert!(written < 64 << 20, "{written} bytes on disk");
    bed.end();
}
