//! OCI image layouts in a folder (`oci:PATH[:TAG]`).

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::oci::{Image, Layer};
use crate::transfer::{Context, Layout, Receiver, Sink};

/// One image of an OCI image layout in a folder.
#[derive(Debug)]
pub struct LayoutFolder {
    path: PathBuf,
    tag: Option<String>,
}

impl LayoutFolder {
    /// Opens the layout in the folder `path`, its image called `tag` or its only one.
    pub fn open(path: &Path, tag: Option<&str>) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
        })
    }
}

impl Layout for LayoutFolder {
    fn image(&self, _: &Context) -> Result<Image> {
        Err(Error::NotFound(format!(
            "{:?} in {}",
            self.tag,
            self.path.display()
        )))
    }

    fn open_layer<'a>(&'a self, layer: &Layer) -> Result<Box<dyn Read + Send + 'a>> {
        Err(Error::NotFound(format!("blob {}", layer.digest)))
    }

    fn layer_file(&self, _: &Layer) -> Option<PathBuf> {
        None
    }
}

/// A [`Sink`] that creates an OCI image layout folder, or adds an image to one.
#[derive(Debug)]
pub struct LayoutSink {
    path: PathBuf,
    tag: Option<String>,
}

impl LayoutSink {
    /// Makes a sink for the folder `path`, where the image is called `tag`.
    pub fn new(path: &Path, tag: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
        }
    }
}

impl Sink for LayoutSink {
    fn open(&self, _: &Context) -> Result<Box<dyn Receiver + '_>> {
        Err(Error::NotFound(format!(
            "{:?} in {}",
            self.tag,
            self.path.display()
        )))
    }
}
