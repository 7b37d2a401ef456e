//! The config of an image, as far as a transfer has to understand it: layers and platform.
//!
//! All else is passed on byte for byte. Programs that take the first of two equal keys and programs that take the last, or that
//! heed the case of keys or do not, must see the same layers: a config that means different ones is refused.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::descriptor::check_size;
use crate::error::{Error, Result};
use pcocc_layers::DiffId;

/// The diff IDs an image config lists, lowest layer first.
pub fn diff_ids(config: &[u8]) -> Result<Vec<DiffId>> {
    parse_config(config).map(|(diff_ids, ..)| diff_ids)
}

/// Diff IDs, architecture and operating system. Docker takes a missing system for Linux, and so do we.
pub(super) fn parse_config(config: &[u8]) -> Result<(Vec<DiffId>, String, String)> {
    check_size("image config", config)?;
    let bad = |error: serde_json::Error| {
        Error::invalid("image config", format!("does not parse: {error}"))
    };
    let members: Members = serde_json::from_slice(config).map_err(bad)?;
    let last = |name: &str| -> Result<String> {
        let texts: Vec<Option<String>> = members.called(name).map_err(bad)?;
        Ok(texts.into_iter().flatten().next_back().unwrap_or_default())
    };
    let mut lists = Vec::new();
    for rootfs in members.called::<Option<Members>>("rootfs").map_err(bad)? {
        let of_rootfs = rootfs.map(|rootfs| rootfs.called::<Option<Vec<String>>>("diff_ids"));
        lists.extend(of_rootfs.transpose().map_err(bad)?.into_iter().flatten());
    }
    lists.dedup();
    let list = match lists.as_slice() {
        [list] => list.as_deref().unwrap_or_default(),
        [] => {
            return Err(Error::invalid(
                "image config",
                "does not parse: it has no rootfs.diff_ids",
            ));
        }
        _ => {
            return Err(Error::invalid(
                "image config",
                "names different lists of layers",
            ));
        }
    };
    let diff_ids = list
        .iter()
        .map(|text| Ok(DiffId(text.parse()?)))
        .collect::<Result<_>>()?;
    let os = Some(last("os")?).filter(|os| !os.is_empty());
    let os = os.unwrap_or_else(|| "linux".to_owned());
    Ok((diff_ids, last("architecture")?, os))
}

/// The members of an object in their order, those with equal keys as well.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// The values of the members with this key, in any case.
    fn called<T: DeserializeOwned>(&self, key: &str) -> serde_json::Result<Vec<T>> {
        let called = self
            .0
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(key));
        called
            .map(|(_, value)| serde_json::from_str(value.get()))
            .collect()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_and_platform_alone_are_understood() {
        let id = |text: &str| DiffId(pcocc_layers::Digest::of(text.as_bytes()));
        let (a, b) = (id("a"), id("b"));
        let parse = |text: &str| {
            let text = text
                .replace("A", &format!("{:?}", a.to_string()))
                .replace("B", &format!("{:?}", b.to_string()));
            parse_config(text.as_bytes())
        };
        for text in [
            r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[A,B]}}"#,
            r#"{"OS":"linux","Architecture":"amd64","rootFS":{"DIFF_IDS":[A,B]},"config":{"Cmd":"sh"}}"#,
            r#"{"architecture":"mips","architecture":"amd64","rootfs":{"diff_ids":[A,B]},"history":null}"#,
            r#"{"os":null,"architecture":"amd64","rootfs":{"diff_ids":[A,B]},"Rootfs":{"diff_ids":[A,B]},"created":7}"#,
        ] {
            let text = text
                .replace("Architecture", "architecturE")
                .replace("OS", "Os");
            let text = text
                .replace("rootFS", "rootfs")
                .replace("DIFF_IDS", "diff_ids");
            let expected = (vec![a, b], "amd64".to_owned(), "linux".to_owned());
            assert_eq!(parse(&text).unwrap(), expected, "{text}");
        }
        let (none, architecture, _) = parse(r#"{"rootfs":{"diff_ids":null}}"#).unwrap();
        assert_eq!((none, architecture.as_str()), (vec![], ""));
        for text in [
            r#"{"rootfs":{"diff_ids":[A]},"rootfs":{"diff_ids":[B]}}"#,
            r#"{"rootfs":{"diff_ids":[A]},"rootFs":{"diff_ids":[B]}}"#,
            r#"{"rootfs":{"diff_ids":[A],"diff_Ids":[A,B]}}"#,
            r#"{"rootfs":{"diff_ids":[A],"diff_ids":null}}"#,
            r#"{"rootfs":{}}"#,
            r#"{"rootfs":null}"#,
            r#"{"rootfs":{"diff_ids":"A"}}"#,
            "{}",
            "[]",
            "7",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
