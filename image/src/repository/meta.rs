//! The metadata of one image revision, byte for byte as pcocc 0.7 keeps it.
//!
//! A JSON object: name, revision, kind, owner, timestamp, data_blobs, custom_meta and perhaps
//! description, nothing else. The parsed document is kept as it was, because cache entries are
//! named by its hash.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::oci::{Image, MAX_DOCUMENT};
use crate::origin::Origin;
use crate::reference::check_name;
use crate::repository::json::Json;
use pcocc_layers::Digest;

/// What an image is of.
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
    /// The whole document, as text: of ten thousand listed images hardly one is looked into.
    text: String,
}

impl Meta {
    /// Describes a container image; its revision is 0. Where it came from is noted when it is known.
    pub fn container(
        name: &str,
        owner: &str,
        timestamp: SystemTime,
        image: &Image,
        origin: Option<&Origin>,
    ) -> Result<Self> {
        let index = image.index(None)?;
        let index = std::str::from_utf8(&index)
            .map_err(|error| Error::invalid("image index", error.to_string()))?;
        let mut index = Json::parse(index)?;
        if let Some(origin) = origin {
            annotate(&mut index, origin);
        }
        // pcocc 0.7's order: manifest, layers, config.
        let mut blobs = vec![image.manifest_digest()];
        for layer in image.layers() {
            if !blobs.contains(&layer.digest) {
                blobs.push(layer.digest);
            }
        }
        if !blobs.contains(&image.id()) {
            blobs.push(image.id());
        }
        let blobs = blobs.iter().map(|blob| Json::Text(blob.to_string()));
        let custom = vec![("oci_index".to_owned(), index)];
        Self::new(
            name,
            0,
            Kind::Container,
            owner,
            timestamp,
            blobs.collect(),
            custom,
        )
    }

    /// Describes a virtual machine's disk: `blobs` from the bottom of the qcow2 chain to its top.
    pub fn virtual_machine(
        name: &str,
        revision: u64,
        owner: &str,
        timestamp: SystemTime,
        blobs: &[Digest],
    ) -> Result<Self> {
        // pcocc 0.7 names these blobs without the algorithm.
        let blobs = blobs.iter().map(|blob| Json::Text(blob.hex())).collect();
        Self::new(
            name,
            revision,
            Kind::VirtualMachine,
            owner,
            timestamp,
            blobs,
            Vec::new(),
        )
    }

    /// The same content under another name, by another owner, at another time.
    pub fn renamed(
        &self,
        name: &str,
        revision: u64,
        owner: &str,
        timestamp: SystemTime,
    ) -> Result<Self> {
        let document = self.document();
        let blobs = match document.get("data_blobs") {
            Some(Json::Array(blobs)) => blobs.clone(),
            _ => Vec::new(),
        };
        let custom = match document.get("custom_meta") {
            Some(Json::Object(custom)) => custom.clone(),
            _ => Vec::new(),
        };
        let meta = Self::new(name, revision, self.kind, owner, timestamp, blobs, custom)?;
        match (meta.document(), &self.description) {
            (Json::Object(mut members), Some(text)) => {
                members.push(("description".to_owned(), Json::Text(text.clone())));
                Self::from_document(&Json::Object(members))
            }
            _ => Ok(meta),
        }
    }

    /// The same metadata with its keys in the order pcocc 0.7 writes them; version 1 sorts them.
    pub(crate) fn canonical(&self) -> Result<Self> {
        const ORDER: [&str; 8] = [
            "name",
            "revision",
            "kind",
            "owner",
            "timestamp",
            "data_blobs",
            "custom_meta",
            "description",
        ];
        let document = self.document();
        let members = ORDER.iter().filter_map(|key| {
            let value = document.get(key)?.clone();
            Some(((*key).to_owned(), value))
        });
        Self::from_document(&Json::Object(members.collect()))
    }

    fn new(
        name: &str,
        revision: u64,
        kind: Kind,
        owner: &str,
        timestamp: SystemTime,
        blobs: Vec<Json>,
        custom: Vec<(String, Json)>,
    ) -> Result<Self> {
        check_name(name)?;
        let seconds = timestamp
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        let text = |text: &str| Json::Text(text.to_owned());
        let members = [
            ("name", text(name)),
            ("revision", Json::Int(revision.to_string())),
            ("kind", text(kind.as_str())),
            ("owner", text(owner)),
            ("timestamp", Json::Float(seconds)),
            ("data_blobs", Json::Array(blobs)),
            ("custom_meta", Json::Object(custom)),
        ];
        Self::from_document(&Json::Object(
            members.map(|(key, value)| (key.to_owned(), value)).into(),
        ))
    }

    /// Parses a metadata file's text.
    pub fn parse(text: &str) -> Result<Self> {
        check_size(text)?;
        Self::read(&Json::parse(text)?, text.to_owned())
    }

