//! The config of an image, as far as pcocc reads it.

use oci_spec::image::ImageConfiguration;

use super::descriptor::check_size;
use crate::error::{Error, Result};
use pcocc_layers::DiffId;

/// The diff IDs an image config lists, lowest layer first.
pub fn diff_ids(config: &[u8]) -> Result<Vec<DiffId>> {
    parse_config(config).map(|(diff_ids, ..)| diff_ids)
}

pub(super) fn parse_config(config: &[u8]) -> Result<(Vec<DiffId>, String, String)> {
    check_size("image config", config)?;
    let parsed: ImageConfiguration = serde_json::from_slice(config)
        .map_err(|error| Error::invalid("image config", format!("does not parse: {error}")))?;
    let diff_ids = parsed
        .rootfs()
        .diff_ids()
        .iter()
        .map(|diff_id| Ok(DiffId(diff_id.parse()?)))
        .collect::<Result<_>>()?;
    Ok((
        diff_ids,
        parsed.architecture().to_string(),
        parsed.os().to_string(),
    ))
}
