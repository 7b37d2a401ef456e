//! Which variables lead the docker command to a job's daemon, and how they are taken back.
//!
//! Data path: the variables that are set now → [`DockerEnvironment::activate`] or [`leave`] →
//! [`Changes`] → shell code ([`Changes::code`]) or a child's environment ([`Changes::apply`]).
//!
//! What was there before is kept in one variable, [`SAVED`], by [`saved`](crate::saved): taking back needs
//! no job, no file and no VM. A second activation starts from what the first one found, so that
//! leaving always leads back to before the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::process::Command;

use crate::dialect::Dialect;
use crate::quote;
use crate::saved::{Before, Saved};

/// The variable that keeps what was there before.
pub const SAVED: &str = "PCOCC_SAVED";
/// The variable that names the job.
pub const JOB: &str = "PCOCC_JOBID";
/// The variable with the prompt's tag, which the hooks keep up to date.
pub const PROMPT: &str = "PCOCC_PROMPT";

const HOST: &str = "DOCKER_HOST";
const TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
const CERT_PATH: &str = "DOCKER_CERT_PATH";
const MACHINE: &str = "DOCKER_MACHINE_NAME";
/// Docker prefers a context to DOCKER_HOST, so none may be set.
const CONTEXT: &str = "DOCKER_CONTEXT";
const PATH: &str = "PATH";

/// Variables that always get a value.
const CORE: [&str; 5] = [HOST, TLS_VERIFY, CERT_PATH, JOB, MACHINE];
/// All variables that are touched, in the order in which they are written.
pub(crate) const TOUCHED: [&str; 9] = [
    PATH, HOST, TLS_VERIFY, CERT_PATH, JOB, MACHINE, CONTEXT, "NO_PROXY", "no_proxy",
];
const PROXIES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// Environment variables by name.
pub type Variables = BTreeMap<OsString, OsString>;

/// Where the docker daemon of a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerEnvironment {
    /// The job's number.
    pub job: String,
    /// The daemon's address, as DOCKER_HOST has it: `tcp://ADDRESS:PORT`.
    pub host: String,
    /// Folder of `ca.pem`, `cert.pem` and `key.pem`; absolute.
    pub cert_path: PathBuf,
    /// Folder of the docker command, to be put in front of PATH.
    pub docker_path: Option<PathBuf>,
}

impl DockerEnvironment {
    /// Says what to change for docker to talk to this daemon, `current` being what is set now.
    pub fn activate(&self, current: &Variables) -> Changes {
        let (mut next, _) = without(current);
        let mut saved = Saved::default();
        for (name, value) in [
            (HOST, Some(OsString::from(&self.host))),
            (TLS_VERIFY, Some("1".into())),
            (CERT_PATH, Some(self.cert_path.clone().into())),
            (JOB, Some(OsString::from(&self.job))),
            (MACHINE, Some(format!("pcocc/{}", self.job).into())),
            (CONTEXT, None),
        ] {
            let old = match value {
                Some(value) => next.insert(name.into(), value),
                None => next.remove(OsStr::new(name)),
            };
            if old.is_some() || name != CONTEXT {
                saved.push(name, old.map_or(Before::Unset, Before::Value));
            }
        }
        if let Some(folder) = &self.docker_path {
            add(&mut next, &mut saved, PATH, folder.as_os_str());
        }
        let proxied = PROXIES.iter().any(|name| value(&next, name).is_some());
        if let (true, Some(address)) = (proxied, address(&self.host)) {
            // Programs read one of the two; where there is none, the small one is read by all.
            let there = ["NO_PROXY", "no_proxy"].map(|name| value(&next, name).map(|_| name));
            let names: Vec<_> = there.into_iter().flatten().collect();
            for name in if names.is_empty() {
                vec!["no_proxy"]
            } else {
                names
            } {
                add(&mut next, &mut saved, name, OsStr::new(address));
            }
        }
        next.insert(SAVED.into(), saved.encode().into());
        Changes::between(current, &next, &CORE)
    }
}

/// Says what to change to get back to before the first activation; nothing where none is active.
pub fn leave(current: &Variables) -> Changes {
    let (next, was_active) = without(current);
    match was_active {
        true => Changes::between(current, &next, &[]),
        false => Changes::default(),
    }
}

/// What to set and what to unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Variables that get a value.
    pub set: Vec<(String, OsString)>,
    /// Variables that are removed.
    pub unset: Vec<String>,
}

impl Changes {
    /// What leads from `current` to `next`, with the `always` ones of `next` in any case.
    fn between(current: &Variables, next: &Variables, always: &[&str]) -> Self {
        let mut changes = Self::default();
        for name in TOUCHED.into_iter().chain([SAVED, PROMPT]) {
            let key = OsStr::new(name);
            match (current.get(key), next.get(key)) {
                (old, Some(new)) if old != Some(new) || always.contains(&name) => {
                    changes.set.push((name.to_owned(), new.clone()));
                }
                (Some(_), None) => changes.unset.push(name.to_owned()),
                _ => {}
            }
        }
        changes
    }

