//! Exports of a daemon's images kept on disk by image ID, bounded in bytes.
