//! What the end-to-end tests share: a private dockerd, a registry, scratch folders.
