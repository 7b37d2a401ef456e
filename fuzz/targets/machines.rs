//! What docker VMs, their launchers and their guests say.

use std::fmt::Debug;
use std::fs;
use std::io::Write as _;

use pcocc_core::qcow2;
use pcocc_guest::layers::tar_split::{Part, TarSplit};
use pcocc_guest::protocol::{FromGuest, Service, ServiceAnswer, ToGuest};
use pcocc_image::vmdisk::DiskInfo;
use pcocc_vm::guest_image::{GuestDisk, GuestImage};
use pcocc_vm::job::{JobId, Jobs};
use pcocc_vm::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Messages between host and guest, in both directions, each in a line.
pub fn agent(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        same_again::<ToGuest>(line);
        same_again::<FromGuest>(line);
        same_again::<Service>(line);
        same_again::<ServiceAnswer>(line);
    }
    pcocc_vm::testing::from_guest(data);
}

/// What is accepted is written as it is read.
fn same_again<T: Serialize + DeserializeOwned + Debug>(line: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(line) {
        let written = serde_json::to_vec(&message).expect("a message can be written");
        let again: T = serde_json::from_slice(&written).expect("it is read again");
        let again = serde_json::to_vec(&again).expect("a message can be written");
        assert_eq!(again, written, "{message:?}");
    }
}

/// What docker notes about a layer, without its compression.
pub fn tar_split(data: &[u8]) {
    let mut parts = TarSplit::new(data);
    while let Ok(Some(part)) = parts.next_part() {
        match part {
            Part::Empty => {}
            Part::File { name, size } => {
                assert!(size > 0 && !name.is_empty() && !name.starts_with(b"/"));
                assert!(
                    !name.contains(&0)
                        && !name.split(|byte| *byte == b'/').any(|name| name == b"..")
                );
            }
            Part::Segment(segment) => {
                let mut bytes = Vec::new();
                if segment.decode(&mut bytes).is_ok() {
                    assert_eq!(bytes.len() as u64, segment.len());
                }
            }
        }
    }
}

/// The record of job 7, and the reports of a launcher.
pub fn job(data: &[u8]) {
    let folder = tempfile::tempdir().expect("make a folder");
    let jobs = Jobs::open(folder.path()).expect("open the jobs");
    let job = jobs.folder(JobId::new(7).expect("a number"));
    job.create().expect("make a folder");
    fs::write(job.record_file(), data).expect("write a file");
    if let Ok(record) = job.read() {
        assert_eq!(record.id, job.id());
        job.write(&record).expect("write the record");
        assert_eq!(job.read().expect("read the record"), record);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(report) = Report::parse(text)
    {
        assert_eq!(Report::parse(&report.line()), Some(report));
    }
}

/// The archive of a guest image.
pub fn guest_archive(data: &[u8]) {
    // This is for qemu-img.
    if data.starts_with(b"QFI\xfb") {
        return;
    }
    let folder = tempfile::tempdir().expect("make a folder");
    let disk = folder.path().join("disk");
    fs::write(&disk, data).expect("write a file");
    let image = GuestImage {
        disk: GuestDisk::in_file(disk),
        folder: folder.path().join("unpacked"),
        id: "fuzz".to_owned(),
    };
    if let Ok(files) = image.unpack() {
        for file in [files.kernel, files.initramfs, files.root, files.data] {
            assert!(file.is_file() && file.starts_with(&image.folder));
        }
    }
}

/// A disk: the header of a qcow2 file, or what qemu-img says of one.
pub fn disk(data: &[u8]) {
    let _ = DiskInfo::parse(data);
    let mut file = tempfile::tempfile().expect("make a file");
    file.write_all(data).expect("write a file");
    if let Ok(Some(header)) = qcow2::Header::read(&file) {
        assert!(data.starts_with(b"QFI\xfb"));
        assert!(header.backing.is_none_or(|name| name.len() <= 4 * 1023));
    }
}
