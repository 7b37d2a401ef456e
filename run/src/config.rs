//! What an image's config says about how it is run (OCI image spec, "Image Configuration").

use serde::Deserialize;

/// The parts of an image's config that say how the image runs. Everything may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ImageConfig {
    /// First words of the command line.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The other words, unless the user gives some.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// `VAR=VALUE`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Working directory; empty for none.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// User name or number, perhaps with a group; empty for root. A run does not use it.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    /// Parses an image's config, the whole JSON document.
    pub fn parse(document: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Document {
            config: Option<ImageConfig>,
        }
        let document: Document = serde_json::from_slice(document)?;
        Ok(document.config.unwrap_or_default())
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
        assert!(ImageConfig::parse(br#"{"config": {"Cmd": "sh"}}"#).is_err());
    }
}
