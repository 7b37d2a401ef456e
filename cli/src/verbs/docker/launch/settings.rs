//! The docker daemon's settings in a VM, collected when the job starts from template, environment, `certs.d`
//! and `containers.yaml`.
//!
//! Data path: the sources → [`GuestEnvironment`], which the guest gets before its dockerd starts, and the
//! addresses of proxies and mirrors, which the guest must reach even if private networks are closed to it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};

use pcocc_core::containers::Runtime;
use pcocc_core::named;
use pcocc_core::template::Written;
use pcocc_core::templates::Template;
use pcocc_vm::machine::GuestEnvironment;
use serde_json::Value;

use crate::environment::Environment;
use crate::errors::{Failure, Outcome, While as _};

/// Most bytes of certificates for a guest.
const MAX_CERTIFICATES: usize = 2 << 20;

/// Most bytes of a file with certificates or settings.
const MAX_FILE: u64 = 4 << 20;

/// The settings of a VM's docker daemon, with their consequences.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The settings.
    pub(super) environment: GuestEnvironment,
    /// Addresses of its proxies and mirrors.
    pub(super) reachable: Vec<Ipv4Addr>,
    /// Warnings for the user.
    pub(super) warnings: Vec<String>,
}

impl Settings {
    /// Collects the settings; `given` is the user's own `daemon.json`.
    pub(super) fn collect(
        environment: &Environment,
        given: Option<&Path>,
        template: &Template,
        runtime: &Runtime,
    ) -> Outcome<Self> {
        // An error names the line of templates.yaml with the file's name.
        let read = |path: &Path, by: Option<&Written>| {
            let place = by.map(|written| format!("{}: ", written.place()));
            let place = place.unwrap_or_default();
            let part = format!("{place}read {}", path.display());
            let text = named::read_text(path, MAX_FILE).part(|| &*part)?;
            Outcome::Ok((text, part))
        };
        let given = match (given, &template.daemon_json) {
            (Some(path), _) => Some(read(path, None)?),
            (None, Some(written)) => Some(read(Path::new(written.as_str()), Some(written))?),
            (None, None) => None,
        };
        let daemon_json: Option<Value> = given
            .map(|(text, part)| serde_json::from_str(&text).part(|| part))
            .transpose()?;
        let mut proxies = environment.proxies.0.clone();
        proxies.extend(
            template
                .proxies
                .iter()
                .map(|(name, value)| (name.to_uppercase(), value.clone())),
        );
        proxies.retain(|_, value| !value.is_empty());
        let mut settings = Self::default();
        let registry_certificates = settings.certificates(&environment.certificate_folders());
        settings.environment = GuestEnvironment {
            proxies,
            ca_certificates: template
                .ca_certificates
                .iter()
                .map(|written| Ok(read(Path::new(written.as_str()), Some(written))?.0))
                .collect::<Outcome<_>>()?,
            registry_certificates,
            registry_mirrors: template.registry_mirrors.clone(),
            insecure_registries: runtime.insecure_registries.clone(),
            daemon_json,
        };
        let environment = &settings.environment;
        let certificates = environment.ca_certificates.iter();
        let bytes: usize = certificates
            .chain(environment.registry_certificates.values())
            .map(String::len)
            .sum();
        if bytes > MAX_CERTIFICATES {
            let why = format!("there are {bytes} bytes of certificates to give to the guest");
            return Err(Failure::because(why)
                .hint("name the authorities alone in ca_certificates of templates.yaml, not whole bundles"));
        }
        settings.resolve();
        Ok(settings)
    }

    /// Reads the authorities of single registries: `FOLDER/HOST[:PORT]/*.crt`. An unreadable file is a warning.
    fn certificates(&mut self, folders: &[PathBuf]) -> BTreeMap<String, String> {
        let mut found: BTreeMap<String, String> = BTreeMap::new();
        for folder in folders.iter().flat_map(|folder| entries(folder)) {
            let Some(registry) = folder.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            for file in entries(&folder) {
                if file.extension().is_none_or(|extension| extension != "crt") {
                    continue;
                }
                match named::read_text(&file, MAX_FILE) {
                    Ok(text) => {
                        let all = found.entry(registry.to_owned()).or_default();
                        all.push_str(text.trim_end());
                        all.push('\n');
                    }
                    Err(error) => self.warnings.push(format!(
                        "{} cannot be read ({error}): docker will not trust it",
                        file.display()
                    )),
                }
            }
        }
        found
    }

