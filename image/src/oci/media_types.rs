//! Media types of docker's registries (image manifest version 2, schema 2), and the one of OCI's that is sent by name.

/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type of docker's manifests, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub(super) const DOCKER_MANIFEST_LIST: &str =
    "application/vnd.docker.distribution.manifest.list.v2+json";

/// How the media types of schema 1 begin.
pub(super) const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

pub(super) const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

pub(super) const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
