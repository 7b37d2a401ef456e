//! What an image's config says about how it is run (OCI image spec, "Image Configuration").

use pcocc_image::oci::lenient;
use serde::de::Error as _;
use serde_json::{Error, Value};

/// The parts of an image's config that say how the image runs. Everything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// The other words, unless the user gives some.
    pub cmd: Vec<String>,
    /// `VAR=VALUE`.
    pub env: Vec<String>,
    /// Working directory; empty for none.
    pub working_dir: String,
    /// User name or number, perhaps with a group; empty for root. A run does not use it.
    pub user: String,
}

impl ImageConfig {
    /// Parses an image's config, the whole JSON document, as docker reads it.
    pub fn parse(document: &[u8]) -> Result<Self, Error> {
        let no_object = |what: &str| Error::custom(format!("{what} is no object"));
        let document = lenient::object(serde_json::from_slice(document)?, &["config"]);
        let config = document
            .ok_or_else(|| no_object("the document"))?
            .shift_remove("config");
        let known = ["Entrypoint", "Cmd", "Env", "WorkingDir", "User"];
        let config = lenient::object(config.unwrap_or_default(), &known);
        let mut config = config.ok_or_else(|| no_object("config"))?;
        let mut value = |key: &str| config.shift_remove(key).unwrap_or_default();
        let texts = |value: Value| {
            lenient::texts(value).ok_or_else(|| Error::custom("a value is no list of texts"))
        };
        let text = |value: Value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text),
            _ => Err(Error::custom("a value is no text")),
        };
        let mut entrypoint = texts(value("Entrypoint"))?;
        // `ENTRYPOINT [""]` takes the base image's away.
        if entrypoint == [""] {
            entrypoint.clear();
        }
        Ok(Self {
            entrypoint,
            cmd: texts(value("Cmd"))?,
            env: texts(value("Env"))?,
            working_dir: text(value("WorkingDir"))?,
            user: text(value("User"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let config = ImageConfig::parse(
            br#"{"os": "linux", "config": {"Cmd": ["sh"], "Entrypoint": null, "Env": ["A=b"],
                "WorkingDir": "/w", "User": "1000", "Volumes": {"/data": {}}}}"#,
        )
        .unwrap();
        assert_eq!(config.cmd, ["sh"]);
        assert_eq!(config.env, ["A=b"]);
        assert_eq!(config.working_dir, "/w");
        assert_eq!(config.user, "1000");
        assert!(config.entrypoint.is_empty());
        for empty in ["{}", r#"{"config": null}"#, r#"{"config": {}}"#] {
            assert_eq!(
                ImageConfig::parse(empty.as_bytes()).unwrap(),
                ImageConfig::default()
            );
        }
        for bad in [
            "7",
            r#"{"config": 7}"#,
            r#"{"config": {"Cmd": 7}}"#,
            r#"{"config": {"Env": [7]}}"#,
            r#"{"config": {"User": []}}"#,
        ] {
            assert!(ImageConfig::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_it_as_docker_does() {
        let parse = |text: &str| ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            parse(r#"{"config": {"Cmd": "sh", "Env": null}}"#).cmd,
            ["sh"]
        );
        assert_eq!(
            parse(r#"{"Config": {"cmd": ["a"], "CMD": ["b"]}}"#).cmd,
            ["b"]
        );
        assert!(
            parse(r#"{"config": {"Entrypoint": [""], "Cmd": ["a"]}}"#)
                .entrypoint
                .is_empty()
        );
        assert_eq!(
            parse(r#"{"config": {"entrypoint": ["", "x"]}}"#).entrypoint,
            ["", "x"]
        );
    }
}
