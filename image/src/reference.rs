//! Names of images: pcocc URIs, docker references.
