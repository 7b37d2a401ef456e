//! A daemon as a [`Store`] for the mounted tree.
//!
//! Listing and renaming are single requests. An image's content comes from the spool, which exports the image
//! once.

use std::fs::File;
use std::sync::Arc;

use super::client::Daemon;
use super::load::DaemonSink;
use super::save::DaemonSource;
use pcocc_image::origin::Origin;
use pcocc_image::reference::DockerReference;
use pcocc_image::spool::{Spool, SpoolImage};
use pcocc_image::store::{Entry, Store};
use pcocc_image::transfer::{Context, Layout, Sink};
use pcocc_image::{Error, Result};

/// The images of a daemon.
#[derive(Debug)]
pub struct DaemonStore {
    daemon: Daemon,
    spool: Arc<Spool>,
}

impl DaemonStore {
    /// The images of `daemon`; `spool` keeps exported images.
    pub fn new(daemon: Daemon, spool: Arc<Spool>) -> Self {
        Self { daemon, spool }
    }

    fn spooled(&self, name: &str, context: &Context) -> Result<Arc<SpoolImage>> {
        let id = self.daemon.until(&context.cancel).inspect(name)?.id;
        let source = DaemonSource::new(self.daemon.clone(), name).pinned(id);
        self.spool.get(id, &source, context)
    }
}

fn parse(name: &str) -> Result<DockerReference> {
    let reference: DockerReference = name.parse()?;
    if reference.digest().is_some() {
        return Err(Error::invalid(
            format!("image name {name:?}"),
            "has a digest, which docker computes itself; use NAME[:TAG]",
        ));
    }
    Ok(reference)
}

impl Store for DaemonStore {
    fn list(&self) -> Result<Vec<Entry>> {
        self.daemon.known_list()
    }

    fn version(&self) -> Result<u64> {
        self.daemon.version()
    }

    fn check_name(&self, name: &str) -> Result<()> {
        parse(name).map(|_| ())
    }

    fn layout(&self, name: &str, context: &Context) -> Result<Arc<dyn Layout>> {
        Ok(self.spooled(name, context)?)
    }

    fn root_filesystem(&self, name: &str, context: &Context) -> Result<Arc<File>> {
        Ok(self.spooled(name, context)?.root_filesystem())
    }

    fn origin(&self, name: &str) -> Option<Origin> {
        Some(Origin {
            made_by: "pcocc docker mount".to_owned(),
            daemon: Some(self.daemon.endpoint().to_string()),
            source: Some(name.to_owned()),
            ..Origin::default()
        })
    }

    fn sink(&self, name: &str, _: Option<Origin>) -> Result<Box<dyn Sink>> {
        Ok(Box::new(
            DaemonSink::new(self.daemon.clone(), name)?.only_new(),
        ))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let target = parse(to)?;
        match self.daemon.inspect(to) {
            Err(Error::NotFound(_)) => {}
            Ok(_) => return Err(Error::Exists(format!("image {to} in the docker daemon"))),
            Err(error) => return Err(error),
        }
        self.daemon.tag(
            from,
            &target.familiar_name(),
            target.tag().unwrap_or("latest"),
        )?;
        // The image has two names now: this removes only the old name.
        self.daemon.remove(from)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.daemon.remove(name)
    }
}
