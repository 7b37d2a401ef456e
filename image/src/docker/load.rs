//! Puts an image into a daemon: an archive made on the fly for `docker load`.

use super::client::Daemon;
use crate::error::Result;
use crate::transfer::{Context, Receiver, Sink};

/// A name in a daemon as a sink. Like `docker load`, it takes over a name that exists.
#[derive(Debug)]
pub struct DaemonSink {
    daemon: Daemon,
    name: String,
}

impl DaemonSink {
    /// The image shall be called `name`; the tag `latest` is implied.
    ///
    /// Fails with [`crate::Error::Invalid`] when docker would not accept the name.
    pub fn new(daemon: Daemon, name: &str) -> Result<Self> {
        Ok(Self {
            daemon,
            name: name.to_owned(),
        })
    }
}

impl Sink for DaemonSink {
    fn open(&self, _context: &Context) -> Result<Box<dyn Receiver + '_>> {
        self.daemon.ping()?;
        Err(crate::Error::invalid(
            format!("docker load of {}", self.name),
            "is not written yet",
        ))
    }
}