    /// Resolves the addresses of proxies and mirrors.
    fn resolve(&mut self) {
        let environment = &self.environment;
        let key = |name: &str| {
            environment
                .daemon_json
                .as_ref()
                .and_then(|json| json.get(name))
        };
        let mirrors = key("registry-mirrors").and_then(Value::as_array);
        let proxies = key("proxies").and_then(Value::as_object);
        let urls = ["HTTP_PROXY", "HTTPS_PROXY"]
            .iter()
            .filter_map(|name| environment.proxies.get(*name).map(String::as_str))
            .chain(environment.registry_mirrors.iter().map(String::as_str))
            .chain(mirrors.into_iter().flatten().filter_map(Value::as_str))
            .chain(
                proxies
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| *name != "no-proxy")
                    .filter_map(|(_, url)| url.as_str()),
            );
        let mut hosts: Vec<&str> = urls.filter_map(host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let addresses = match (host, 0).to_socket_addrs() {
                Ok(addresses) => addresses,
                Err(error) => {
                    let why = format!("{host} has no address ({error}): docker will not reach it");
                    self.warnings.push(why);
                    continue;
                }
            };
            for address in addresses {
                match address.ip() {
                    IpAddr::V4(address) if address.is_loopback() => self.warnings.push(format!(
                        "{host} is this node's own loopback, which no VM reaches: docker will not reach it"
                    )),
                    IpAddr::V4(address) => self.reachable.push(address),
                    IpAddr::V6(_) => {}
                }
            }
        }
        self.reachable.sort_unstable();
        self.reachable.dedup();
    }
}

/// The entries of a folder, sorted; none if the folder is missing.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// The host of a URL; the scheme may be missing, as in proxies.
fn host(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    (!host.is_empty() && !host.contains(['[', ']'])).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls() {
        for (url, expected) in [
            ("http://proxy.example.org:3128", Some("proxy.example.org")),
            ("proxy:3128", Some("proxy")),
            ("https://user:p@ss@10.0.0.1/", Some("10.0.0.1")),
            ("http://mirror/v2?x:y@z", Some("mirror")),
            ("http://[fd00::1]:3128", None),
            ("", None),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn proxies_and_mirrors_can_be_reached_and_what_cannot_is_told() {
        let mut settings = Settings::default();
        settings.environment.proxies = [
            ("HTTP_PROXY", "http://10.1.2.3:3128"),
            ("HTTPS_PROXY", "http://127.0.0.1:3128"),
            ("NO_PROXY", "10.9.9.9"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        settings.environment.daemon_json = Some(serde_json::json!({
            "registry-mirrors": ["https://10.1.2.4:5000"],
            "proxies": {"http-proxy": "http://10.1.2.5", "no-proxy": "10.9.9.8"},
        }));
        settings.resolve();
        let expected: Vec<Ipv4Addr> = (3..6).map(|last| Ipv4Addr::new(10, 1, 2, last)).collect();
        assert_eq!(settings.reachable, expected);
        assert_eq!(settings.warnings.len(), 1, "{:?}", settings.warnings);
        assert!(settings.warnings[0].contains("127.0.0.1"));
    }

    #[test]
    fn authorities_are_those_of_their_registry() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("one/reg:5000/a.crt", "A\n\n"),
            ("one/reg:5000/client.key", "secret"),
            ("two/reg:5000/b.crt", "B"),
            ("two/other/c.crt", "C"),
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let folders = ["none", "one", "two"].map(|name| folder.path().join(name));
        let found = Settings::default().certificates(&folders);
        let expected = [("other", "C\n"), ("reg:5000", "A\nB\n")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }
}
