//! System calls that QEMU does not get: those by which a file of a share would become setuid, setgid or a device.
//!
//! The files that a guest's root makes in a share are the user's own on the node. A setuid file among them would give the user's
//! rights to everybody on the node who runs it. QEMU's 9p server passes modes on as the guest asks for them, so the kernel
//! takes them off it (seccomp(2)):
//!
//! | call | with | answer |
//! |---|---|---|
//! | `chmod` and its kin | setuid | "operation not permitted" |
//! | `chmod` and its kin | setgid alone | nothing is done, without an error: a guest sends this bit for each new folder in a folder that has it, which passes it on by itself |
//! | `open` and its kin, if they make a file | setuid, setgid | "operation not permitted" |
//! | `mknod`, `mknodat` | setuid, setgid, a device | "operation not permitted" |
//! | `openat2`, `io_uring_setup` | anything | "not implemented": their modes are not among a call's arguments |
//!
//! `mkdir` is not in the list because Linux takes no such bits from it. A call of another architecture ends QEMU.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const TYPE: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;

/// Flags of `open`, each of which alone says that a file is made.
const MAKES: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

const FCHMODAT2: libc::c_long = 452;

/// Number of a call, and which argument the mode is.
type WithMode = (libc::c_long, u8);

#[cfg(target_arch = "x86_64")]
const CHMOD: &[WithMode] = &[
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
];
#[cfg(not(target_arch = "x86_64"))]
const CHMOD: &[WithMode] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
];

#[cfg(target_arch = "x86_64")]
const MKNOD: &[WithMode] = &[(libc::SYS_mknod, 1), (libc::SYS_mknodat, 2)];
#[cfg(not(target_arch = "x86_64"))]
const MKNOD: &[WithMode] = &[(libc::SYS_mknodat, 2)];

/// The flags are the argument before the mode.
#[cfg(target_arch = "x86_64")]
const OPEN: &[WithMode] = &[(libc::SYS_open, 2), (libc::SYS_openat, 3)];
#[cfg(not(target_arch = "x86_64"))]
const OPEN: &[WithMode] = &[(libc::SYS_openat, 3)];

