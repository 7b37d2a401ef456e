//! The docker daemon's engine id, which must differ between clones of one snapshot.
//!
//! dockerd reads it once, from a file in its data folder, and starting it again after a resume would cost
//! the better part of a minute. So it is started with a known id, and the id is replaced where it stands in
//! dockerd's memory: a Go string of fixed length that is never written again. The occurrences are looked up before
//! the snapshot is taken and checked before they are written.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use rustix::process::Pid;

use crate::Failure;

/// Where dockerd keeps its id.
const FILE: &str = "/data/docker/engine-id";
/// The id dockerd is started with.
pub(crate) const PLACEHOLDER: &str = "7c0cc000-feed-4bad-8bad-0000feed0bad";
/// Where the heap of a Go program lies on x86-64 Linux: arenas from this address on.
const GO_HEAP: std::ops::Range<u64> = 0xc0_0000_0000..0xd0_0000_0000;
/// How a string of the id's length is aligned in it.
const ALIGNMENT: usize = 16;

/// The addresses of the id in dockerd's memory.
#[derive(Clone, Debug)]
pub(crate) struct Occurrences {
    pid: Pid,
    addresses: Vec<u64>,
}

/// Writes the placeholder where dockerd will read it.
pub(crate) fn plant() -> Result<(), Failure> {
    crate::init::make_folder("/data/docker")?;
    fs::write(FILE, PLACEHOLDER).map_err(Failure::of("write the engine id"))
}

/// Looks for the placeholder in dockerd's memory.
pub(crate) fn find(pid: Pid) -> Result<Occurrences, Failure> {
    let raw = pid.as_raw_nonzero();
    let maps = fs::read_to_string(format!("/proc/{raw}/maps"))
        .map_err(Failure::of("read dockerd's memory map"))?;
    let memory =
        File::open(format!("/proc/{raw}/mem")).map_err(Failure::of("read dockerd's memory"))?;
    let mut addresses = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for line in maps.lines() {
        let Some((start, end)) = writable(line).filter(|(start, _)| GO_HEAP.contains(start)) else {
            continue;
        };
        let mut at = start;
        while at < end {
            let length = buffer
                .len()
                .min(usize::try_from(end - at).unwrap_or(usize::MAX));
            let Some(part) = buffer.get_mut(..length) else {
                break;
            };
            if memory.read_exact_at(part, at).is_err() {
                break;
            }
            addresses
                .extend(positions(part, PLACEHOLDER.as_bytes()).map(|offset| at + offset as u64));
            // An id across the border is found in the next part.
            let step = match at + length as u64 >= end {
                true => length,
                false => length - PLACEHOLDER.len().next_multiple_of(ALIGNMENT),
            };
            at += step as u64;
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Occurrences { pid, addresses })
}

/// Gives the bounds of a mapping that can be written; `line` is of `/proc/PID/maps`.
fn writable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    rest.starts_with("rw").then_some((
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    ))
}

/// Gives the offsets at which `needle` stands in `hay`. Only looks where Go puts a string of its length: the
/// size class of 48 bytes is aligned to 16.
fn positions<'a>(hay: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    (0..hay.len())
        .step_by(ALIGNMENT)
        .filter(|offset| hay.get(*offset..).unwrap_or_default().starts_with(needle))
}

/// Replaces the id everywhere; `id` has the placeholder's length.
pub(crate) fn replace(occurrences: &Occurrences, id: &str) -> Result<(), Failure> {
    if id.len() != PLACEHOLDER.len() {
        return Err(Failure(format!("{id:?} is no engine id")));
    }
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{}/mem", occurrences.pid.as_raw_nonzero()))
        .map_err(Failure::of("open dockerd's memory"))?;
    let mut found = vec![0; PLACEHOLDER.len()];
    for address in &occurrences.addresses {
        let same = memory.read_exact_at(&mut found, *address).is_ok();
        if same && found == PLACEHOLDER.as_bytes() {
            memory
                .write_all_at(id.as_bytes(), *address)
                .map_err(Failure::of("write dockerd's memory"))?;
        }
    }
    fs::write(FILE, id).map_err(Failure::of("write the engine id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_all_aligned_positions() {
        let hay = b"ab..............xx..............ab";
        assert_eq!(positions(hay, b"ab").collect::<Vec<_>>(), [0, 32]);
        assert_eq!(positions(b"a", b"ab").count(), 0);
    }

    #[test]
    fn knows_writable_mappings() {
        let line = "c000000000-c000400000 rw-p 00000000 00:00 0";
        assert_eq!(writable(line), Some((0xc0_0000_0000, 0xc0_0040_0000)));
        assert_eq!(
            writable("400000-401000 r-xp 00000000 08:01 12 /bin/x"),
            None
        );
    }
}
