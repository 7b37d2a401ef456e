//! A daemon as a [`Store`] for the mounted tree.

use std::fs::File;
use std::sync::Arc;

use super::client::Daemon;
use super::load::DaemonSink;
use crate::error::{Error, Result};
use crate::store::{Entry, Store};
use crate::transfer::{Context, Layout, Sink};

/// The images of a daemon.
#[derive(Debug)]
pub struct DaemonStore {
    daemon: Daemon,
}

impl DaemonStore {
    /// Shows `daemon`.
    pub fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }
}

impl Store for DaemonStore {
    fn list(&self) -> Result<Vec<Entry>> {
        self.daemon.list()
    }

    fn version(&self) -> Result<u64> {
        self.daemon.version()
    }

    fn check_name(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    fn layout(&self, _name: &str, _context: &Context) -> Result<Arc<dyn Layout>> {
        Err(Error::invalid("docker save", "is not written yet"))
    }

    fn root_filesystem(&self, _name: &str, _context: &Context) -> Result<Arc<File>> {
        Err(Error::invalid("docker save", "is not written yet"))
    }

    fn sink(&self, name: &str) -> Result<Box<dyn Sink>> {
        Ok(Box::new(DaemonSink::new(self.daemon.clone(), name)?))
    }

    fn rename(&self, _from: &str, _to: &str) -> Result<()> {
        Err(Error::invalid("renaming", "is not written yet"))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.daemon.remove(name)
    }
}
