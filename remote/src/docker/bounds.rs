//! How much of a daemon's answer is read.
//!
//! There is one connection for each request, so the connection counts: what collects an answer above it cannot be made to
//! hold more than this, whoever answers. Archives and events pass by and are not collected; their readers have bounds of
//! their own.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::{Method, StatusCode};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

/// Most bytes of a list: of images, containers, or changes of one.
const LIST: u64 = 64 << 20;
/// Most bytes about one image.
const IMAGE: u64 = 8 << 20;
/// Most bytes of any other document.
const DOCUMENT: u64 = 1 << 20;
/// Most bytes of an error.
const REFUSAL: u64 = 64 << 10;
/// Most bytes in front of an answer's body. hyper itself takes 100 headers at most.
const HEAD: u64 = 1 << 20;

/// Most items of a list: in memory an item is larger than the shortest text of one.
const MOST_ITEMS: usize = 100_000;

/// Most bytes of a good answer to a request; `None` for what is never collected.
pub(super) fn of_answer(method: &Method, path: &str) -> Option<u64> {
    let is_get = method == Method::GET;
    let within = |folder: &str, end: &str| path.starts_with(folder) && path.ends_with(end);
    let streams = path == "/events"
        || path == "/images/get"
        || within("/images/", "/get")
        || within("/containers/", "/archive");
    match path {
        _ if is_get && streams => None,
        "/images/json" | "/containers/json" => Some(LIST),
        _ if within("/containers/", "/changes") => Some(LIST),
        _ if within("/images/", "/json") => Some(IMAGE),
        _ => Some(DOCUMENT),
    }
}

/// An answer was longer than any daemon's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overrun {
    most: u64,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = match self.most {
            most if most < 1 << 20 => format!("{} KiB", most >> 10),
            most => format!("{} MiB", most >> 20),
        };
        let what = match self.most {
            REFUSAL => "error",
            _ => "answer",
        };
        write!(
            f,
            "gives an {what} of more than {size}, as no docker daemon does"
        )
    }
}

impl std::error::Error for Overrun {}

/// The last overrun of an endpoint, for callers to which only the text of another layer comes through.
#[derive(Clone, Debug, Default)]
pub(super) struct LastOverrun(Arc<AtomicU64>);

impl LastOverrun {
    pub(super) fn take(&self) -> Option<Overrun> {
        match self.0.swap(0, Ordering::AcqRel) {
            0 => None,
            most => Some(Overrun { most }),
        }
    }
}

/// What may still come on a connection; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Allowance(Arc<State>);

#[derive(Debug)]
struct State {
    /// Bytes left, of `most`.
    left: AtomicU64,
    most: AtomicU64,
    last: LastOverrun,
}

impl Allowance {
    /// Allows for the head of an answer.
    pub(super) fn new(last: &LastOverrun) -> Self {
        Self(Arc::new(State {
            left: AtomicU64::new(HEAD),
            most: AtomicU64::new(HEAD),
            last: last.clone(),
        }))
    }

    /// Allows for the body of an answer with this status, of which `most` bytes are read if it is a good one.
    pub(super) fn body(&self, status: StatusCode, most: Option<u64>) {
        let most = match status {
            StatusCode::SWITCHING_PROTOCOLS => None,
            status if status.is_success() => most,
            _ => Some(REFUSAL),
        };
        let most = most.unwrap_or(u64::MAX);
        self.0.most.store(most, Ordering::Release);
        self.0.left.store(most, Ordering::Release);
    }

    /// Counts bytes that came; fails when they are more than were left.
    pub(super) fn spend(&self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let left = self.0.left.load(Ordering::Acquire);
        if left == u64::MAX {
            return Ok(());
        }
        self.0
            .left
            .store(left.saturating_sub(bytes), Ordering::Release);
        if bytes <= left {
            return Ok(());
        }
        let most = self.0.most.load(Ordering::Acquire);
        self.0.last.0.store(most, Ordering::Release);
        Err(io::Error::other(Overrun { most }))
    }
}

/// A JSON list of at most [`MOST_ITEMS`].
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == MOST_ITEMS {
                        return Err(A::Error::custom(format!("more than {MOST_ITEMS} items")));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Items(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_by_what_they_are() {
        for (method, path, most) in [
            (Method::GET, "/images/json", Some(LIST)),
            (Method::GET, "/containers/json", Some(LIST)),
            (Method::GET, "/containers/x/changes", Some(LIST)),
            (Method::GET, "/images/ghcr.io/org/app:1/json", Some(IMAGE)),
            (Method::GET, "/info", Some(DOCUMENT)),
            (Method::GET, "/_ping", Some(DOCUMENT)),
            (Method::GET, "/containers/x/json", Some(DOCUMENT)),
            (Method::POST, "/images/load", Some(DOCUMENT)),
            (Method::POST, "/containers/x/wait", Some(DOCUMENT)),
            (Method::DELETE, "/images/x/get", Some(DOCUMENT)),
            (Method::GET, "/images/x/get", None),
            (Method::GET, "/containers/x/archive", None),
            (Method::GET, "/events", None),
        ] {
            assert_eq!(of_answer(&method, path), most, "{method} {path}");
        }
    }

    #[test]
    fn a_connection_breaks_where_too_much_comes() {
        let allowance = Allowance::new(&LastOverrun::default());
        allowance.spend(1000).unwrap();
        allowance.body(StatusCode::OK, Some(10));
        allowance.spend(10).unwrap();
        allowance.spend(1).unwrap_err();
        allowance.body(StatusCode::OK, None);
        allowance.spend(usize::MAX).unwrap();
        allowance.body(StatusCode::NOT_FOUND, None);
        let error = allowance.spend(1 << 20).unwrap_err().to_string();
        assert!(error.contains("error of more than 64 KiB"), "{error}");
    }

    #[test]
    fn lists_have_no_more_items_than_fit() {
        let list = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        let read = |text: &str| serde_json::from_str::<List<serde::de::IgnoredAny>>(text);
        assert_eq!(read(&list(MOST_ITEMS)).unwrap().0.len(), MOST_ITEMS);
        assert!(read(&list(MOST_ITEMS + 1)).is_err());
    }
}
