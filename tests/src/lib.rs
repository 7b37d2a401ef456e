//! What the end-to-end tests share: a private docker daemon, a registry, a Slurm cluster, the `pcocc` command in
//! an environment of its own, FUSE mounts, an ordinary user, and a look at what a test left behind.
//!
//! Data path of a test: [`Docker::shared`] (or a [`Dockerd`] of its own, when the daemon is to be
//! hurt) gives a daemon and a name space in it; [`Pcocc::new`] gives a home folder, a repository and
//! commands with an empty environment; [`leaks::Watch`] proves at the end that nothing stayed.
//!
//! Fixtures fail hard: they panic with what was run, its output and what to do. Nothing here skips.
//! Two words in a test's path say what it needs, so that `scripts/test` can leave it out by name and
//! say so: **`as_root`** needs root; **`docker`** needs a daemon, which is started for root, and which
//! anybody else must offer through `PCOCC_TEST_DOCKER_HOST`.

mod certificates;
mod children;
mod docker;
mod guest;
pub mod guide;
pub mod jobs;
pub mod layout;
pub mod leaks;
mod mount;
mod namespace;
mod network_disk;
mod pcocc;
pub mod picture;
mod proxy;
mod registry;
mod slurm;
mod terminal;
mod user;
mod window;

pub use certificates::{certificates, certificates_for};
pub use children::{Guarded, Outcome, run, wait_until};
pub use docker::{Docker, Dockerd, Paused};
pub use guest::{TestVm, guest_files, guest_folder, guest_scratch, hypervisor, share, vm_spec};
pub use mount::Mount;
pub use namespace::{fill, in_own_namespace, in_own_network, small_disk};
pub use network_disk::{Change, NetworkDisk};
pub use pcocc::{Pcocc, binary};
pub use proxy::Proxy;
pub use registry::Registry;
pub use slurm::Slurm;
pub use terminal::Terminal;
pub use user::OrdinaryUser;
pub use window::Window;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Gives the folder of the workspace: where `scripts/` and `Cargo.toml` are.
pub fn workspace() -> PathBuf {
    let tests = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    tests.parent().map_or(tests.clone(), PathBuf::from)
}

/// Makes a temporary folder that any user of the machine may pass through.
///
/// Its path is short, because sockets live below it, and it is removed on drop.
pub fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::Builder::new()
        .prefix("pcocc-t")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("make a temporary folder");
    assert!(
        folder.path().as_os_str().len() < 60,
        "TMPDIR is too long for sockets below it: {}",
        folder.path().display()
    );
    folder
}

/// Fails unless both sides have the same files, each the same in all that was looked at.
#[track_caller]
pub fn assert_same_files<T: std::fmt::Debug + PartialEq>(
    left: &BTreeMap<PathBuf, T>,
    right: &BTreeMap<PathBuf, T>,
) {
    for (path, seen) in left {
        assert_eq!(Some(seen), right.get(path), "{}", path.display());
    }
    let extra: Vec<_> = right
        .keys()
        .filter(|path| !left.contains_key(*path))
        .collect();
    assert!(extra.is_empty(), "only on the right side: {extra:?}");
}

/// Says whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
