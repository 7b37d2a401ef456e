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
//! `mkdir` is not in the list because Linux takes no such bits from it. Calls of another architecture are refused as a whole.

use std::io;

use libc::sock_filter;

// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const TYPE: u32 = 0o170_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const BLOCK_DEVICE: u32 = 0o060_000;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Numbers from here on are of x32, a second set of calls of the same architecture.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

const FCHMODAT2: libc::c_long = 452;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;

fn answer(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.unsigned_abs()
}

/// A filter, ready to be set between fork and exec.
#[derive(Clone)]
pub(crate) struct ModeFilter(Vec<sock_filter>);

impl std::fmt::Debug for ModeFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModeFilter({} steps)", self.0.len())
    }
}

impl ModeFilter {
    pub(crate) fn new() -> Self {
        let mut filter = Self(Vec::new());
        let denied = answer(libc::EPERM);
        filter.load(ARCHITECTURE);
        filter.unless(libc::BPF_JEQ, NATIVE, denied);
        filter.load(NUMBER);
        #[cfg(target_arch = "x86_64")]
        filter.when(libc::BPF_JGE, X32, denied);

        filter.call(libc::SYS_fchmod, Self::chmod(1));
        filter.call(libc::SYS_fchmodat, Self::chmod(2));
        filter.call(FCHMODAT2, Self::chmod(2));
        filter.call(libc::SYS_openat, Self::open(2, 3));
        filter.call(libc::SYS_mknodat, Self::mknod(2));
        #[cfg(target_arch = "x86_64")]
        {
            filter.call(libc::SYS_chmod, Self::chmod(1));
            filter.call(libc::SYS_open, Self::open(1, 2));
            filter.call(libc::SYS_creat, Self::create(1));
            filter.call(libc::SYS_mknod, Self::mknod(1));
        }
        for number in [libc::SYS_openat2, libc::SYS_io_uring_setup] {
            let mut missing = Self(Vec::new());
            missing.end(answer(libc::ENOSYS));
            filter.call(number, missing);
        }
        filter.end(ALLOWED);
        filter
    }

    /// Gives up these calls, for this thread and all that it becomes or starts. Async-signal-safe.
    #[expect(unsafe_code, reason = "prctl")]
    pub(crate) fn enter(&self) -> io::Result<()> {
        rustix::thread::set_no_new_privs(true)?;
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).unwrap_or(u16::MAX),
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: the kernel copies the program, which outlives the call, and writes nothing.
        let result = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                std::ptr::from_ref(&program),
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What is done with `chmod`, whose mode is argument `mode`.
    fn chmod(mode: u32) -> Self {
        let mut filter = Self(Vec::new());
        filter.argument(mode);
        filter.when(libc::BPF_JSET, SETUID, answer(libc::EPERM));
        filter.when(libc::BPF_JSET, SETGID, answer(0));
        filter.end(ALLOWED);
        filter
    }

    /// What is done with a call that makes a file of argument `mode`.
    fn create(mode: u32) -> Self {
        let mut filter = Self(Vec::new());
        filter.argument(mode);
        filter.when(libc::BPF_JSET, SETUID | SETGID, answer(libc::EPERM));
        filter.end(ALLOWED);
        filter
    }

    /// What is done with `open`, which has a mode only if the flags say that it makes a file.
    fn open(flags: u32, mode: u32) -> Self {
        let mut filter = Self(Vec::new());
        filter.argument(flags);
        let makes = (libc::O_CREAT | libc::O_TMPFILE & !libc::O_DIRECTORY).unsigned_abs();
        filter.unless(libc::BPF_JSET, makes, ALLOWED);
        filter.0.extend(Self::create(mode).0);
        filter
    }

    fn mknod(mode: u32) -> Self {
        let mut filter = Self(Vec::new());
        filter.argument(mode);
        filter.step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, TYPE);
        for device in [CHARACTER_DEVICE, BLOCK_DEVICE] {
            filter.when(libc::BPF_JEQ, device, answer(libc::EPERM));
        }
        filter.0.extend(Self::create(mode).0);
        filter
    }

    /// Does `body`, which ends by itself, for the call `number`, which is loaded.
    fn call(&mut self, number: libc::c_long, body: Self) {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let length = u8::try_from(body.0.len()).unwrap_or(u8::MAX);
        self.step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            length,
            number,
        );
        self.0.extend(body.0);
    }

    fn load(&mut self, offset: u32) {
        self.step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    }

    /// Loads the lower half of an argument: flags and modes have no upper one.
    fn argument(&mut self, index: u32) {
        let low = if cfg!(target_endian = "big") { 4 } else { 0 };
        self.load(ARGUMENTS + 8 * index + low);
    }

    /// Answers if `test` of what is loaded holds.
    fn when(&mut self, test: u32, value: u32, answer: u32) {
        self.step(libc::BPF_JMP | test | libc::BPF_K, 0, 1, value);
        self.end(answer);
    }

    /// Answers unless `test` of what is loaded holds.
    fn unless(&mut self, test: u32, value: u32, answer: u32) {
        self.step(libc::BPF_JMP | test | libc::BPF_K, 1, 0, value);
        self.end(answer);
    }

    fn end(&mut self, answer: u32) {
        self.step(libc::BPF_RET | libc::BPF_K, 0, 0, answer);
    }

    fn step(&mut self, code: u32, jt: u8, jf: u8, k: u32) {
        let code = u16::try_from(code).unwrap_or(u16::MAX);
        self.0.push(sock_filter { code, jt, jf, k });
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
            ModeFilter::new().enter().unwrap();
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
