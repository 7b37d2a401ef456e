//! Images of a registry (`docker://[HOST[:PORT]/]PATH[:TAG|@DIGEST]`).

use std::io::Read;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Layout, Receiver, Sink};

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Registry for references without a host; Docker Hub when `None`.
    pub default_registry: Option<String>,
    /// Registries (`host` or `host:port`) that may be reached over HTTP or unverified TLS.
    pub insecure_registries: Vec<String>,
    /// Text of docker's `config.json`, for its credentials.
    pub docker_config: Option<String>,
}

/// One image of a registry; reads as a [`Layout`], writes as a [`Sink`].
#[derive(Debug)]
pub struct RegistryImage {
    reference: String,
    access: Access,
}

impl RegistryImage {
    /// Names an image by what follows `docker://`. Nothing is sent yet.
    pub fn new(reference: &str, access: Access) -> Result<Self> {
        Ok(Self {
            reference: reference.to_owned(),
            access,
        })
    }
}

impl Layout for RegistryImage {
    fn image(&self, _: &Context) -> Result<Image> {
        Err(Error::NotFound(format!(
            "{} {:?}",
            self.reference, self.access
        )))
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        Err(Error::NotFound(format!("blob {}", layer.digest)))
    }

    fn layer_file(&self, _: &Layer) -> Option<PathBuf> {
        None
    }
}

impl Sink for RegistryImage {
    fn open(&self, _: &Context) -> Result<Box<dyn Receiver + '_>> {
        Err(Error::NotFound(self.reference.clone()))
    }
}
