//! What variables held before an activation, kept in a variable.
//!
//! `1,NAME,NAME=VALUE,NAME+ELEMENT…`: was not set; had this value; a list into which this element was
//! put. Values are bytes in percent encoding, so that the whole is one line of plain characters in every
//! shell.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Version of the notation, its first word.
const VERSION: &str = "1";

/// What a variable was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    Unset,
    Value(OsString),
    /// A list that did not have this element.
    Without(OsString),
}

/// All variables that were changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved(pub(crate) Vec<(String, Before)>);

impl Saved {
    /// Adds a variable.
    pub(crate) fn push(&mut self, name: &str, before: Before) {
        self.0.push((name.to_owned(), before));
    }

    /// Writes the notation.
    pub(crate) fn encode(&self) -> String {
        let mut text = VERSION.to_owned();
        for (name, before) in &self.0 {
            let _ = match before {
                Before::Unset => write!(text, ",{name}"),
                Before::Value(value) => write!(text, ",{name}={}", encoded(value)),
                Before::Without(element) => write!(text, ",{name}+{}", encoded(element)),
            };
        }
        text
    }

    /// Reads the notation. `None` when it is not ours: an unknown version, or a variable not among `touched`.
    pub(crate) fn decode(text: &OsStr, touched: &[&str]) -> Option<Self> {
        let mut words = text.to_str()?.split(',');
        if words.next() != Some(VERSION) {
            return None;
        }
        let mut saved = Self::default();
        for word in words {
            let (name, before) = match word.find(['=', '+']) {
                None => (word, Before::Unset),
                Some(at) => {
                    let (name, rest) = word.split_at(at);
                    let value = decoded(rest.get(1..)?)?;
                    match rest.starts_with('=') {
                        true => (name, Before::Value(value)),
                        false => (name, Before::Without(value)),
                    }
                }
            };
            if !touched.contains(&name) {
                return None;
            }
            saved.push(name, before);
        }
        Some(saved)
    }
}

fn encoded(value: &OsStr) -> String {
    let mut text = String::new();
    for byte in value.as_bytes() {
        let _ = match byte {
            byte if byte.is_ascii_alphanumeric() || b"/.:_-@".contains(byte) => {
                write!(text, "{}", *byte as char)
            }
            byte => write!(text, "%{byte:02x}"),
        };
    }
    text
}

fn decoded(text: &str) -> Option<OsString> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (plain, encoded) = rest.split_at(at);
        bytes.extend(plain.as_bytes());
        bytes.push(u8::from_str_radix(encoded.get(1..3)?, 16).ok()?);
        rest = encoded.get(3..)?;
    }
    bytes.extend(rest.as_bytes());
    Some(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::TOUCHED;

    #[test]
    fn only_what_was_written_is_read() {
        let saved = Saved(vec![
            ("DOCKER_HOST".into(), Before::Unset),
            (
                "DOCKER_CERT_PATH".into(),
                Before::Value(OsString::from_vec(b"/a b%\xff\n".into())),
            ),
            ("PATH".into(), Before::Without("/opt/a+b".into())),
        ]);
        let text = saved.encode();
        assert_eq!(
            text,
            "1,DOCKER_HOST,DOCKER_CERT_PATH=/a%20b%25%ff%0a,PATH+/opt/a%2bb"
        );
        assert_eq!(Saved::decode(OsStr::new(&text), &TOUCHED), Some(saved));
        for bad in [
            "",
            "2,PATH",
            "1,LD_PRELOAD=/x",
            "1,PATH=%",
            "1,PATH=%zz",
            "1,,PATH",
            "1,PATH=%\u{e9}",
        ] {
            assert_eq!(Saved::decode(OsStr::new(bad), &TOUCHED), None, "{bad:?}");
        }
    }
}
