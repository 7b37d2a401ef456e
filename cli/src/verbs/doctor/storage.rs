//! Storage: configuration, repository, cache, temporary files, jobs, mounts, and the clock of the file server.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcocc_core::settings;
use pcocc_image::reference::ImageUri;
use pcocc_image::repository::Kind;
use pcocc_vm::guest_image::IMAGE_NAME;
use pcocc_vm::slurm::Squeue;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Answer, Trouble, failed, warning};
use crate::host::Host;
use crate::output;

/// Room that an image of some size needs.
const ROOM: u64 = 256 << 20;
/// Difference of two clocks that certificates tolerate.
const CLOCKS: Duration = Duration::from_secs(60);

/// The configuration files.
pub(super) fn configuration(host: &Host) -> Answer {
    let environment = host.environment();
    let variables = environment.path_variables();
    match settings::settings(&environment.user_conf, &environment.system_conf, &variables) {
        Ok(_) => Ok(format!(
            "{} and {} have no mistake",
            environment.user_conf.display(),
            environment.system_conf.display()
        )),
        Err(error) => Err(failed(error.to_string(), "mend that line")),
    }
}

/// The repository that new images go to.
pub(super) fn repository(host: &Host) -> Answer {
    let fix = "choose another folder in repos.yaml";
    let repositories = host
        .repositories()
        .map_err(|failure| failed(failure.why(), fix))?;
    let Some(repository) = repositories.iter().next() else {
        return Err(failed(
            "no repository is configured",
            "name one in repos.yaml",
        ));
    };
    let name = repository.name();
    repository
        .check_writable()
        .map_err(|error| failed(error.to_string(), fix))?;
    let free = room(repository.path()).map_err(|trouble| Trouble {
        fix: "free some with `pcocc image repo gc`, or choose another folder in repos.yaml"
            .to_owned(),
        ..trouble
    })?;
    Ok(format!("{name} at {}, {free}", repository.path().display()))
}

/// The cache of root filesystems.
pub(super) fn cache(host: &Host) -> Answer {
    let repositories = host
        .repositories()
        .map_err(|failure| failed(failure.why(), "mend repos.yaml"))?;
    match repositories.cache() {
        Some(cache) => {
            let free = room(existing(cache.path())).map_err(|trouble| Trouble {
                verdict: super::Verdict::Warning,
                fix: "free some with `pcocc image cache gc`".to_owned(),
                ..trouble
            })?;
            Ok(format!("{}, {free}", cache.path().display()))
        }
        None => Err(warning(
            "none is configured: root filesystems are made again each time",
            "name one in repos.yaml",
        )),
    }
}

/// The folder for temporary files.
pub(super) fn temporary(host: &Host) -> Answer {
    let folder = &host.environment().temporary;
    let free = room(folder)?;
    Ok(format!("{}, {free}", folder.display()))
}

/// The folder, or its nearest existing parent.
fn existing(folder: &Path) -> &Path {
    folder
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(folder)
}

/// Reports the free room in a folder, after really allocating a file.
fn room(folder: &Path) -> Result<String, Trouble> {
    let fix = "free some space there, or set TMPDIR to another folder";
    let wrong = |error: io::Error| failed(format!("{}: {error}", folder.display()), fix);
    let file = tempfile::tempfile_in(folder).map_err(wrong)?;
    let space = rustix::fs::statvfs(folder).map_err(|error| wrong(error.into()))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < ROOM {
        return Err(failed(
            format!("{}: only {} free", folder.display(), output::size(free)),
            fix,
        ));
    }
    // A quota shows only when a file exceeds it.
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, ROOM) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(format!("{} free", output::size(free))),
        Err(Errno::DQUOT) => Err(failed(
            format!(
                "{}: your quota leaves less than {}",
                folder.display(),
                output::size(ROOM)
            ),
            fix,
        )),
        Err(error) => Err(wrong(error.into())),
    }
}

/// The image that docker VMs boot from.
pub(super) fn guest(host: &Host) -> Answer {
    let fix = "pcocc docker guest build";
    let wrong = |why: String| failed(why, fix);
    let repositories = host
        .repositories()
        .map_err(|failure| wrong(failure.why()))?;
    let uri: ImageUri = IMAGE_NAME
        .parse()
        .map_err(|error: pcocc_image::Error| wrong(error.to_string()))?;
    let (repository, meta) = repositories
        .find(&uri)
        .map_err(|error| wrong(format!("docker VMs have nothing to boot from: {error}")))?;
    match meta.kind() {
        Kind::VirtualMachine => Ok(format!("{}:{IMAGE_NAME}", repository.name())),
        Kind::Container => Err(wrong(format!("{IMAGE_NAME} is no image of a VM"))),
    }
}

/// Dead mounts of ours. Mounts of other users cannot be checked, and do not matter.
pub(super) fn mounts(_: &Host) -> Answer {
    let ours = pcocc_fs::mount_points()
        .map_err(|error| warning(format!("/proc/self/mountinfo: {error}"), "mount /proc"))?;
    let dead: Vec<String> = ours
        .iter()
        // Unmounting a mount removes the mounts below it.
        .filter(|point| {
            !ours
                .iter()
                .any(|other| other != *point && point.starts_with(other))
        })
        .filter(|point| pcocc_fs::is_dead(point))
        .map(|point| shell_words::quote(&point.to_string_lossy()).into_owned())
        .collect();
    if dead.is_empty() {
        return Ok(format!("{} of ours, none stale", ours.len()));
    }
    let fixes: Vec<String> = dead
        .iter()
        .map(|point| format!("pcocc docker umount {point}"))
        .collect();
    Err(warning(
        format!("{} stale: {}", dead.len(), dead.join(" ")),
        fixes.join("; "),
    ))
}

/// Jobs whose launcher ended without recording it.
pub(super) fn jobs(host: &Host) -> Answer {
    let fix = "look into its folder; removing that folder forgets the job";
    let list = host
        .jobs()
        .and_then(|jobs| Ok(jobs.list(&Squeue)?))
        .map_err(|failure| warning(failure.why(), fix))?;
    let stale: Vec<String> = list
        .iter()
        .filter(|job| {
            job.record.state.is_over()
                && job.folder.read().is_ok_and(|known| !known.state.is_over())
        })
        .map(|job| job.id().to_string())
        .collect();
    let live = list
        .iter()
        .filter(|job| !job.record.state.is_over())
        .count();
    match stale.as_slice() {
        [] => Ok(format!("{live} running or waiting")),
        _ => Err(warning(
            format!("ended without a word: {}", stale.join(" ")),
            fix,
        )),
    }
}

/// This machine's clock against the file server's.
pub(super) fn clock(host: &Host) -> Answer {
    let fix = "ask an administrator to synchronize the clocks (NTP): certificates depend on them";
    let folder = existing(&host.environment().user_conf);
    let wrong = |error: io::Error| warning(format!("{}: {error}", folder.display()), fix);
    let file = tempfile::tempfile_in(folder).map_err(wrong)?;
    let theirs = file
        .metadata()
        .and_then(|data| data.modified())
        .map_err(wrong)?;
    let ours = SystemTime::now();
    let apart = ours
        .duration_since(theirs)
        .unwrap_or_else(|error| error.duration());
    if apart > CLOCKS {
        return Err(warning(
            format!(
                "{} s away from that of the file server of {}",
                apart.as_secs(),
                folder.display()
            ),
            fix,
        ));
    }
    Ok("agrees with that of your home's file server".to_owned())
}
