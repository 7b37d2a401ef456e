//! `registries.conf` of podman, skopeo and buildah (containers-registries.conf(5), version 2): where the images of a
//! registry really are.
//!
//! Of the `[[registry]]` tables the one with the longest prefix of an image's name counts. Its `location` takes the place of
//! the prefix. A read tries the mirrors first, in their order; a write goes to the location alone.

use std::path::PathBuf;

use pcocc_image::{Error, Result};
use serde::Deserialize;

/// A file of rules.
#[derive(Clone, Debug)]
pub struct RulesFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// The rules of several files: the table of a later file takes the place of one with the same prefix.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Rule {
    prefix: Option<String>,
    location: Option<String>,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    /// `all`, `digest-only` or `tag-only`.
    pull_from_mirror: Option<String>,
}

/// Where an image is: a registry and a repository of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port.
    pub(super) host: String,
    /// The repository.
    pub(super) path: String,
    /// Whether HTTP and unverified TLS will do.
    pub(super) insecure: bool,
}

impl Rules {
    /// Parses the files.
    pub(super) fn parse(files: &[RulesFile]) -> Result<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct File {
            registry: Vec<Rule>,
        }
        let mut rules: Vec<Rule> = Vec::new();
        for file in files {
            let parsed: File = toml::from_str(&file.text).map_err(|error| {
                let why = error.message().to_owned();
                Error::invalid(
                    file.path.display().to_string(),
                    format!("does not parse: {why}"),
                )
            })?;
            for rule in parsed.registry {
                if rule.name().is_none() {
                    let why = "has a [[registry]] without prefix and location";
                    return Err(Error::invalid(file.path.display().to_string(), why));
                }
                rules.retain(|other| other.name() != rule.name());
                rules.push(rule);
            }
        }
        Ok(Self(rules))
    }

    /// Where to read the image `path` of `host` from, best first; `by_digest` if its digest is given. Fails if the registry is
    /// blocked.
    pub(super) fn to_read(&self, host: &str, path: &str, by_digest: bool) -> Result<Vec<Place>> {
        let Some((rule, prefix)) = self.find(host, path) else {
            return Ok(vec![Place::of(host, path)]);
        };
        rule.check(host, path)?;
        let rest = format!("{host}/{path}").split_off(prefix);
        let mirrors =
            rule.mirror
                .iter()
                .filter(|mirror| match mirror.pull_from_mirror.as_deref() {
                    Some("digest-only") => by_digest,
                    Some("tag-only") => !by_digest,
                    _ => by_digest || !rule.mirror_by_digest_only,
                });
        let mirrors =
            mirrors.map(|mirror| Place::at(&format!("{}{rest}", mirror.location), mirror.insecure));
        mirrors.chain([rule.place(host, path, &rest)]).collect()
    }

    /// Where to write the image to.
    pub(super) fn to_write(&self, host: &str, path: &str) -> Result<Place> {
        let Some((rule, prefix)) = self.find(host, path) else {
            return Ok(Place::of(host, path));
        };
        rule.check(host, path)?;
        let rest = format!("{host}/{path}").split_off(prefix);
        rule.place(host, path, &rest)
    }

    /// The rule for an image, and the length of what its prefix covers.
    fn find(&self, host: &str, path: &str) -> Option<(&Rule, usize)> {
        let name = format!("{host}/{path}");
        let fitting = self
            .0
            .iter()
            .filter_map(|rule| Some((rule, rule.covers(&name)?)));
        fitting.max_by_key(|(_, length)| *length)
    }
}

impl Rule {
    /// The prefix, which is the location unless it is given.
    fn name(&self) -> Option<&str> {
        let given = |text: &'_ Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        match given(&self.prefix) {
            true => self.prefix.as_deref(),
            false => self
                .location
                .as_deref()
                .filter(|location| !location.is_empty()),
        }
    }

    /// How much of `name` the prefix covers: components of the path, or `*.` and a domain.
    fn covers(&self, name: &str) -> Option<usize> {
        let prefix = self.name()?.trim_end_matches('/');
        let end = match prefix.strip_prefix('*') {
            Some(domain) => {
                let host = name.split('/').next()?;
                let bare = domain.split(['/', ':']).next()?;
                let at = host
                    .find(bare)
                    .filter(|at| *at > 0 && domain.starts_with('.'))?;
                name.get(at..)?
                    .starts_with(domain)
                    .then_some(at + domain.len())?
            }
            None => name.starts_with(prefix).then_some(prefix.len())?,
        };
        let rest = name.get(end..)?;
        (rest.is_empty()
            || rest.starts_with('/')
            || (rest.starts_with(':') && !prefix.contains('/')))
        .then_some(end)
    }

    fn check(&self, host: &str, path: &str) -> Result<()> {
        match self.blocked {
            false => Ok(()),
            true => Err(Error::Denied {
                what: format!("registry image {host}/{path}"),
                why: "is blocked by registries.conf".to_owned(),
            }),
        }
    }

    /// Where the rule leads to: `rest` is the name behind the prefix.
    fn place(&self, host: &str, path: &str, rest: &str) -> Result<Place> {
        match self
            .location
            .as_deref()
            .filter(|location| !location.is_empty())
        {
            Some(location) => Place::at(&format!("{location}{rest}"), self.insecure),
            None => Ok(Place {
                insecure: self.insecure,
                ..Place::of(host, path)
            }),
        }
    }
}

