//! An ordinary user: what works for root alone does not work for the people pcocc is for.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{is_root, scratch};

/// The user `nobody` with a home folder of its own, or, when the tests do not run as root, whoever
/// runs them.
#[derive(Debug)]
pub struct OrdinaryUser {
    home: tempfile::TempDir,
    switch: bool,
}

/// Ids of `nobody` and `nogroup`, the same on every Linux. fusermount3 wants a user that has a name.
const NOBODY: u32 = 65534;

impl OrdinaryUser {
    /// Makes the user's home folder, and, as root, lets ordinary users open /dev/fuse.
    pub fn new() -> Self {
        let switch = is_root();
        let home = scratch();
        if switch {
            chown(home.path(), Some(NOBODY), Some(NOBODY)).expect("give the user its home folder");
            // Mode 600 is what a bare machine has; udev makes it 666.
            for device in ["/dev/fuse", "/dev/net/tun"] {
                if let Ok(found) = fs::metadata(device)
                    && found.permissions().mode() & 0o006 != 0o006
                {
                    fs::set_permissions(device, Permissions::from_mode(0o666))
                        .expect("let ordinary users open a device");
                }
            }
        }
        Self { home, switch }
    }

    /// The user's home folder: short, empty at first, and writable by the user.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Builds a command that runs `program` as the user, with HOME set.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if self.switch {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command
                .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command.env("HOME", self.home()).current_dir(self.home());
        command
    }

    /// Gives a copy of `file` that the user may run: the original may lie below a closed folder.
    pub fn copy_of(&self, file: &Path) -> PathBuf {
        let name = file.file_name().expect("a file with a name");
        let copy = self.home().join(name);
        if !copy.exists() {
            fs::copy(file, &copy).expect("copy a program for the user");
            self.own(&copy);
        }
        copy
    }

    /// Gives a file or folder (not what is in it) to the user.
    pub fn own(&self, path: &Path) {
        if self.switch {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("give a file to the user");
        }
    }

    /// Gives a file or folder (not what is in it) to whoever runs the tests: nobody uses a cache below a folder of
    /// somebody else.
    pub fn take_over(&self, path: &Path) {
        if self.switch {
            chown(path, Some(0), Some(0)).expect("take a file over");
        }
    }

    /// Lets the user talk to the daemon behind a unix socket.
    pub fn may_use(&self, docker_host: &str) {
        if self.switch
            && let Some(socket) = docker_host.strip_prefix("unix://")
        {
            fs::set_permissions(socket, Permissions::from_mode(0o666))
                .expect("open the daemon's socket");
            let folder = Path::new(socket).parent().expect("a socket in a folder");
            let _ = fs::set_permissions(folder, Permissions::from_mode(0o711));
        }
    }
}

impl Default for OrdinaryUser {
    fn default() -> Self {
        Self::new()
    }
}
