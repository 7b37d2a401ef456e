//! Making the guest a job's own: clock, entropy, names, user, shares.
//!
//! A resumed guest is a clone: its clock stands at the snapshot's time and its random pool is that of all
//! clones. Both are set before anything else, because what follows depends on them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pcocc_guest::protocol::{Adopt, Mount, User};
use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::Failure;
use crate::init::make_folder;

/// Largest message of a 9p share, in bytes.
const SHARE_MESSAGE: usize = 512 << 10;

/// Makes the guest the job's, but for the endpoint; gives the errors of single shares.
pub(crate) fn run(adopt: &Adopt) -> Result<Vec<String>, Failure> {
    set_clock(adopt.time_ns)?;
    add_entropy(&adopt.entropy)?;
    set_names(&adopt.hostname, &adopt.machine_id)?;
    add_user(&adopt.user)?;
    Ok(adopt
        .mounts
        .iter()
        .filter_map(|share| mount_share(share).err())
        .map(|error| error.to_string())
        .collect())
}

/// Sets the wall clock.
pub(crate) fn set_clock(time_ns: u64) -> Result<(), Failure> {
    let second = 1_000_000_000;
    let time = Timespec {
        tv_sec: i64::try_from(time_ns / second).unwrap_or_default(),
        tv_nsec: (time_ns % second).try_into().unwrap_or_default(),
    };
    clock_settime(ClockId::Realtime, time).map_err(Failure::of("set the clock"))
}

/// Sets the wall clock when it is off by more than a second, as after the node was suspended.
pub(crate) fn correct_clock(time_ns: u64) -> Result<(), Failure> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos());
    if u128::from(time_ns).abs_diff(now) > 1_000_000_000 {
        set_clock(time_ns)?;
    }
    Ok(())
}

/// Mixes fresh entropy into the random pool and makes the generator draw from it now.
fn add_entropy(entropy: &str) -> Result<(), Failure> {
    let bytes = BASE64_STANDARD
        .decode(entropy)
        .map_err(Failure::of("read the entropy"))?;
    let mut pool = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .map_err(Failure::of("open the random pool"))?;
    pool.write_all(&bytes)
        .map_err(Failure::of("feed the random pool"))?;
    reseed(&pool)
}

/// Makes the kernel's generator take its pool's content as new key (RNDRESEEDCRNG of linux/random.h).
#[expect(unsafe_code, reason = "an ioctl")]
fn reseed(pool: &File) -> Result<(), Failure> {
    const RNDRESEEDCRNG: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(b'R', 7);
    // SAFETY: the request takes no argument and touches no memory of the caller's.
    let result = unsafe {
        let request = rustix::ioctl::NoArg::<RNDRESEEDCRNG>::new();
        rustix::ioctl::ioctl(pool, request)
    };
    result.map_err(Failure::of("reseed the random generator"))
}

/// Sets host name and machine id.
fn set_names(hostname: &str, machine_id: &str) -> Result<(), Failure> {
    rustix::system::sethostname(hostname.as_bytes()).map_err(Failure::of("set the host name"))?;
    let hosts = format!("127.0.0.1 localhost\n127.0.1.1 {hostname}\n::1 localhost\n");
    for (file, content) in [
        ("/etc/hostname", format!("{hostname}\n")),
        ("/etc/hosts", hosts),
        ("/etc/machine-id", format!("{machine_id}\n")),
    ] {
        fs::write(file, content).map_err(Failure::of(format!("write {file}")))?;
    }
    Ok(())
}

/// Adds the user to the guest's user database, so that names show in its shell.
fn add_user(user: &User) -> Result<(), Failure> {
    let clean = |text: &str| !text.is_empty() && !text.contains([':', '\n', '/']);
    let home = user.home.to_string_lossy();
    if !clean(&user.name) || home.contains([':', '\n']) || user.uid == 0 {
        // Root is there already, and a strange name is not worth a failure.
        return Ok(());
    }
    let append = |file: &str, line: String| {
        let mut file = OpenOptions::new().append(true).open(file)?;
        file.write_all(line.as_bytes())
    };
    let User { name, uid, gid, .. } = user;
    append(
        "/etc/passwd",
        format!("{name}:x:{uid}:{gid}::{home}:/bin/sh\n"),
    )
    .and_then(|()| append("/etc/group", format!("{name}:x:{gid}:\n")))
    .map_err(Failure::of("add the user"))
}

/// Mounts a share. Nothing is cached: the node's processes change the same files.
fn mount_share(share: &Mount) -> Result<(), Failure> {
    let action = format!("mount {}", share.dest.display());
    if !allowed(&share.dest) {
        return Err(Failure(format!(
            "failed to {action}: the guest's own files are there"
        )));
    }
    make_folder(&share.dest)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if share.read_only {
        flags |= MountFlags::RDONLY;
    }
    let options =
        format!("trans=virtio,version=9p2000.L,cache=none,access=client,msize={SHARE_MESSAGE}");
    let options = std::ffi::CString::new(options).unwrap_or_default();
    mount(&*share.tag, &share.dest, "9p", flags, &*options).map_err(Failure::of(action))
}

/// Whether a share at `dest` hides nothing that the guest itself needs.
fn allowed(dest: &Path) -> bool {
    const OWN: [&str; 12] = [
        "/bin", "/boot", "/data", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin",
        "/sys", "/usr",
    ];
    dest.is_absolute()
        && dest.parent().is_some()
        && !dest.components().any(|part| part.as_os_str() == "..")
        && !OWN.iter().any(|own| dest.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_off_the_guest() {
        for (dest, is) in [
            ("/home/doe", true),
            ("/srv/project", true),
            ("/root", true),
            ("/", false),
            ("/etc", false),
            ("/usr/local", false),
            ("/srv/../etc", false),
            ("home", false),
        ] {
            assert_eq!(allowed(Path::new(dest)), is, "{dest}");
        }
    }
}
