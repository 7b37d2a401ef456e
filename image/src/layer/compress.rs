//! Compressing a plain tar into a layer blob.
