//! The file `oci-layout`, which marks a folder as an OCI image layout and names its version (OCI image spec,
//! "oci-layout file").

use serde::Deserialize;

use crate::error::{Error, Result};

/// Name of the file.
pub const MARKER_NAME: &str = "oci-layout";

/// Content of the file, as pcocc writes it.
pub const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// Checks the content of such a file: pcocc reads version 1 of the layout. `what` names the file in errors.
pub fn check_marker(content: &[u8], what: &str) -> Result<()> {
    let marker: Marker = serde_json::from_slice(content)
        .map_err(|error| Error::invalid(what, format!("does not parse: {error}")))?;
    if marker.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    let version: String = marker.image_layout_version.chars().take(100).collect();
    Err(Error::invalid(
        what,
        format!("is of the unknown version {version:?}"),
    ))
}