    /// Parses the YAML `text` of `file`, a metadata file of a version 1 repository.
    pub fn parse_yaml(text: &str, file: &Path) -> Result<Self> {
        check_size(text)?;
        let document: Json = pcocc_core::yaml::parse(text, file)
            .map_err(|error| Error::invalid("metadata", error.to_string()))?;
        Self::from_document(&document)
    }

    fn from_document(document: &Json) -> Result<Self> {
        Self::read(document, document.dump())
    }

    /// The document again. Its text was parsed before, so this cannot fail.
    fn document(&self) -> Json {
        Json::parse(&self.text).unwrap_or(Json::Null)
    }

    /// Takes the metadata out of `document`, whose text is `text`.
    fn read(document: &Json, text: String) -> Result<Self> {
        let Json::Object(members) = document else {
            return Err(bad("is not an object"));
        };
        let mut name = None;
        let mut revision = None;
        let mut kind = None;
        let mut owner = None;
        let mut timestamp = None;
        let mut data_blobs = None;
        let mut description = None;
        for (key, value) in members {
            match (key.as_str(), value) {
                ("name", Json::Text(text)) => name = Some(text.clone()),
                ("revision", Json::Int(digits)) => revision = digits.parse().ok(),
                ("kind", Json::Text(text)) => {
                    kind = Some(match text.as_str() {
                        "ctr" => Kind::Container,
                        "vm" => Kind::VirtualMachine,
                        other => return Err(bad(&format!("has the unknown kind {other:?}"))),
                    });
                }
                ("owner", Json::Text(text)) => owner = Some(text.clone()),
                ("timestamp", Json::Float(seconds)) => timestamp = Some(*seconds),
                ("timestamp", Json::Int(digits)) => timestamp = digits.parse().ok(),
                ("data_blobs", Json::Array(items)) => {
                    data_blobs = Some(items.iter().map(parse_blob).collect::<Result<Vec<_>>>()?);
                }
                ("description", Json::Text(text)) => description = Some(text.clone()),
                ("custom_meta", Json::Object(_) | Json::Null) => {}
                (key, _) => return Err(bad(&format!("has a key {key:?} that is not pcocc's"))),
            }
        }
        let missing = |key: &str| bad(&format!("has no usable {key:?}"));
        Ok(Self {
            name: name
                .filter(|name| check_name(name).is_ok())
                .ok_or_else(|| missing("name"))?,
            revision: revision.ok_or_else(|| missing("revision"))?,
            kind: kind.ok_or_else(|| missing("kind"))?,
            owner: owner.ok_or_else(|| missing("owner"))?,
            timestamp: timestamp.ok_or_else(|| missing("timestamp"))?,
            data_blobs: data_blobs.ok_or_else(|| missing("data_blobs"))?,
            description,
            text,
        })
    }

    /// The file's bytes, as pcocc 0.7 writes them.
    pub fn render(&self) -> String {
        self.document().dump()
    }

    /// The document with `"repo": repo` appended, in one line: what cache keys are made of.
    pub(crate) fn render_within(&self, repo: &str) -> String {
        let mut document = self.document();
        if let Json::Object(members) = &mut document {
            members.push(("repo".to_owned(), Json::Text(repo.to_owned())));
        }
        document.dump()
    }

    /// The image's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What the image is of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Login name of who made it.
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

    /// Where a container image came from, when that was noted.
    pub fn origin(&self) -> Option<Origin> {
        Origin::of_index(&self.oci_index().ok()?)
    }

    /// The OCI index of a container image, as JSON.
    pub fn oci_index(&self) -> Result<String> {
        self.document()
            .get("custom_meta")
            .and_then(|custom| custom.get("oci_index"))
            .map(Json::dump)
            .ok_or_else(|| {
                Error::invalid(
                    format!("image {}@{}", self.name, self.revision),
                    match self.kind {
                        Kind::Container => "has no oci_index in its metadata",
                        Kind::VirtualMachine => "is a virtual machine's, not a container's",
                    },
                )
            })
    }
}

/// Notes on the descriptor of the one manifest in `index` where the image came from.
fn annotate(index: &mut Json, origin: &Origin) {
    let Json::Object(members) = index else {
        return;
    };
    let manifests = members.iter_mut().find(|(key, _)| key == "manifests");
    if let Some((_, Json::Array(manifests))) = manifests
        && let Some(Json::Object(descriptor)) = manifests.first_mut()
    {
        let annotations = origin.annotations().into_iter();
        let annotations = annotations.map(|(key, value)| (key, Json::Text(value)));
        descriptor.push((
            "annotations".to_owned(),
            Json::Object(annotations.collect()),
        ));
    }
}

fn parse_blob(item: &Json) -> Result<Digest> {
    let Json::Text(text) = item else {
        return Err(bad("has a blob that is not a string"));
    };
    Ok(if text.contains(':') {
        text.parse()?
    } else {
        Digest::from_hex(text)?
    })
}

fn check_size(text: &str) -> Result<()> {
    if text.len() as u64 > MAX_DOCUMENT {
        return Err(bad(&format!("is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(())
}

fn bad(why: &str) -> Error {
    Error::invalid("metadata", why)
}