    /// Writes the changes as shell code.
    pub fn code(&self, dialect: Dialect) -> OsString {
        let mut code = OsString::new();
        for name in &self.unset {
            code.push(quote::unset(dialect, name));
        }
        for (name, value) in &self.set {
            code.push(quote::set(dialect, name, value));
        }
        code
    }

    /// Makes the changes in a child's environment.
    pub fn apply(&self, command: &mut Command) {
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
    }
}

/// The variables as they would be without an activation, and whether there is one.
fn without(current: &Variables) -> (Variables, bool) {
    let mut before = current.clone();
    before.remove(OsStr::new(PROMPT));
    let saved = before.remove(OsStr::new(SAVED));
    let Some(saved) = saved
        .as_deref()
        .and_then(|text| Saved::decode(text, &TOUCHED))
    else {
        // Exported by hand, or damaged: what is ours for sure goes.
        let ours = |name: &OsString| name.as_bytes().starts_with(b"pcocc/");
        let active = current.get(OsStr::new(MACHINE)).is_some_and(ours);
        if active {
            for name in CORE {
                before.remove(OsStr::new(name));
            }
        }
        return (before, active || saved.is_some());
    };
    for (name, was) in saved.0 {
        let key = OsString::from(&name);
        match was {
            Before::Unset => drop(before.remove(&key)),
            Before::Value(value) => drop(before.insert(key, value)),
            // The rest of the list stays: others may have added to it since.
            Before::Without(element) => {
                if let Some(list) = before.get(&key) {
                    let list = removed(&name, list, &element);
                    before.insert(key, list);
                }
            }
        }
    }
    (before, true)
}

/// A variable that is set and not empty.
fn value<'a>(variables: &'a Variables, name: &str) -> Option<&'a OsString> {
    variables
        .get(OsStr::new(name))
        .filter(|value| !value.is_empty())
}

/// What separates a list, and whether new elements come first.
fn list(name: &str) -> (u8, bool) {
    if name == PATH {
        (b':', true)
    } else {
        (b',', false)
    }
}

/// Puts an element into a list, unless it has its place there already.
fn add(variables: &mut Variables, saved: &mut Saved, name: &str, element: &OsStr) {
    let (separator, front) = list(name);
    let key = OsString::from(name);
    let Some(old) = value(variables, name) else {
        let old = variables.insert(key, element.to_owned());
        return saved.push(name, old.map_or(Before::Unset, Before::Value));
    };
    let mut elements = old.as_bytes().split(|byte| *byte == separator);
    let there = match front {
        true => elements.next() == Some(element.as_bytes()),
        false => elements.any(|other| other == element.as_bytes()),
    };
    if there {
        return;
    }
    let parts = match front {
        true => [element.as_bytes(), old.as_bytes()],
        false => [old.as_bytes(), element.as_bytes()],
    };
    let joined = OsString::from_vec(parts.join(&separator));
    variables.insert(key, joined);
    saved.push(name, Before::Without(element.to_owned()));
}

/// The list without the element that [`add`] put there.
fn removed(name: &str, list_of: &OsStr, element: &OsStr) -> OsString {
    let (separator, front) = list(name);
    let mut elements: Vec<&[u8]> = list_of
        .as_bytes()
        .split(|byte| *byte == separator)
        .collect();
    let ours = |other: &&[u8]| *other == element.as_bytes();
    let at = match front {
        true => elements.iter().position(ours),
        false => elements.iter().rposition(ours),
    };
    if let Some(at) = at {
        elements.remove(at);
    }
    OsString::from_vec(elements.join(&separator))
}

/// ADDRESS of `tcp://ADDRESS:PORT`, without the brackets of IPv6.
fn address(host: &str) -> Option<&str> {
    let rest = host.strip_prefix("tcp://")?;
    let (address, _) = rest.rsplit_once(':')?;
    Some(address.trim_start_matches('[').trim_end_matches(']'))
}

