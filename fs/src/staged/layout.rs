//! The paths of an OCI image layout, and the temporary paths of tools.

use pcocc_layers::Digest;

/// Role of a path inside an image that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A folder of the layout.
    Folder,
    /// A file of the layout.
    Layout,
    /// A temporary file or folder of a tool; never content.
    Temporary,
}

/// Role of `path`; `None` for a path that no image layout has.
pub fn layout_role(path: &str) -> Option<Role> {
    let temporary = path.split('/').any(|name| {
        ["oci-put-blob", "."].iter().any(|s| name.starts_with(s))
            || [".tmp", ".part", ".partial"]
                .iter()
                .any(|s| name.ends_with(s))
    });
    match path {
        "oci-layout" | "index.json" => Some(Role::Layout),
        "blobs" | "blobs/sha256" => Some(Role::Folder),
        _ if temporary => Some(Role::Temporary),
        // An unpacked `docker save` archive is a layout with these files beside it.
        "manifest.json" | "repositories" => Some(Role::Temporary),
        _ => match path.strip_prefix("blobs/sha256/") {
            Some(hex) if Digest::from_hex(hex).is_ok() => Some(Role::Layout),
            _ => None,
        },
    }
}
