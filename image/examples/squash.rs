//! Packs plain layer tars, lowest first, into a squashfs file and tells how fast.
//!
//! `cargo run --release --example squash -- stored|LEVEL OUT.squashfs LAYER.tar…`

use std::fs::File;
use std::time::Instant;

use pcocc_image::squashfs::{Data, Options, RootfsWriter};
use pcocc_image::transfer::Context;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, data, out, layers @ ..] = arguments.as_slice() else {
        return Err("usage: squash stored|LEVEL OUT.squashfs LAYER.tar…".into());
    };
    let options = Options {
        data: match data.as_str() {
            "stored" => Data::Stored,
            level => Data::Zstd(level.parse()?),
        },
        ..Options::default()
    };
    let context = Context::silent();
    let start = Instant::now();
    let mut writer = RootfsWriter::create(File::create(out)?, out.as_ref(), options)?;
    let (mut trees, mut bytes) = (Vec::new(), 0);
    for layer in layers {
        let mut tar = File::open(layer)?;
        bytes += tar.metadata()?.len();
        trees.push(writer.layer(layer, &mut tar, &context)?);
    }
    let read = start.elapsed();
    let summary = writer.finish(trees, b"{}", &context)?;
    let all = start.elapsed();
    let rate = bytes as f64 / 1e6 / all.as_secs_f64();
    println!("{data}: {read:.2?} layers, {all:.2?} in all, {rate:.0} MB/s, {summary:?}");
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or("")
    );
    Ok(())
}
