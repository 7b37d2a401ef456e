//! Records of pax extended headers (POSIX `pax`, "Extended Header").

use super::error::{TarError, invalid};

/// Keys and values of pax records, or of extended attributes.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// Splits a block of records, `length key=value\n` each; the length counts the whole record.
pub(super) fn records(mut block: &[u8]) -> Result<Records, TarError> {
    let mut records = Vec::new();
    while !block.is_empty() {
        let Some((length, key, value)) = record(block) else {
            return invalid("has a broken pax record");
        };
        records.push((key.to_vec(), value.to_vec()));
        block = block.get(length..).unwrap_or_default();
    }
    Ok(records)
}

/// Length, key and value of the first record.
fn record(block: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = block.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(block.get(..space)?)
        .ok()?
        .parse()
        .ok()?;
    let record = block.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((length, record.get(..equals)?, record.get(equals + 1..)?))
}

pub(super) fn decimal(text: &[u8]) -> Result<i64, TarError> {
    match std::str::from_utf8(text).map(str::parse) {
        Ok(Ok(value)) => Ok(value),
        _ => invalid("has a pax record with a broken number"),
    }
}

pub(super) fn natural(text: &[u8]) -> Result<u64, TarError> {
    match u64::try_from(decimal(text)?) {
        Ok(value) => Ok(value),
        Err(_) => invalid("has a pax record with a negative number"),
    }
}

/// Whole seconds, rounded down, of a decimal time such as `-1.5`.
pub(super) fn seconds(text: &[u8]) -> Result<i64, TarError> {
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return invalid("has a pax record with a broken time");
    }
    let below = whole.starts_with(b"-") && fraction.iter().any(|&digit| digit != b'0');
    Ok(decimal(whole)?.saturating_sub(i64::from(below)))
}