/// The variables that activating may touch; for tests and documentation.
pub fn touched() -> BTreeSet<&'static str> {
    TOUCHED.into_iter().chain([SAVED, PROMPT]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn job(number: &str) -> DockerEnvironment {
        DockerEnvironment {
            job: number.to_owned(),
            host: format!("tcp://10.0.0.{number}:2376"),
            cert_path: format!("/home/doe/.pcocc/job_{number}/vmcerts/client").into(),
            docker_path: Some("/opt/docker".into()),
        }
    }

    fn changed(current: &Variables, changes: &Changes) -> Variables {
        let mut next = current.clone();
        for name in &changes.unset {
            assert!(next.remove(OsStr::new(name)).is_some(), "{name}");
        }
        for (name, value) in &changes.set {
            next.insert(name.into(), value.clone());
        }
        next
    }

    fn get<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
        variables
            .get(OsStr::new(name))
            .map(|value| value.to_str().unwrap())
    }

    #[test]
    fn docker_is_led_to_the_job() {
        let before = variables(&[
            ("PATH", "/usr/bin"),
            ("DOCKER_CONTEXT", "work"),
            ("HOME", "/h"),
        ]);
        let active = changed(&before, &job("7").activate(&before));
        assert_eq!(get(&active, "PATH"), Some("/opt/docker:/usr/bin"));
        assert_eq!(get(&active, "DOCKER_HOST"), Some("tcp://10.0.0.7:2376"));
        assert_eq!(get(&active, "DOCKER_TLS_VERIFY"), Some("1"));
        assert_eq!(get(&active, "DOCKER_MACHINE_NAME"), Some("pcocc/7"));
        assert_eq!(get(&active, "PCOCC_JOBID"), Some("7"));
        assert_eq!(
            get(&active, "DOCKER_CONTEXT"),
            None,
            "docker would prefer it"
        );
        assert_eq!(get(&active, "no_proxy"), None);
        assert_eq!(changed(&active, &leave(&active)), before);
    }

    #[test]
    fn a_second_job_takes_the_place_of_the_first() {
        let before = variables(&[("PATH", "/usr/bin"), ("DOCKER_HOST", "unix:///mine")]);
        let first = changed(&before, &job("7").activate(&before));
        let second = changed(&first, &job("8").activate(&first));
        assert_eq!(get(&second, "PATH"), Some("/opt/docker:/usr/bin"));
        assert_eq!(get(&second, "PCOCC_JOBID"), Some("8"));
        let again = changed(&second, &job("8").activate(&second));
        assert_eq!(again, second);
        let left = changed(&second, &leave(&second));
        assert_eq!(left, before);
        assert_eq!(
            leave(&left),
            Changes::default(),
            "a second time there is nothing to leave"
        );
    }

    #[test]
    fn what_others_add_to_lists_stays() {
        let before = variables(&[("PATH", "/usr/bin:/bin")]);
        let mut active = changed(&before, &job("7").activate(&before));
        active.insert("PATH".into(), "/venv/bin:/opt/docker:/usr/bin:/bin".into());
        let left = changed(&active, &leave(&active));
        assert_eq!(get(&left, "PATH"), Some("/venv/bin:/usr/bin:/bin"));
    }

    #[test]
    fn proxies_are_passed_by() {
        let proxy = ("https_proxy", "http://proxy:3128");
        for (given, name, expected) in [
            (vec![proxy], "no_proxy", "10.0.0.7"),
            (
                vec![proxy, ("no_proxy", "localhost")],
                "no_proxy",
                "localhost,10.0.0.7",
            ),
            (vec![proxy, ("NO_PROXY", "a,b")], "NO_PROXY", "a,b,10.0.0.7"),
            (
                vec![proxy, ("NO_PROXY", "10.0.0.7,b")],
                "NO_PROXY",
                "10.0.0.7,b",
            ),
            (vec![proxy, ("no_proxy", "")], "no_proxy", "10.0.0.7"),
        ] {
            let before = variables(&given);
            let active = changed(&before, &job("7").activate(&before));
            assert_eq!(get(&active, name), Some(expected), "{given:?}");
            assert_eq!(changed(&active, &leave(&active)), before, "{given:?}");
        }
        assert_eq!(address("tcp://[fe80::1]:99"), Some("fe80::1"));
    }

    #[test]
    fn an_environment_set_by_hand_or_damaged_is_left_too() {
        let by_hand = variables(&[
            ("DOCKER_MACHINE_NAME", "pcocc/7"),
            ("DOCKER_HOST", "tcp://x:1"),
            ("A", "b"),
        ]);
        assert_eq!(
            changed(&by_hand, &leave(&by_hand)),
            variables(&[("A", "b")])
        );
        let mut damaged = by_hand;
        damaged.insert(SAVED.into(), "9 what is this".into());
        assert_eq!(
            changed(&damaged, &leave(&damaged)),
            variables(&[("A", "b")])
        );
        let foreign = variables(&[
            ("DOCKER_MACHINE_NAME", "default"),
            ("DOCKER_HOST", "tcp://x:1"),
        ]);
        assert_eq!(leave(&foreign), Changes::default());
    }

    proptest! {
        #[test]
        fn leaving_restores_any_environment(
            values in proptest::collection::vec(proptest::option::of(proptest::collection::vec(1u8..=255, 0..12)), 11),
            jobs in proptest::collection::vec("[0-9]{1,3}", 1..4),
        ) {
            let names = TOUCHED.into_iter().chain(["http_proxy", "HOME"]);
            let before: Variables = names.zip(values)
                .filter_map(|(name, value)| Some((name.into(), OsString::from_vec(value?))))
                // An environment whose machine says it is ours is ours.
                .filter(|(name, value): &(OsString, OsString)| name != MACHINE || !value.as_bytes().starts_with(b"pcocc/"))
                .collect();
            let mut active = before.clone();
            for number in &jobs {
                active = changed(&active, &job(number).activate(&active));
            }
            prop_assert_eq!(changed(&active, &leave(&active)), before);
        }
    }
}
