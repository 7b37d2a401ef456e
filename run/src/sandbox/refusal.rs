//! Explains why the kernel refuses namespaces, and names the setting to change.

use std::fs;
use std::io;
use std::path::Path;

/// The knobs of the kernel that forbid user namespaces; each is missing on kernels without it.
#[derive(Clone, Debug, Default)]
pub(super) struct Knobs {
    /// `user.max_user_namespaces`.
    pub(super) most: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian).
    pub(super) clone: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns` (Ubuntu).
    pub(super) apparmor: Option<u64>,
}

impl Knobs {
    pub(super) fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        Self {
            most: number("/proc/sys/user/max_user_namespaces"),
            clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// Explains `error`, which a new user namespace or the first mount in it gave.
    pub(super) fn explain(&self, error: &io::Error, program: &Path) -> String {
        let forbidden = "user namespaces are forbidden to you here";
        if self.most == Some(0) {
            return format!(
                "{forbidden} (user.max_user_namespaces = 0); ask the administrator for \
                 `sysctl user.max_user_namespaces=10000`"
            );
        }
        if self.clone == Some(0) {
            return format!(
                "{forbidden} (kernel.unprivileged_userns_clone = 0); ask the administrator for \
                 `sysctl kernel.unprivileged_userns_clone=1`"
            );
        }
        if self.apparmor == Some(1) {
            return format!(
                "AppArmor forbids user namespaces to programs without a profile \
                 (kernel.apparmor_restrict_unprivileged_userns = 1); ask the administrator for a profile \
                 /etc/apparmor.d/pcocc with `profile pcocc {} flags=(unconfined) {{ userns, }}`",
                program.display()
            );
        }
        match error.raw_os_error() {
            Some(libc::ENOSPC) => format!(
                "{forbidden}: too many are in use, or they are nested too deeply \
                 (user.max_user_namespaces = {})",
                self.most.unwrap_or_default()
            ),
            Some(libc::EPERM) => format!(
                "{forbidden}: {error}; a chroot, a container around it (docker's seccomp profile), or the \
                 kernel's security module forbids them"
            ),
            Some(libc::EINVAL) => "the kernel has no user namespaces (CONFIG_USER_NS)".to_owned(),
            _ => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_knob_is_named() {
        let program = Path::new("/opt/pcocc");
        let none = Knobs::default();
        for (knobs, errno, part) in [
            (
                Knobs {
                    most: Some(0),
                    ..none.clone()
                },
                libc::ENOSPC,
                "user.max_user_namespaces=10000",
            ),
            (
                Knobs {
                    clone: Some(0),
                    ..none.clone()
                },
                libc::EPERM,
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                Knobs {
                    most: Some(9),
                    apparmor: Some(1),
                    ..none.clone()
                },
                libc::EACCES,
                "profile pcocc /opt/pcocc flags=(unconfined) { userns, }",
            ),
            (
                Knobs {
                    most: Some(9),
                    ..none.clone()
                },
                libc::ENOSPC,
                "= 9",
            ),
            (none.clone(), libc::EPERM, "security module"),
            (none.clone(), libc::EINVAL, "CONFIG_USER_NS"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let text = knobs.explain(&error, program);
            assert!(text.contains(part), "{text}");
        }
    }
}
