//! Names of images: `[REPO:]IMAGE[@REV]` in repositories, docker's references in daemons and
//! registries. Parsed once at the edge.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use pcocc_layers::Digest;

/// Longest image name. Name, `@` and revision must fit into a file name.
const MAX_NAME: usize = 200;

/// Name of an image in the configured repositories: `[REPO:]IMAGE[@REV]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageUri {
    /// The repository; `None` for the first repository that has the image, or the default repository for
    /// writing.
    pub repo: Option<String>,
    /// The image's name, `[A-Za-z0-9_.-]+`.
    pub name: String,
    /// The revision; `None` for the highest.
    pub revision: Option<u64>,
}

impl ImageUri {
    /// The URI of the image `name` in whichever repository has it.
    pub fn named(name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self {
            repo: None,
            name: name.to_owned(),
            revision: None,
        })
    }

    /// The same image in the repository `repo`.
    pub fn within(self, repo: &str) -> Self {
        Self {
            repo: Some(repo.to_owned()),
            ..self
        }
    }
}

impl FromStr for ImageUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (rest, revision) = match text.rsplit_once('@') {
            None => (text, None),
            Some((rest, digits)) => (rest, Some(parse_revision(text, digits)?)),
        };
        let (repo, name) = match rest.split_once(':') {
            None => (None, rest),
            Some((repo, name)) => (Some(repo), name),
        };
        if let Some(repo) = repo
            && (repo.is_empty() || repo.bytes().any(|b| !is_name_byte(b)))
        {
            return Err(illegal(text, rest));
        }
        check_name(name).map_err(|_| illegal(text, rest))?;
        Ok(Self {
            repo: repo.map(str::to_owned),
            name: name.to_owned(),
            revision,
        })
    }
}

impl fmt::Display for ImageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(repo) = &self.repo {
            write!(f, "{repo}:")?;
        }
        f.write_str(&self.name)?;
        if let Some(revision) = self.revision {
            write!(f, "@{revision}")?;
        }
        Ok(())
    }
}

/// Fails unless `name` is legal for an image in a repository; the error suggests a legal name.
///
/// The rule of pcocc 0.7 is `[A-Za-z0-9_.-]+`. Names that start with `.` are refused as well: pcocc 0.7 does
/// not see such images, and its garbage collection would delete their blobs.
pub fn check_name(name: &str) -> Result<()> {
    if !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.starts_with('.')
        && name.bytes().all(is_name_byte)
    {
        Ok(())
    } else {
        Err(illegal(name, name))
    }
}

/// Turns any text into a similar legal image name: `ghcr.io/a/b:1` gives `ghcr.io-a-b-1`.
pub fn legal_name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        if name.len() >= MAX_NAME {
            break;
        }
        if c.is_ascii() && is_name_byte(c as u8) {
            name.push(c);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    let name = name.trim_start_matches(['.', '-']).trim_end_matches('-');
    if name.is_empty() {
        "image".to_owned()
    } else {
        name.to_owned()
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn parse_revision(text: &str, digits: &str) -> Result<u64> {
    // Python's int() takes more than digits, but pcocc writes only digits.
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten()
        .ok_or_else(|| {
            Error::invalid(
                format!("image {text:?}"),
                format!("has the revision {digits:?}, which is not a number"),
            )
        })
}

fn illegal(text: &str, name: &str) -> Error {
    if text.is_empty() {
        return Error::invalid("image name", "is empty");
    }
    Error::invalid(
        format!("image name {text:?}"),
        format!(
            "is not legal in a repository: at most {MAX_NAME} letters, digits, \"_\", \".\" and \"-\", not starting with \".\"; {:?} would be",
            legal_name(name)
        ),
    )
}

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library/";

/// A name of an image in a docker daemon or a registry: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
///
/// The grammar is that of docker's `distribution/reference` package. `Display` gives the familiar
/// form that `docker images` prints, always with the tag or digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DockerReference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl DockerReference {
    /// The registry, such as `docker.io` or `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The path within the registry, such as `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` when neither tag nor digest was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, when the reference is pinned to one.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Whether the text before `/` or `:` named a registry other than docker's own.
    pub fn has_registry(&self) -> bool {
        self.domain != DEFAULT_DOMAIN
    }

    /// Name without tag and digest as docker prints it: `busybox`, `org/app`, `ghcr.io/org/app`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            // Of other paths, the first part would be read as a registry.
            _ if split_domain(&self.path) == (DEFAULT_DOMAIN.to_owned(), self.path.clone()) => {
                self.path.clone()
            }
            _ => format!("{DEFAULT_DOMAIN}/{}", self.path),
        }
    }

    /// The whole name: `docker.io/library/busybox:latest`.
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.domain, self.path, self.suffix())
    }

    /// The same repository with another tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self> {
        if !is_tag(tag) {
            return Err(bad_reference(
                &format!("{self}:{tag}"),
                "has an illegal tag",
            ));
        }
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    fn suffix(&self) -> String {
        let mut suffix = String::new();
        if let Some(tag) = &self.tag {
            suffix = format!(":{tag}");
        }
        if let Some(digest) = &self.digest {
            suffix.push_str(&format!("@{digest}"));
        }
        suffix
    }
}

impl FromStr for DockerReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: &str| bad_reference(text, why);
        if text.is_empty() {
            return Err(Error::invalid("docker image name", "is empty"));
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
        };
        // A colon after the last slash starts the tag; any other belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(bad(
                "has an illegal tag (at most 128 letters, digits, \"_\", \".\" and \"-\")",
            ));
        }
        // With a tag or a digest it is a name, for docker as well.
        if Digest::from_hex(text).is_ok() {
            return Err(bad("looks like an image ID; give the image a tag first"));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(&domain) {
            return Err(bad("has an illegal registry name"));
        }
        if !path.split('/').all(is_path_component) {
            return Err(bad(
                if path.to_ascii_lowercase().split('/').all(is_path_component) {
                    "has upper-case letters, which docker does not allow in a repository name"
                } else {
                    "is not a docker reference, such as debian:12 or ghcr.io/org/app:1"
                },
            ));
        }
        if domain.len() + 1 + path.len() > 255 {
            return Err(bad("is longer than the 255 characters docker allows"));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self {
            domain,
            path,
            tag,
            digest,
        })
    }
}

impl fmt::Display for DockerReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.suffix())
    }
}

fn bad_reference(text: &str, why: &str) -> Error {
    Error::invalid(format!("docker image name {text:?}"), why)
}

/// Docker's rule: the text before the first slash is a registry if it has a `.`, a `:` or an upper-case letter,
/// or is `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == LEGACY_DOMAIN {
        DEFAULT_DOMAIN
    } else {
        domain
    };
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    (domain.to_owned(), path)
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && tag.bytes().all(is_name_byte)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = if domain.starts_with('[') {
        match domain.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return false,
            },
            None => return false,
        }
    } else {
        match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        }
    };
    let host_is_legal = match host.strip_prefix('[') {
        Some(address) => {
            !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
        }
        None => host.split('.').all(|part| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    host_is_legal
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_are_words =
        bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    ends_are_words
        && bytes
            .split(|b| is_word(*b))
            .all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests;
