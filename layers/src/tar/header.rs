//! One header block: its checksum and its numbers (POSIX ustar, GNU's base 256).

use super::error::{TarError, invalid};

/// Length of a block of a tar archive.
pub(super) const BLOCK: usize = 512;

/// The bytes of one block.
pub(super) type Block = [u8; BLOCK];

/// Compares a header block with its checksum, a sum over signed or unsigned bytes.
pub(super) fn verify(block: &Block) -> Result<(), TarError> {
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (index, &byte) in block.iter().enumerate() {
        // The field of the checksum counts as blanks.
        let byte = if (148..156).contains(&index) {
            b' '
        } else {
            byte
        };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    match number(&block[148..156]) {
        Ok(stated) if stated == unsigned || stated == signed => Ok(()),
        _ => invalid("is not a tar archive, or is corrupt: a header's checksum is wrong"),
    }
}

/// Decodes a header's number: octal text, or base 256 when the top bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, TarError> {
    let mut value = 0i64;
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            // Two's complement; bit 6 of the first byte is the sign.
            value = i64::from((*first as i8) << 1 >> 1);
            for &byte in rest {
                value = match value.checked_mul(256) {
                    Some(value) => value | i64::from(byte),
                    None => return invalid("has a number too large in a header"),
                };
            }
        }
        _ => {
            for &byte in until_nul(field).trim_ascii() {
                match byte {
                    b'0'..=b'7' => value = value * 8 + i64::from(byte - b'0'),
                    _ => return invalid("has a header with a broken number"),
                }
            }
        }
    }
    Ok(value)
}

/// Decodes the length of an entry.
pub(super) fn size(field: &[u8]) -> Result<u64, TarError> {
    match u64::try_from(number(field)?) {
        Ok(size) => Ok(size),
        Err(_) => invalid("has an entry of negative size"),
    }
}

/// The text in front of the first zero byte.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}