impl Place {
    /// The image where its name says.
    pub(super) fn of(host: &str, path: &str) -> Self {
        Self {
            host: host.to_owned(),
            path: path.to_owned(),
            insecure: false,
        }
    }

    fn at(name: &str, insecure: bool) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-:/[]".contains(c);
        match name.split_once('/') {
            Some((host, path))
                if !host.is_empty() && !path.is_empty() && name.chars().all(legal) =>
            {
                Ok(Self {
                    insecure,
                    ..Self::of(host, path)
                })
            }
            _ => {
                let shown: String = name.chars().take(100).collect();
                Err(Error::invalid(
                    format!("location {shown:?} of registries.conf"),
                    "is no registry and repository",
                ))
            }
        }
    }
}

/// Any bytes as `registries.conf`, for the fuzzer.
pub(super) fn any(data: &[u8]) {
    let Ok(text) = String::from_utf8(data.to_vec()) else {
        return;
    };
    let path = "registries.conf".into();
    if let Ok(rules) = Rules::parse(&[RulesFile { path, text }]) {
        for (host, image) in [("docker.io", "library/centos"), ("reg.io:5000", "org/app")] {
            if let Ok(places) = rules.to_read(host, image, false) {
                assert!(!places.is_empty());
                assert_eq!(rules.to_write(host, image).ok().as_ref(), places.last());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"

[[registry]]
prefix = "docker.io"
location = "registry-1.docker.io"
[[registry.mirror]]
location = "mirror.site:5000/hub"
insecure = true
[[registry.mirror]]
location = "digests.site"
pull-from-mirror = "digest-only"

[[registry]]
location = "reg.io/evil"
blocked = true

[[registry]]
prefix = "reg.io/moved"
location = "new.io/from/reg"

[[registry]]
prefix = "*.lab.org"
location = "cache.site/lab"

[[registry]]
location = "open.io:5000"
insecure = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "m.io"
"#;

    fn rules(texts: &[&str]) -> Rules {
        let file = |text: &&str| RulesFile {
            path: "/etc/containers/registries.conf".into(),
            text: (*text).to_owned(),
        };
        Rules::parse(&texts.iter().map(file).collect::<Vec<_>>()).unwrap()
    }

    fn shown(places: &[Place]) -> String {
        let one = |place: &Place| {
            let mark = if place.insecure { "!" } else { "" };
            format!("{}/{}{mark}", place.host, place.path)
        };
        places.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_longest_prefix_says_where_an_image_is() {
        let rules = rules(&[TEXT]);
        for (host, path, by_digest, expected) in [
            (
                "docker.io",
                "library/a",
                false,
                "mirror.site:5000/hub/library/a! registry-1.docker.io/library/a",
            ),
            (
                "docker.io",
                "library/a",
                true,
                "mirror.site:5000/hub/library/a! digests.site/library/a registry-1.docker.io/library/a",
            ),
            ("reg.io", "org/app", false, "reg.io/org/app"),
            ("reg.io", "evilution/app", false, "reg.io/evilution/app"),
            ("reg.io", "moved/a/b", false, "new.io/from/reg/a/b"),
            ("a.b.lab.org", "x", false, "cache.site/lab/x"),
            ("lab.org", "x", false, "lab.org/x"),
            ("open.io:5000", "x", false, "open.io:5000/x!"),
            ("open.io:5000", "x", true, "m.io/x open.io:5000/x!"),
            ("open.io", "x", true, "open.io/x"),
        ] {
            let places = rules.to_read(host, path, by_digest).unwrap();
            assert_eq!(shown(&places), expected, "{host}/{path}");
            let written = rules.to_write(host, path).unwrap();
            assert_eq!(Some(&written), places.last());
        }
        let error = rules
            .to_read("reg.io", "evil/app", false)
            .unwrap_err()
            .to_string();
        assert!(error.contains("blocked"), "{error}");
    }

    #[test]
    fn a_later_file_takes_the_place_of_an_earlier_one() {
        let later = "[[registry]]\nlocation = \"reg.io/evil\"\nblocked = false\n";
        assert!(
            rules(&[TEXT, later])
                .to_read("reg.io", "evil/x", false)
                .is_ok()
        );
        let none = rules(&[]);
        assert_eq!(
            shown(&none.to_read("reg.io", "x", false).unwrap()),
            "reg.io/x"
        );
        for bad in [
            "[[registry]]\n",
            "registry = 7",
            "[[registry]\n",
            "[[registry]]\nlocation = \"a b\"\nprefix=\"x\"\n",
        ] {
            let file = RulesFile {
                path: "r.conf".into(),
                text: bad.to_owned(),
            };
            let outcome = Rules::parse(&[file]).and_then(|rules| rules.to_write("x", "y"));
            assert!(outcome.is_err(), "{bad}");
        }
    }
}
