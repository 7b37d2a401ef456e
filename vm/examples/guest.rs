//! Builds a guest image without a repository: `guest AGENT OUTPUT`.

use std::path::PathBuf;

use pcocc_core::cancel::Cancel;
use pcocc_core::progress::Reporter;
use pcocc_vm::guest_image::{BuildOptions, build};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [agent, output] =
        [1, 2].map(|index| PathBuf::from(std::env::args().nth(index).unwrap_or_default()));
    let options = BuildOptions {
        agent,
        suite: "trixie".into(),
        mirror: None,
        temporary: "/var/tmp".into(),
    };
    let manifest = build(&options, &output, &Reporter::silent(), &Cancel::new())?;
    println!("{}", serde_json::to_string_pretty(&manifest)?);
    Ok(())
}
