//! Registries (docker://).
