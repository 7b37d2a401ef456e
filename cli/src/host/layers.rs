//! The layers of a job's daemon, out of its VM.

use std::io;
use std::sync::Arc;

use pcocc_layers::{ChainId, Digest};
use pcocc_remote::docker::{Answer, Content, Daemon, LayerService};
use pcocc_vm::job::Job;
use pcocc_vm::service::{EndpointClient, Service};

use super::Host;

/// The service of the agent in a job's VM.
#[derive(Debug)]
struct VmLayers(EndpointClient);

impl Host {
    /// The daemon of `job`, with the layers of its VM.
    pub(super) fn with_layers(&self, daemon: Daemon, job: &Job) -> Daemon {
        match self.endpoint_client(job) {
            Ok(client) => daemon.with_layers(Arc::new(VmLayers(client))),
            Err(failure) => {
                tracing::debug!(?failure, "no layers out of the VM");
                daemon
            }
        }
    }
}

impl VmLayers {
    async fn content(
        &self,
        digest: Digest,
        ask: fn(pcocc_vm::service::Digest) -> Service,
    ) -> io::Result<Content> {
        let digest = digest.to_string().try_into().map_err(io::Error::other)?;
        let (bytes, stream) = self.0.content(&ask(digest)).await?;
        Ok(Content {
            bytes,
            stream: Box::new(stream),
        })
    }
}

impl LayerService for VmLayers {
    fn config(&self, id: Digest) -> Answer<'_> {
        Box::pin(self.content(id, |id| Service::Image { id }))
    }

    fn layer(&self, chain_id: ChainId) -> Answer<'_> {
        Box::pin(self.content(chain_id.0, |chain_id| Service::Layer { chain_id }))
    }

    fn blob(&self, digest: Digest) -> Answer<'_> {
        Box::pin(self.content(digest, |digest| Service::Blob { digest }))
    }
}
