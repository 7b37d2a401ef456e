//! Docker contexts: daemons by name, in docker's own store.
//!
//! `config.json` names the current one (`currentContext`). A context is `contexts/meta/ID/meta.json`, ID the SHA-256 of its
//! name, with the certificates of its daemon in `contexts/tls/ID/docker/`. Docker's own commands write the store.

use std::io;
use std::path::Path;

use pcocc_core::named;
use serde::Deserialize;

use super::endpoint::{Endpoint, TlsFiles};
use pcocc_image::{Error, Result};
use pcocc_layers::Digest;

/// Docker's name for the daemon without a context.
pub const DEFAULT: &str = "default";

/// Most bytes of a context's file.
const MOST: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    name: String,
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<Docker>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Docker {
    #[serde(rename = "Host")]
    host: Option<String>,
    #[serde(rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

/// The context that `config`, the text of the `config.json` at `path`, selects; `None` for docker's default.
pub fn current(path: &Path, config: &str) -> Result<Option<String>> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Config {
        #[serde(rename = "currentContext")]
        current_context: Option<String>,
    }
    if config.trim().is_empty() {
        return Ok(None);
    }
    let config: Config = serde_json::from_str(config).map_err(|error| {
        Error::invalid(
            path.display().to_string(),
            format!("does not parse: {error}"),
        )
    })?;
    let named = config.current_context;
    Ok(named.filter(|name| !name.is_empty() && name != DEFAULT))
}

/// The daemon of the context `name`, whose store is in `folder`, docker's configuration folder.
pub fn endpoint(folder: &Path, name: &str) -> Result<Endpoint> {
    let what = format!("docker context {name:?}");
    let bad = |why: String| Error::invalid(what.clone(), why);
    let id = Digest::of(name.as_bytes()).hex();
    let path = folder.join("contexts/meta").join(&id).join("meta.json");
    let text = named::read(&path, MOST).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(format!(
            "{what}, which docker is set to use; see `docker context ls`, or set DOCKER_HOST"
        )),
        _ => Error::io("read", &path)(error),
    })?;
    let meta = parse(&text)
        .map_err(|error| bad(format!("in {} does not parse: {error}", path.display())))?;
    if meta.name != name {
        return Err(bad(format!(
            "in {} is called {:?}",
            path.display(),
            meta.name
        )));
    }
    let docker = meta.endpoints.docker.unwrap_or_default();
    if docker.skip_tls_verify {
        return Err(bad(
            "does not verify its daemon (skip-tls-verify), which pcocc always does; give it the authority's ca.pem".to_owned(),
        ));
    }
    let certificates = folder.join("contexts/tls").join(id).join("docker");
    let has = |name: &str| certificates.join(name).exists();
    let verify = has("ca.pem").then_some("1");
    let mut endpoint = Endpoint::parse(docker.host.as_deref(), verify, Some(&certificates))?;
    if let Endpoint::Tcp {
        tls: Some(TlsFiles { client, .. }),
        ..
    } = &mut endpoint
        && !has("cert.pem")
    {
        *client = None;
    }
    Ok(endpoint)
}

fn parse(text: &[u8]) -> serde_json::Result<Meta> {
    serde_json::from_slice(text)
}

/// Any bytes as `meta.json`, for the fuzzer.
pub(super) fn meta(data: &[u8]) {
    if let Ok(Meta {
        endpoints: Endpoints {
            docker: Some(docker),
        },
        ..
    }) = parse(data)
    {
        let folder = Path::new("/certs");
        let _ = Endpoint::parse(docker.host.as_deref(), Some("1"), Some(folder));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = current(Path::new("config.json"), text);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes a context as docker does.
    fn write(folder: &Path, name: &str, docker: &serde_json::Value, certificates: &[&str]) {
        let id = Digest::of(name.as_bytes()).hex();
        let meta = folder.join("contexts/meta").join(&id);
        fs::create_dir_all(&meta).unwrap();
        let text =
            serde_json::json!({"Name": name, "Metadata": {}, "Endpoints": {"docker": docker}});
        fs::write(meta.join("meta.json"), text.to_string()).unwrap();
        let tls = folder.join("contexts/tls").join(&id).join("docker");
        fs::create_dir_all(&tls).unwrap();
        for name in certificates {
            fs::write(tls.join(name), "").unwrap();
        }
    }

    #[test]
    fn a_context_names_its_daemon_and_its_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let json = |host: &str| serde_json::json!({"Host": host, "SkipTLSVerify": false});
        write(
            folder,
            "rootless",
            &json("unix:///run/user/7/docker.sock"),
            &[],
        );
        write(
            folder,
            "lab",
            &json("tcp://lab:2376"),
            &["ca.pem", "cert.pem", "key.pem"],
        );
        write(folder, "open", &json("tcp://lab:2376"), &["ca.pem"]);
        write(folder, "there", &json("ssh://me@there"), &[]);
        write(folder, "none", &serde_json::json!({}), &[]);
        let shown = |name: &str| endpoint(folder, name).unwrap().to_string();
        assert_eq!(shown("rootless"), "unix:///run/user/7/docker.sock");
        assert_eq!(shown("there"), "ssh://me@there");
        assert_eq!(shown("none"), Endpoint::default().to_string());
        let client = |name: &str| match endpoint(folder, name).unwrap() {
            Endpoint::Tcp {
                tls: Some(files), ..
            } => files.client,
            other => panic!("{other}"),
        };
        assert!(client("lab").unwrap().0.ends_with("docker/cert.pem"));
        assert_eq!(client("open"), None);
    }

    #[test]
    fn what_is_no_context_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let skip = serde_json::json!({"Host": "tcp://lab:2376", "SkipTLSVerify": true});
        write(folder, "skip", &skip, &[]);
        write(folder, "broken", &skip, &[]);
        let id = Digest::of(b"broken").hex();
        fs::write(folder.join("contexts/meta").join(id).join("meta.json"), "{").unwrap();
        for (name, words) in [
            ("none", "docker context ls"),
            ("skip", "ca.pem"),
            ("broken", "does not parse"),
        ] {
            let error = endpoint(folder, name).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_current_context_is_that_of_the_configuration() {
        let path = Path::new("/home/me/.docker/config.json");
        for (text, name) in [
            ("", None),
            ("{}", None),
            (r#"{"currentContext": null}"#, None),
            (r#"{"currentContext": "default"}"#, None),
            (
                r#"{"auths": {}, "currentContext": "rootless"}"#,
                Some("rootless"),
            ),
        ] {
            assert_eq!(current(path, text).unwrap().as_deref(), name, "{text}");
        }
        let error = current(path, "{").unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
