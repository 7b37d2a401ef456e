//! The origin of an image in a repository, kept as annotations of its manifest's descriptor.
//!
//! pcocc 0.7 keeps an OCI index in an image's metadata and ignores annotations in the index. So the origin
//! needs no key beside pcocc 0.7's schema. The image stays the same: neither manifest nor config changes. Two
//! of the keys are OCI's ("Annotations" in its image specification).

use serde::Serialize;
use serde_json::Value;

use pcocc_layers::Digest;

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
const VERB: &str = "io.github.cea-hpc.pcocc.made-by";
const DAEMON: &str = "io.github.cea-hpc.pcocc.daemon";
const SOURCE: &str = "io.github.cea-hpc.pcocc.source";
const PARENT_ID: &str = "io.github.cea-hpc.pcocc.parent-id";
const DOCKERFILE: &str = "io.github.cea-hpc.pcocc.dockerfile";

/// Longest text taken from an annotation, in characters.
const MAX_TEXT: usize = 1024;

/// The origin of an image; unknown parts are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The command that made the image, such as `pcocc docker edit`.
    pub made_by: String,
    /// Address of the docker daemon that had the image.
    pub daemon: Option<String>,
    /// Name of the image there: a name in the daemon, or a reference such as `docker://busybox`.
    pub source: Option<String>,
    /// The image it was made from.
    pub parent: Option<Parent>,
    /// Digest of the Dockerfile it was built from.
    pub dockerfile: Option<Digest>,
}

/// The image that another was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// Its name then: `user:centos`, or the name in a Dockerfile.
    pub name: String,
    /// Its image ID.
    pub id: Option<Digest>,
    /// Digest of its manifest.
    pub manifest: Option<Digest>,
}

impl Origin {
    /// The origin as annotations, in a fixed order.
    pub fn annotations(&self) -> Vec<(String, String)> {
        let parent = self.parent.as_ref();
        let text = |digest: Digest| digest.to_string();
        [
            (VERB, Some(self.made_by.clone())),
            (DAEMON, self.daemon.clone()),
            (SOURCE, self.source.clone()),
            (BASE_NAME, parent.map(|parent| parent.name.clone())),
            (
                BASE_DIGEST,
                parent.and_then(|parent| parent.manifest).map(text),
            ),
            (PARENT_ID, parent.and_then(|parent| parent.id).map(text)),
            (DOCKERFILE, self.dockerfile.map(text)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }

    /// Adds the annotations to the descriptor of an index's first manifest. An unreadable index stays as it is.
    pub fn annotate(&self, index: Vec<u8>) -> Vec<u8> {
        let Ok(mut document) = serde_json::from_slice::<Value>(&index) else {
            return index;
        };
        let descriptor = document.pointer_mut("/manifests/0");
        let Some(descriptor) = descriptor.and_then(Value::as_object_mut) else {
            return index;
        };
        let annotations = descriptor
            .entry("annotations")
            .or_insert_with(|| Value::Object(serde_json::Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            for (key, value) in self.annotations() {
                annotations.insert(key, value.into());
            }
        }
        serde_json::to_vec(&document).unwrap_or(index)
    }

    /// Reads the origin from the annotations of an OCI index; `None` without annotations of ours. Senseless
    /// values are left out: anybody can write annotations.
    pub fn of_index(index: &str) -> Option<Self> {
        let index: Value = serde_json::from_str(index).ok()?;
        let annotations = index.pointer("/manifests/0/annotations")?;
        let text = |key: &str| {
            let value = annotations.get(key)?.as_str()?;
            let value = value.chars().filter(|c| !c.is_control());
            Some(value.take(MAX_TEXT).collect::<String>())
        };
        let digest = |key: &str| text(key)?.parse().ok();
        Some(Self {
            made_by: text(VERB)?,
            daemon: text(DAEMON),
            source: text(SOURCE),
            parent: text(BASE_NAME).map(|name| Parent {
                name,
                id: digest(PARENT_ID),
                manifest: digest(BASE_DIGEST),
            }),
            dockerfile: digest(DOCKERFILE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(annotations: &Value) -> String {
        serde_json::json!({"manifests": [{"annotations": annotations}]}).to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let full = Origin {
            made_by: "pcocc docker build".into(),
            daemon: Some("unix:///d.sock".into()),
            source: Some("bb:latest".into()),
            parent: Some(Parent {
                name: "user:centos".into(),
                id: Some(Digest::of(b"id")),
                manifest: Some(Digest::of(b"manifest")),
            }),
            dockerfile: Some(Digest::of(b"FROM x")),
        };
        let bare = Origin {
            made_by: "pcocc docker import".into(),
            ..Origin::default()
        };
        for origin in [full, bare] {
            let annotations = Value::Object(
                origin
                    .annotations()
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect(),
            );
            assert_eq!(Origin::of_index(&index(&annotations)), Some(origin.clone()));
            let named = index(&serde_json::json!({"org.opencontainers.image.ref.name": "latest"}));
            let noted = String::from_utf8(origin.annotate(named.into_bytes())).unwrap();
            assert!(noted.contains("latest"), "{noted}");
            assert_eq!(Origin::of_index(&noted), Some(origin.clone()));
            let bare = serde_json::json!({"manifests": [{}]}).to_string();
            let noted = String::from_utf8(origin.annotate(bare.into_bytes())).unwrap();
            assert_eq!(Origin::of_index(&noted), Some(origin.clone()));
            for odd in ["{", "{}", r#"{"manifests":[]}"#] {
                assert_eq!(origin.annotate(odd.into()), odd.as_bytes());
            }
        }
    }

    #[test]
    fn foreign_annotations_do_no_harm() {
        for other in [
            serde_json::json!(null),
            serde_json::json!({"org.opencontainers.image.ref.name": "latest"}),
            serde_json::json!({VERB: 7}),
        ] {
            assert_eq!(Origin::of_index(&index(&other)), None);
        }
        assert_eq!(Origin::of_index("{"), None);
        let odd = serde_json::json!({
            VERB: format!("\u{1b}{}", "x".repeat(5000)), DOCKERFILE: "none", BASE_NAME: "b", PARENT_ID: "sha256:zz",
        });
        let origin = Origin::of_index(&index(&odd)).unwrap();
        assert_eq!(origin.made_by.len(), MAX_TEXT);
        assert_eq!(origin.dockerfile, None);
        assert_eq!(origin.parent.unwrap().id, None);
    }
}
