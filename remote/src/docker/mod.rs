//! Docker daemons: the only module that names bollard.
//!
//! Data path of an import: [`DaemonSource`] → `GET /images/NAME/get` → one pass over the archive →
//! [`pcocc_image::transfer::Receiver`]; where a docker VM has a [`LayerService`], single layers come instead. Data
//! path of an export: [`DaemonSink`] → an archive, made while it is sent → `POST /images/load` → the daemon's answer,
//! read to its end. [`Daemon`] is a connection with blocking methods and a small tokio runtime of its own.
//! [`DaemonStore`] shows a daemon to the mounted tree. [`edit`] changes an image in a container.

mod attach;
mod bounds;
mod client;
mod connection;
mod container;
pub mod contexts;
pub mod edit;
mod endpoint;
mod events;
mod guest;
mod layer_service;
mod layer_stream;
mod link;
mod liveness;
mod load;
mod roles;
mod save;
mod ssh;
mod store;
mod stream;
mod tarball;
pub mod testing;
mod v1;

pub use attach::{Attached, Input, Received, Stream};
pub use client::{Daemon, ImageStore, Info, Inspected};
pub use connection::Lives;
pub use container::Parents;
pub use endpoint::{Endpoint, TlsFiles};
pub use layer_service::{Answer, Content, LayerService};
pub use load::DaemonSink;
pub use save::DaemonSource;
pub use store::DaemonStore;

#[cfg(test)]
mod tests;
