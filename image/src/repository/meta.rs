//! The metadata of one image revision, byte for byte as pcocc 0.7 keeps it.
//!
//! The file is a JSON object with exactly these keys: name, revision, kind, owner, timestamp, data_blobs,
//! custom_meta and perhaps description. The text is kept unchanged, because its hash names cache entries.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use pcocc_layers::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::oci::{Image, MAX_DOCUMENT};
use crate::origin::Origin;
use crate::reference::check_name;
use crate::repository::python_json::{self, Members};

/// Kind of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A container image: OCI blobs.
    Container,
    /// A virtual machine's disk: a chain of qcow2 files, the top one last.
    VirtualMachine,
}

impl Kind {
    /// The word in the metadata: `ctr` or `vm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "ctr",
            Self::VirtualMachine => "vm",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The keys of the document, in the order in which pcocc 0.7 writes them.
const KEYS: [&str; 8] = [
    "name",
    "revision",
    "kind",
    "owner",
    "timestamp",
    "data_blobs",
    "custom_meta",
    "description",
];

/// The metadata of one revision of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    name: String,
    revision: u64,
    kind: Kind,
    owner: String,
    timestamp: f64,
    data_blobs: Vec<Digest>,
    description: Option<String>,
    /// The whole document as text: most listed images need no more than the fields above.
    text: String,
}

/// A document that is about to be written.
#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    revision: u64,
    kind: &'a str,
    owner: &'a str,
    timestamp: f64,
    data_blobs: Vec<String>,
    custom_meta: Members<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
}

impl Document<'_> {
    fn into_meta(self) -> Result<Meta> {
        check_name(self.name)?;
        Meta::from_json(&self)
    }
}

impl Meta {
    /// Metadata of a container image at revision 0, with the image's origin if it is known.
    pub fn container(
        name: &str,
        owner: &str,
        timestamp: SystemTime,
        image: &Image,
        origin: Option<&Origin>,
    ) -> Result<Self> {
        let index = image.index(None)?;
        let index = match origin {
            Some(origin) => origin.annotate(index),
            None => index,
        };
        let index = serde_json::from_slice(&index)
            .map_err(|error| Error::invalid("image index", error.to_string()))?;
        // This is the order of pcocc 0.7: manifest, layers, config.
        let mut blobs = vec![image.manifest_digest()];
        for layer in image.layers() {
            if !blobs.contains(&layer.digest) {
                blobs.push(layer.digest);
            }
        }
        if !blobs.contains(&image.id()) {
            blobs.push(image.id());
        }
        let document = Document {
            name,
            revision: 0,
            kind: Kind::Container.as_str(),
            owner,
            timestamp: seconds(timestamp),
            data_blobs: blobs.iter().map(Digest::to_string).collect(),
            custom_meta: Members::from([("oci_index".to_owned(), index)]),
            description: None,
        };
        document.into_meta()
    }

    /// Metadata of a virtual machine's disk; `blobs` go from the bottom of the qcow2 chain to its top.
    pub fn virtual_machine(
        name: &str,
        revision: u64,
        owner: &str,
        timestamp: SystemTime,
        blobs: &[Digest],
    ) -> Result<Self> {
        let document = Document {
            name,
            revision,
            kind: Kind::VirtualMachine.as_str(),
            owner,
            timestamp: seconds(timestamp),
            // pcocc 0.7 names these blobs without the algorithm.
            data_blobs: blobs.iter().map(Digest::hex).collect(),
            custom_meta: Members::new(),
            description: None,
        };
        document.into_meta()
    }

    /// The same content under another name, with another owner and time.
    pub fn renamed(
        &self,
        name: &str,
        revision: u64,
        owner: &str,
        timestamp: SystemTime,
    ) -> Result<Self> {
        let blobs = self.members().get("data_blobs").copied();
        let blobs = blobs.and_then(|blobs| serde_json::from_str(blobs.get()).ok());
        let document = Document {
            name,
            revision,
            kind: self.kind.as_str(),
            owner,
            timestamp: seconds(timestamp),
            data_blobs: blobs.unwrap_or_default(),
            custom_meta: self.custom(),
            description: self.description.as_deref(),
        };
        document.into_meta()
    }

    /// The same metadata with its keys in pcocc 0.7's order; version 1 sorts them.
    pub(crate) fn canonical(&self) -> Result<Self> {
        let document = self.members();
        let members = KEYS
            .iter()
            .filter_map(|key| document.get_key_value(*key))
            .collect::<IndexMap<_, _>>();
        Self::from_json(&members)
    }

    /// Parses a metadata file's text.
    pub fn parse(text: &str) -> Result<Self> {
        check_size(text)?;
        Self::read(text.to_owned())
    }

