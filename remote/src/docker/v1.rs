//! Predicts the next layer in an archive of docker before 25.
//!
//! Such an archive names each layer's folder by its v1 ID: the digest of a JSON document made of the folder's
//! own `json`, the parent's v1 ID and the layer's chain ID (moby `image/v1`, `CreateID`). The `json` comes
//! before `layer.tar`, so the layer is found by trying the chain IDs of the inspected image. A prediction is
//! verified like every other announced diff ID.

use std::collections::BTreeMap;

use serde_json::Value;

use pcocc_layers::{ChainId, DiffId, Digest};

/// The image's layers and the folders seen so far.
#[derive(Debug)]
pub(super) struct LayerGuess {
    layers: Vec<(ChainId, DiffId)>,
    found: BTreeMap<String, DiffId>,
}

impl LayerGuess {
    /// The image has these layers, lowest first.
    pub(super) fn new(diff_ids: &[DiffId]) -> Self {
        Self {
            layers: ChainId::prefixes(diff_ids)
                .into_iter()
                .zip(diff_ids.iter().copied())
                .collect(),
            found: BTreeMap::new(),
        }
    }

    /// Takes a document of the archive into account, if it is the `json` of a layer's folder.
    pub(super) fn learn(&mut self, path: &str, document: &[u8]) {
        let Some(folder) = path.strip_suffix("/json") else {
            return;
        };
        let Ok(id) = Digest::from_hex(folder) else {
            return;
        };
        let Some(candidates) = candidates(document) else {
            return;
        };
        let matching = self.layers.iter().find(|(chain_id, _)| {
            candidates.iter().any(|candidate| {
                let mut candidate = candidate.clone();
                candidate.insert("layer_id", Value::from(chain_id.to_string()));
                serde_json::to_vec(&candidate).is_ok_and(|json| Digest::of(&json) == id)
            })
        });
        // The top layer's document is the only one with a config, and may be escaped in Go's own way. If no
        // layer fits, the document is the top layer's.
        let top = candidates
            .iter()
            .any(|candidate| candidate.contains_key("config"))
            .then(|| self.layers.last())
            .flatten();
        if let Some((_, diff_id)) = matching.or(top) {
            self.found.insert(folder.to_owned(), *diff_id);
        }
    }

    /// The predicted diff ID of the layer at `path`.
    pub(super) fn diff_id(&self, path: &str) -> Option<DiffId> {
        self.found.get(path.strip_suffix("/layer.tar")?).copied()
    }
}

/// The documents that docker may have hashed, without the chain ID: versions of docker and kinds of layers
/// differ in the place of the operating system.
fn candidates(document: &[u8]) -> Option<[BTreeMap<&'static str, Value>; 2]> {
    const FIELDS: [&str; 12] = [
        "architecture",
        "author",
        "comment",
        "config",
        "container",
        "container_config",
        "created",
        "docker_version",
        "os",
        "parent",
        "size",
        "variant",
    ];
    let Value::Object(mut fields) = serde_json::from_slice(document).ok()? else {
        return None;
    };
    if let Some(Value::String(parent)) = fields.get_mut("parent") {
        *parent = format!("sha256:{parent}");
    }
    let with_os: BTreeMap<_, _> = FIELDS
        .into_iter()
        .filter_map(|name| Some((name, fields.remove(name)?)))
        .collect();
    let mut without_os = with_os.clone();
    without_os.remove("os");
    Some([without_os, with_os])
}

#[cfg(test)]
mod tests {
    use super::*;

    // Taken from an archive of docker 20.10.24: a four-layer image on busybox.
    const LAYERS: [&str; 4] = [
        "sha256:496332cb475ba84cf7e65fdabdad5aeaf17f1160b46d92d8c5a09781ff8f60c7",
        "sha256:aeacae532d699b89131d713c226bc0a6277dd99d01a40dafc2c51e3be65cceae",
        "sha256:a943191bf431ff53591e1dd46f3fe0bd365e2f3c47815b7e06881bd26f05425d",
        "sha256:be86b39746a9850052ad643c84e83e4c4e50158f1c93c27cc76b8e9f9efc7eb0",
    ];
    const LOWEST: &str = "a0fab0e13c1cef3d1d827b9fbead381a2e7577414178f156085a7b7580f6175d";
    const SECOND: &str = "2e9ff126a0e022686389952ee1d91eeea5fa2c3abb64f1f09d652a4df1f6da27";

    fn json(id: &str, parent: &str) -> String {
        format!(
            r#"{{"id":"{id}",{parent}"created":"1970-01-01T00:00:00Z","container_config":{{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}},"os":"linux"}}"#
        )
    }

    #[test]
    fn folders_of_docker_20_10_are_recognised() {
        let diff_ids: Vec<DiffId> = LAYERS.iter().map(|d| DiffId(d.parse().unwrap())).collect();
        let mut guess = LayerGuess::new(&diff_ids);
        guess.learn(&format!("{LOWEST}/json"), json(LOWEST, "").as_bytes());
        let parent = format!(r#""parent":"{LOWEST}","#);
        guess.learn(&format!("{SECOND}/json"), json(SECOND, &parent).as_bytes());
        assert_eq!(
            guess.diff_id(&format!("{LOWEST}/layer.tar")),
            Some(diff_ids[0])
        );
        assert_eq!(
            guess.diff_id(&format!("{SECOND}/layer.tar")),
            Some(diff_ids[1])
        );
        // Nothing fits: this is the top layer.
        let top = "b8565386ea9a1aef84851f31831f047a781652771d1c14eea71636709b5bfbe0";
        guess.learn(&format!("{top}/json"), br#"{"config":{}}"#);
        assert_eq!(
            guess.diff_id(&format!("{top}/layer.tar")),
            Some(diff_ids[3])
        );
        guess.learn("nonsense/json", b"{}");
        assert_eq!(guess.diff_id("nonsense/layer.tar"), None);
        assert_eq!(guess.diff_id("layer.tar"), None);
    }
}
