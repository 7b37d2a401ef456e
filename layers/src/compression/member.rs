//! The gzip members that pcocc writes, and how to recognise them.
//!
//! A layer blob is a gzip file of many members (RFC 1952, section 2.2), each with at most 1 MiB of plain tar,
//! so that members are compressed and inflated independently of each other. Every other program reads plain
//! gzip: concatenated members inflate to concatenated data. Each member starts with
//!
//! ```text
//! offset  0  1f 8b 08       gzip, deflate
//!         3  04             FLG: FEXTRA and nothing else
//!         4  00 00 00 00    MTIME: none
//!         8  04             XFL: fastest algorithm
//!         9  ff             OS: unknown
//!        10  08 00          XLEN
//!        12  'p' 'c' 04 00  subfield ID and length (section 2.3.1.1)
//!        16  u32 LE         length of the whole member, header and trailer included
//!        20  deflate stream
//!    len-8  CRC32, ISIZE    u32 LE each
//! ```
//!
//! A reader steps from member to member and adds up ISIZE, without inflating. Nothing depends on time or
//! machine: the same tar gives the same blob.

use super::buffer::PIECE;

/// Bytes before a member's deflate stream.
pub(super) const HEADER: usize = 20;
/// Bytes after the deflate stream.
pub(super) const TRAILER: usize = 8;
/// Longest member: incompressible bytes grow by 5 in some thousands.
pub(super) const LONGEST: usize = PIECE + PIECE / 16;

const START: [u8; 16] = [
    0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 4, 0xff, 8, 0, b'p', b'c', 4, 0,
];

/// The header of a member of `length` bytes.
pub(super) fn header(length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..START.len()].copy_from_slice(&START);
    header[START.len()..].copy_from_slice(&length.to_le_bytes());
    header
}

/// Length of the member that starts with `header`; `None` for a foreign member.
pub(super) fn length(header: &[u8]) -> Option<usize> {
    let length = header.strip_prefix(&START)?.first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (HEADER + TRAILER < length && length <= LONGEST).then_some(length)
}

/// CRC32 and ISIZE at the end of a member.
pub(super) fn trailer(member: &[u8]) -> Option<(u32, u32)> {
    let trailer = member.last_chunk::<TRAILER>()?;
    let (crc, size) = trailer.split_first_chunk::<4>()?;
    Some((
        u32::from_le_bytes(*crc),
        u32::from_le_bytes(*size.first_chunk::<4>()?),
    ))
}