    /// Parses the YAML `text` of `file`, a metadata file of a version 1 repository.
    pub fn parse_yaml(text: &str, file: &Path) -> Result<Self> {
        check_size(text)?;
        let document: Value = pcocc_core::yaml::parse(text, file)
            .map_err(|error| Error::invalid("metadata", error.to_string()))?;
        Self::from_json(&document)
    }

    fn from_json(document: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_string(document).map_err(|error| bad(error.to_string()))?;
        Self::read(python_json::normalize(&text)?)
    }

    /// Takes the metadata out of the document `text`.
    fn read(text: String) -> Result<Self> {
        let document: Value = serde_json::from_str(&text)
            .map_err(|error| Error::invalid("JSON", format!("does not parse: {error}")))?;
        let Value::Object(members) = &document else {
            return Err(bad("is not an object"));
        };
        if let Some(key) = members.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(bad(format!("has a key {key:?} that is not pcocc's")));
        }
        let name: String = required(members, "name")?;
        if check_name(&name).is_err() {
            return Err(bad("has no usable \"name\""));
        }
        let kind: &str = required(members, "kind")?;
        let blobs: Vec<&str> = required(members, "data_blobs")?;
        if !matches!(
            members.get("custom_meta"),
            None | Some(Value::Object(_) | Value::Null)
        ) {
            return Err(bad("has no usable \"custom_meta\""));
        }
        Ok(Self {
            name,
            revision: required(members, "revision")?,
            kind: match kind {
                "ctr" => Kind::Container,
                "vm" => Kind::VirtualMachine,
                other => return Err(bad(format!("has the unknown kind {other:?}"))),
            },
            owner: required(members, "owner")?,
            timestamp: required(members, "timestamp")?,
            data_blobs: blobs.into_iter().map(parse_blob).collect::<Result<_>>()?,
            description: members
                .contains_key("description")
                .then(|| required(members, "description"))
                .transpose()?,
            text,
        })
    }

    /// The members of the document as they stand in its text. This cannot fail: the text was parsed before.
    fn members(&self) -> Members<'_> {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The members of `custom_meta`.
    fn custom(&self) -> Members<'_> {
        let custom = self.members().get("custom_meta").copied();
        // The value may be null.
        custom
            .and_then(|custom| serde_json::from_str(custom.get()).ok())
            .unwrap_or_default()
    }

    /// The file's text, as pcocc 0.7 writes it.
    pub fn render(&self) -> String {
        python_json::normalize(&self.text).unwrap_or_default()
    }

    /// The document with `"repo": repo` appended, in one line: the input of cache keys.
    pub(crate) fn render_within(&self, repo: &str) -> String {
        let mut text = self.render();
        text.pop();
        text.push_str(", \"repo\": ");
        python_json::write_text(repo, &mut text);
        text.push('}');
        text
    }

    /// The image's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Kind of the image.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Login name of the user who made the image.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// When it was made, in seconds since 1970.
    pub fn timestamp(&self) -> f64 {
        self.timestamp
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        Duration::try_from_secs_f64(self.timestamp)
            .ok()
            .and_then(|since| UNIX_EPOCH.checked_add(since))
            .unwrap_or(UNIX_EPOCH)
    }

    /// Digests of all blobs: manifest, layers and config of a container image; the qcow2 chain of a
    /// virtual machine, top last.
    pub fn data_blobs(&self) -> &[Digest] {
        &self.data_blobs
    }

    /// The description, which pcocc 0.7 accepts but never writes.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The origin of a container image, if the metadata has it.
    pub fn origin(&self) -> Option<Origin> {
        Origin::of_index(&self.oci_index().ok()?)
    }

    /// The OCI index of a container image, as JSON.
    pub fn oci_index(&self) -> Result<String> {
        match self.custom().get("oci_index") {
            Some(index) => python_json::normalize(index.get()),
            None => Err(Error::invalid(
                format!("image {}@{}", self.name, self.revision),
                match self.kind {
                    Kind::Container => "has no oci_index in its metadata",
                    Kind::VirtualMachine => "is a virtual machine's, not a container's",
                },
            )),
        }
    }
}

/// The member `key` of a document.
fn required<'a, T: Deserialize<'a>>(members: &'a Map<String, Value>, key: &str) -> Result<T> {
    let value = members
        .get(key)
        .ok_or_else(|| bad(format!("has no usable {key:?}")))?;
    T::deserialize(value).map_err(|error| bad(format!("has no usable {key:?}: {error}")))
}

fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

fn parse_blob(text: &str) -> Result<Digest> {
    Ok(if text.contains(':') {
        text.parse()?
    } else {
        Digest::from_hex(text)?
    })
}

fn check_size(text: &str) -> Result<()> {
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(bad(format!("is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(())
}

fn bad(why: impl Into<String>) -> Error {
    Error::invalid("metadata", why)
}
