//! What the image library is still to bring.

use std::path::Path;

use pcocc_image::reference::ImageUri;
use pcocc_image::repository::{Meta, Repositories, Repository};
use pcocc_image::transfer::{Context, Sink};
use pcocc_image::vmdisk::DiskFormat;
use pcocc_image::{Error, Result};

fn pending<T>() -> Result<T> {
    Err(Error::invalid("this build", "lacks it"))
}

pub(crate) trait Pending {
    fn sink(&self, _: &ImageUri) -> Result<Box<dyn Sink>> {
        pending()
    }
    fn import_disk(&self, _: &Path, _: DiskFormat, _: &ImageUri, _: &Context) -> Result<()> {
        pending()
    }
    fn export_disk(&self, _: &Meta, _: &Path, _: DiskFormat, _: &Context) -> Result<()> {
        pending()
    }
}

impl Pending for Repositories {}
impl Pending for Repository {}
