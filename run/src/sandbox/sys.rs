//! System calls that no crate of the workspace has a safe name for.

#![expect(
    unsafe_code,
    reason = "the kernel's interface for new processes, signal sets, terminals and mount attributes"
)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Pid;

/// The result of a system call; a negative one is an error.
fn checked(result: c_int) -> io::Result<c_int> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts a copy of this process in new namespaces (`CLONE_NEW…`): `None` in the copy.
///
/// Fails with `EDEADLK` when this process has more than one thread: a copy of such a process may find
/// locks held for ever.
pub(super) fn clone_into(namespaces: c_int) -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
    // SAFETY: without a stack and without CLONE_VM this is fork(2): the copy has memory of its own. There
    // is no other thread, so that no lock is held that the copy would wait for.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    Ok(Pid::from_raw(checked(pid as c_int)?))
}

/// Starts a copy of this process, which has only one thread: `None` in the copy.
pub(super) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: called in the copy that clone_into made, which has one thread.
    let pid = unsafe { libc::fork() };
    Ok(Pid::from_raw(checked(pid)?))
}

/// Ends this process without the exit handlers of the original process.
pub(super) fn exit_now(code: u8) -> ! {
    // SAFETY: takes no pointers and does not return.
    unsafe { libc::_exit(c_int::from(code)) }
}

/// Becomes another program; returns only on failure. (execvp(3) would start a shell for every file that is no
/// program.)
pub(super) fn exec(file: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let list = |words: &[CString]| -> Vec<*const c_char> {
        let words = words.iter().map(|word| word.as_ptr());
        words.chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end with a null pointer, and their words outlive the call.
    unsafe { libc::execve(file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// All signals, blocked until [`Blocked::release`].
#[derive(Debug)]
pub(super) struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks every signal of this thread.
    pub(super) fn all() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: both sets are written before they are read, and filling or exchanging a signal set
        // cannot fail with valid pointers.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Restores the earlier signal mask.
    pub(super) fn release(&self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Waits for the next blocked signal; gives its number, and whether a process sent it rather than the terminal,
/// which sends it to the whole group.
pub(super) fn next_signal() -> io::Result<(c_int, bool)> {
    let mut all = MaybeUninit::uninit();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set is filled before it is read; `info` is valid for writing, and any bytes are a
    // siginfo_t.
    let (signal, info) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let signal = libc::sigwaitinfo(all.as_ptr(), info.as_mut_ptr());
        (signal, info.assume_init())
    };
    Ok((checked(signal)?, info.si_code != SI_KERNEL))
}

/// `si_code` of signals from the kernel.
const SI_KERNEL: c_int = 0x80;

/// Resets a signal to its default action.
pub(super) fn reset_signal(signal: c_int) {
    // SAFETY: SIG_DFL is no code of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Unlocks the other end of the pseudo terminal `master`, and opens it.
pub(super) fn open_terminal(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: c_int = 0;
    // SAFETY: the first call reads one int; the second takes flags and gives a new file descriptor that
    // is ours alone.
    unsafe {
        checked(libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCSPTLCK,
            &raw const unlocked,
        ))?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let peer = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags);
        Ok(OwnedFd::from_raw_fd(checked(peer)?))
    }
}

/// Sets attributes (`MOUNT_ATTR_…`) of the mount that `root` is the root of, and of all below it.
pub(super) fn set_mount_attributes(root: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: an empty path that ends in zero, and a structure of the length that is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            root.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result as c_int).map(drop)
}

/// Forbids this process and all it becomes to push characters into a terminal as if they were typed: the
/// terminal is that of the user's shell.
pub(super) fn forbid_typing() -> io::Result<()> {
    const fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Offsets in seccomp_data: the call's number, and the low half of its second argument.
    const NUMBER: u32 = 0;
    const REQUEST: u32 = if cfg!(target_endian = "little") {
        24
    } else {
        28
    };
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    // The same call has other numbers for programs of 32 bits, i386 and arm, and of x32.
    const NUMBERS: [u32; 3] = [libc::SYS_ioctl as u32, 54, 0x4000_0202];
    let [native, narrow, x32] = NUMBERS;
    let mut program = [
        op(LOAD, 0, 0, NUMBER),
        op(EQUAL, 2, 0, native),
        op(EQUAL, 1, 0, narrow),
        op(EQUAL, 0, 4, x32),
        op(LOAD, 0, 0, REQUEST),
        op(EQUAL, 1, 0, libc::TIOCSTI as u32),
        op(EQUAL, 0, 1, libc::TIOCLINUX as u32),
        op(RETURN, 0, 0, refuse),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives until the kernel has copied it.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    checked(result).map(drop)
}
