//! Names of images that are being built, and of their folders.
//!
//! A name is 32 hexadecimal digits: 8 for this machine, user and process-ID name space, 8 of the process
//! number, and 16 random ones. So the next build finds the remains of a killed build without a mark in the
//! image: a label would change the image's ID.

use std::fs;
use std::path::Path;

use pcocc_layers::Digest;
use pcocc_remote::docker::{Daemon, Parents};

/// Prefix of folders.
const FOLDER: &str = "pcocc-build.";

/// The image that docker builds, under a name of our own. The name is removed when this is dropped; the base
/// images stay in docker for the next build.
pub(super) struct Built {
    daemon: Daemon,
    name: String,
}

impl Built {
    /// Makes a name; removes the remains of killed builds in docker and in the folder `temporary`.
    pub(super) fn new(daemon: Daemon, temporary: &Path) -> Self {
        let place = place();
        sweep(&daemon, temporary, &place);
        let name = format!("{place}{:08x}{:016x}", std::process::id(), random());
        Self {
            daemon,
            name: format!("{name}:latest"),
        }
    }

    /// The image's name in docker.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Prefix of a folder's name for this build.
    pub(super) fn folder(&self) -> String {
        format!("{FOLDER}{}", self.name.trim_end_matches(":latest"))
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.forget_image(&self.name, Parents::Stay) {
            tracing::warn!(%error, name = self.name, "cannot remove the name of a built image");
        }
    }
}

/// Removes the remains of ended builds. A failure does not stop the new build.
fn sweep(daemon: &Daemon, temporary: &Path, place: &str) {
    match daemon.list() {
        Ok(images) => {
            let names = images.iter().map(|image| &image.name);
            for name in names.filter(|name| is_left_over(name, place)) {
                if let Err(error) = daemon.forget_image(name, Parents::Stay) {
                    tracing::debug!(%error, name, "cannot remove what a killed build left");
                }
            }
        }
        Err(error) => tracing::debug!(%error, "cannot look for what killed builds left"),
    }
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        if name.is_some_and(|name| is_left_over(name.get(..32).unwrap_or(name), place))
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(%error, "cannot remove what a killed build left");
        }
    }
}

/// Whether `name` was made at `place` by a process that has ended.
fn is_left_over(name: &str, place: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let (true, Some(rest)) = (
        name.len() == 32 && name.chars().all(is_digit),
        name.strip_prefix(place),
    ) else {
        return false;
    };
    u32::from_str_radix(&rest[..8], 16)
        .is_ok_and(|process| !Path::new("/proc").join(process.to_string()).exists())
}

/// Digits of the place where our process numbers count: this machine, this user, this name space of numbers.
fn place() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let numbers = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let text = format!(
        "pcocc docker build\n{}{}{}\n{}",
        read("/proc/sys/kernel/hostname"),
        read("/proc/sys/kernel/random/boot_id"),
        rustix::process::geteuid().as_raw(),
        numbers.display()
    );
    Digest::of(text.as_bytes()).hex()[..8].to_owned()
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // The keys of this hasher are random and differ at every call.
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_here_are_left_over() {
        let place = place();
        let name = |process: u32| format!("{place}{process:08x}{:016x}", random());
        // Process numbers end at 2^22.
        let dead = name(1 << 30);
        assert!(is_left_over(&dead, &place));
        assert!(is_left_over(&format!("{dead}:latest"), &place));
        for kept in [
            &*name(std::process::id()),
            &*format!("{dead}:other"),
            &*format!("library/{dead}"),
            &dead[1..],
            &*format!("{dead}0"),
            &dead.to_uppercase(),
            &*"0123456789abcdef".repeat(2),
            "debian:12",
            "",
        ] {
            assert!(!is_left_over(kept, &place), "{kept}");
        }
    }
}
