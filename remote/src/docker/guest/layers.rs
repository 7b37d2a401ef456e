//! Images of a graph driver: the config, and layers as plain tar, [`AHEAD`] of them on their way at once.
//!
//! Layers that the receiver has do not move.

use std::collections::{HashSet, VecDeque};
use std::io::Read;

use parking_lot::Mutex;

use super::vm::{Asked, Vm};
use crate::docker::client::Inspected;
use pcocc_image::oci::{Image, diff_ids};
use pcocc_image::transfer::{Context, Offer, Receiver};
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, Compression};

/// Layers that are on their way at once.
const AHEAD: usize = 3;

/// Sends the image that docker described as `inspected`.
pub(super) fn send(
    vm: &Vm<'_>,
    inspected: &Inspected,
    receiver: &mut dyn Receiver,
    context: &Context,
) -> Result<Image> {
    let config = config(vm, inspected)?;
    receiver.expect_layers(&inspected.diff_ids, context)?;
    let mut missing = VecDeque::new();
    let chain_ids = ChainId::prefixes(&inspected.diff_ids);
    let layers: Vec<_> = inspected.diff_ids.iter().copied().zip(chain_ids).collect();
    let mut seen = HashSet::new();
    for (diff_id, chain_id) in &layers {
        if seen.insert(*diff_id) && !receiver.has_layer(*diff_id)? {
            missing.push_back((*diff_id, *chain_id));
        }
    }
    tracing::debug!(
        image = %inspected.id,
        layers = layers.len(),
        missing = missing.len(),
        "the VM hands out layers"
    );
    let mut coming = VecDeque::new();
    let mut taken = Vec::new();
    for (diff_id, chain_id) in layers {
        context.check()?;
        while coming.len() < AHEAD
            && let Some((diff_id, chain_id)) = missing.pop_front()
        {
            coming.push_back((diff_id, vm.open(Asked::Layer(chain_id))?));
        }
        let opened = match coming.front() {
            Some((next, _)) if *next == diff_id => coming.pop_front(),
            // The receiver has this layer.
            _ => None,
        };
        let (size, opened) = match opened {
            None => (None, None),
            Some((_, mut layer)) => (Some(layer.size(&vm.daemon)?), Some(layer.bytes)),
        };
        let opened = Mutex::new(opened);
        let open = || -> Result<Box<dyn Read + Send>> {
            Ok(match opened.lock().take() {
                Some(bytes) => Box::new(bytes),
                None => Box::new(vm.open(Asked::Layer(chain_id))?.bytes),
            })
        };
        let offer = Offer {
            blob: None,
            compression: Compression::None,
            diff_id: Some(diff_id),
            size,
            file: None,
            is_far: true,
            open: &open,
        };
        taken.push(receiver.layer(&offer, context)?);
    }
    Image::assemble(config, taken)
}

/// The image's config, which is the one that docker described.
fn config(vm: &Vm<'_>, inspected: &Inspected) -> Result<Vec<u8>> {
    let config = vm.document(Asked::Config(inspected.id), inspected.id)?;
    match diff_ids(&config)? == inspected.diff_ids {
        true => Ok(config),
        false => Err(Error::invalid(
            "image config",
            "names other layers than the daemon said",
        )),
    }
}
