//! Checks before a machine is started.

use std::fs;
use std::path::Path;

use super::uplink::check_free;
use crate::machine::{MAX_SHARES, MachineError, MachineSpec};

/// Least memory docker and a small container run in, in MiB.
const MIN_MEMORY: u64 = 512;
/// Least size of the data disk: that of its template.
const MIN_DISK: u64 = 1 << 30;
/// Largest size of it: as far as the template's file system can grow.
const MAX_DISK: u64 = 1 << 40;
/// Least free space of the scratch disk, in MiB.
const MIN_FREE: u64 = 512;

/// Refuses what cannot work before anything is started.
pub(super) fn check(spec: &MachineSpec) -> Result<(), MachineError> {
    let refuse = |why: String| Err(MachineError::Spec(why));
    if spec.plan.cpus == 0 {
        return refuse("a VM needs at least one CPU".into());
    }
    if spec.plan.memory_mib < MIN_MEMORY {
        return refuse(format!(
            "{} MiB of memory are too little for docker: ask for {MIN_MEMORY} or more",
            spec.plan.memory_mib
        ));
    }
    if spec.plan.disk_bytes < MIN_DISK {
        return refuse(format!(
            "a disk of {} bytes is too small: ask for {MIN_DISK} or more",
            spec.plan.disk_bytes
        ));
    }
    if spec.plan.disk_bytes > MAX_DISK {
        return refuse(format!(
            "a disk of {} bytes is too large: ask for {MAX_DISK} (1T) or less",
            spec.plan.disk_bytes
        ));
    }
    if spec.plan.shares.len() > MAX_SHARES {
        return refuse(format!(
            "{} folders are to be shared, and a VM can have {MAX_SHARES}: share a folder that holds several",
            spec.plan.shares.len()
        ));
    }
    for share in &spec.plan.shares {
        let meta = fs::metadata(&share.source).map_err(MachineError::io("share", &share.source))?;
        if !meta.is_dir() {
            return refuse(format!(
                "{} is shared, but is no folder",
                share.source.display()
            ));
        }
    }
    for file in [
        &spec.image.kernel,
        &spec.image.initramfs,
        &spec.image.root,
        &spec.image.data,
    ] {
        fs::File::open(file).map_err(MachineError::io("read the guest's file", file))?;
    }
    fs::create_dir_all(&spec.plan.cache)
        .map_err(MachineError::io("make the folder", &spec.plan.cache))?;
    if let Some(error) = no_space(&spec.plan.scratch, MIN_FREE) {
        return Err(error);
    }
    check_free(spec.listen)
}

/// The error of a `folder` with less than `needed_mib` MiB free.
pub(super) fn no_space(folder: &Path, needed_mib: u64) -> Option<MachineError> {
    let disk = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk,
        Err(error) => return Some(MachineError::io("look at", folder)(error.into())),
    };
    let free_mib = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
    (free_mib < needed_mib).then(|| MachineError::NoSpace {
        folder: folder.to_owned(),
        free_mib,
        needed_mib,
    })
}