/// x32 has the calls of x86-64 once more, with this bit in their numbers.
#[cfg(target_arch = "x86_64")]
const SETS: [libc::c_long; 2] = [0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const SETS: [libc::c_long; 1] = [0];

/// Filters, ready to be set between fork and exec. Of two that refuse a call, the later one gives the answer.
#[derive(Clone, Debug)]
pub(crate) struct ModeFilter(Vec<BpfProgram>);

impl ModeFilter {
    /// Fails on an architecture that has no filters.
    pub(crate) fn new() -> io::Result<Self> {
        let passed_over = Rules::default().with_bits(CHMOD, &[SETGID])?;
        let mut denied = Rules::default()
            .with_bits(CHMOD, &[SETUID])?
            .with_bits(MKNOD, &[SETUID, SETGID])?;
        for (call, mode) in MKNOD {
            for device in [CHARACTER_DEVICE, BLOCK_DEVICE] {
                denied.add(*call, &[(*mode, TYPE, device)])?;
            }
        }
        for (call, mode) in OPEN {
            for makes in MAKES.map(i32::unsigned_abs) {
                for bit in [SETUID, SETGID] {
                    denied.add(*call, &[(mode - 1, makes, makes), (*mode, bit, bit)])?;
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        let denied = denied.with_bits(&[(libc::SYS_creat, 1)], &[SETUID, SETGID])?;
        let mut missing = Rules::default();
        for call in [libc::SYS_openat2, libc::SYS_io_uring_setup] {
            missing.add(call, &[])?;
        }
        let programs = [
            passed_over.answered_by(0),
            denied.answered_by(libc::EPERM),
            missing.answered_by(libc::ENOSYS),
        ];
        programs.into_iter().collect::<io::Result<_>>().map(Self)
    }

    /// Gives up these calls, for this thread and all that it becomes or starts. Async-signal-safe.
    pub(crate) fn enter(&self) -> io::Result<()> {
        for program in &self.0 {
            // Nothing is allocated here: the errors of the kernel are passed on as they are.
            apply_filter(program).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                _ => io::ErrorKind::InvalidInput.into(),
            })?;
        }
        Ok(())
    }
}

/// Calls that get one answer.
#[derive(Default)]
struct Rules(BTreeMap<i64, Vec<SeccompRule>>);

impl Rules {
    /// Adds `calls` with any of `bits` in their mode.
    fn with_bits(mut self, calls: &[WithMode], bits: &[u32]) -> io::Result<Self> {
        for (call, mode) in calls {
            for bit in bits {
                self.add(*call, &[(*mode, *bit, *bit)])?;
            }
        }
        Ok(self)
    }

    /// Adds a call if each of its arguments (number, mask, value) has under the mask the value. Flags and modes have no upper
    /// half.
    fn add(&mut self, call: libc::c_long, arguments: &[(u8, u32, u32)]) -> io::Result<()> {
        for set in SETS {
            let conditions = arguments.iter().map(|(argument, mask, value)| {
                let masked = SeccompCmpOp::MaskedEq((*mask).into());
                SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, masked, (*value).into())
            });
            let conditions = conditions
                .collect::<Result<Vec<_>, _>>()
                .map_err(io::Error::other)?;
            let rules = self.0.entry(call | set).or_default();
            // A call without rules is meant whatever its arguments are.
            if !conditions.is_empty() {
                rules.push(SeccompRule::new(conditions).map_err(io::Error::other)?);
            }
        }
        Ok(())
    }

    fn answered_by(self, errno: i32) -> io::Result<BpfProgram> {
        let architecture = std::env::consts::ARCH
            .try_into()
            .map_err(io::Error::other)?;
        let answer = SeccompAction::Errno(errno.unsigned_abs());
        SeccompFilter::new(self.0, SeccompAction::Allow, answer, architecture)
            .and_then(BpfProgram::try_from)
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::path::Path;

    /// Makes a system call in the way of a 9p server, whatever the C library would make of it.
    #[expect(unsafe_code, reason = "raw system calls")]
    fn call(number: libc::c_long, arguments: [i64; 4]) -> Result<i64, i32> {
        let [a, b, c, d] = arguments;
        // SAFETY: the tests pass paths that live on, and numbers.
        match unsafe { libc::syscall(number, a, b, c, d) } {
            -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
            value => Ok(value),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    /// In a thread of its own, which has the filter alone.
    fn filtered(test: impl FnOnce(&Path) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let run = move || {
            ModeFilter::new().unwrap().enter().unwrap();
            test(&path);
        };
        std::thread::spawn(run).join().unwrap();
    }

    const CWD: i64 = libc::AT_FDCWD as i64;
    const DENIED: Result<i64, i32> = Err(libc::EPERM);

    #[test]
    fn no_file_becomes_setuid_or_setgid() {
        filtered(|folder| {
            let file = folder.join("file");
            fs::write(&file, "x").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            let open = fs::File::open(&file).unwrap();
            let descriptor = i64::from(std::os::fd::AsRawFd::as_raw_fd(&open));
            let text = CString::new(file.as_os_str().as_encoded_bytes()).unwrap();
            let path = text.as_ptr() as i64;
            for setuid in [0o4755, 0o6755, 0o4000] {
                assert_eq!(call(libc::SYS_chmod, [path, setuid, 0, 0]), DENIED);
                assert_eq!(call(libc::SYS_fchmod, [descriptor, setuid, 0, 0]), DENIED);
                assert_eq!(call(libc::SYS_fchmodat, [CWD, path, setuid, 0]), DENIED);
                assert_eq!(call(FCHMODAT2, [CWD, path, setuid, 0]), DENIED);
            }
            for setgid in [0o2755, 0o2000] {
                assert_eq!(call(libc::SYS_chmod, [path, setgid, 0, 0]), Ok(0));
                assert_eq!(call(libc::SYS_fchmod, [descriptor, setgid, 0, 0]), Ok(0));
                assert_eq!(call(libc::SYS_fchmodat, [CWD, path, setgid, 0]), Ok(0));
                assert_eq!(call(FCHMODAT2, [CWD, path, setgid, 0]), Ok(0));
            }
            assert_eq!(mode(&file), 0o640);
            // The higher half of the argument is not the kernel's either.
            assert_eq!(
                call(libc::SYS_chmod, [path, 0o4755 | 1 << 40, 0, 0]),
                DENIED
            );
            assert_eq!(call(libc::SYS_chmod, [path, 0o1755, 0, 0]), Ok(0));
            assert_eq!(mode(&file), 0o1755);
        });
    }

    #[test]
    fn no_file_is_made_so() {
        filtered(|folder| {
            let new = folder.join("new");
            let text = CString::new(new.as_os_str().as_encoded_bytes()).unwrap();
            let path = text.as_ptr() as i64;
            let create = i64::from(libc::O_CREAT | libc::O_WRONLY);
            for bits in [0o4755, 0o2755, 0o6755] {
                assert_eq!(call(libc::SYS_openat, [CWD, path, create, bits]), DENIED);
                assert_eq!(call(libc::SYS_open, [path, create, bits, 0]), DENIED);
                assert_eq!(call(libc::SYS_creat, [path, bits, 0, 0]), DENIED);
                let regular = 0o100_000 | bits;
                assert_eq!(call(libc::SYS_mknod, [path, regular, 0, 0]), DENIED);
                assert_eq!(call(libc::SYS_mknodat, [CWD, path, regular, 0]), DENIED);
                let unnamed = CString::new(folder.as_os_str().as_encoded_bytes()).unwrap();
                let unnamed = unnamed.as_ptr() as i64;
                let flags = i64::from(libc::O_TMPFILE | libc::O_WRONLY);
                assert_eq!(call(libc::SYS_openat, [CWD, unnamed, flags, bits]), DENIED);
            }
            for device in [0o020_666, 0o060_666] {
                // Number 0:0, which stands for a file that is gone, needs no rights.
                assert_eq!(call(libc::SYS_mknod, [path, device, 0, 0]), DENIED);
                assert_eq!(call(libc::SYS_mknodat, [CWD, path, device, 0x103]), DENIED);
            }
            assert!(!new.exists());
            let missing = Err(libc::ENOSYS);
            assert_eq!(call(libc::SYS_openat2, [CWD, path, 0, 0]), missing);
            assert_eq!(call(libc::SYS_io_uring_setup, [1, 0, 0, 0]), missing);
            // What is not made has no mode.
            fs::write(&new, "x").unwrap();
            let descriptor = call(libc::SYS_openat, [CWD, path, 0, 0o6755]).unwrap();
            call(libc::SYS_close, [descriptor, 0, 0, 0]).unwrap();
        });
    }

    #[test]
    fn everything_else_is_as_before() {
        filtered(|folder| {
            let run = |script: &str| {
                let mut sh = std::process::Command::new("sh");
                let status = sh.args(["-euc", script]).current_dir(folder).status();
                assert!(status.unwrap().success(), "{script}");
            };
            // A folder with setgid passes it on, which is the node's own doing.
            fs::create_dir(folder.join("team")).unwrap();
            run(
                "umask 022; echo x >f; chmod 755 f; chmod 1777 team; mkfifo p; ln -s f l; mkdir team/d",
            );
            assert_eq!(mode(&folder.join("f")), 0o755);
            assert_eq!(mode(&folder.join("team")), 0o1777);
            // Programs that it starts have no more rights than it has.
            run("chmod 4755 f && exit 1; [ ! -u f ]");
        });
    }

    #[test]
    fn a_folder_in_one_with_setgid_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let team = folder.path().join("team");
        fs::create_dir(&team).unwrap();
        fs::set_permissions(&team, fs::Permissions::from_mode(0o2775)).unwrap();
        let new = team.join("new");
        filtered(move |_| {
            let text = CString::new(new.as_os_str().as_encoded_bytes()).unwrap();
            let path = text.as_ptr() as i64;
            // As a 9p server does it.
            assert_eq!(call(libc::SYS_mkdirat, [CWD, path, 0o2755, 0]), Ok(0));
            assert_eq!(call(libc::SYS_fchmodat, [CWD, path, 0o2755, 0]), Ok(0));
            assert_eq!(mode(&new) & 0o2700, 0o2700);
        });
    }
}
