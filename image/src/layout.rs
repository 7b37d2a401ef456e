//! OCI image layouts in a folder.
