//! Compresses a file as a layer, on one thread, and tells how fast beside libdeflate at level 1.
//!
//! `cargo run --release --example deflate -p pcocc-layers -- FILE`. Both work on pieces of 1 MiB and add a
//! check sum. CPU time counts, the least of three rounds in turn, so that a busy machine does little harm.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};
use pcocc_layers::compression::GzipWriter;

const PIECE: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(file) = std::env::args_os().nth(1) else {
        return Err("usage: deflate FILE".into());
    };
    let plain = std::fs::read(file)?;
    let (mut peer, mut ours) = (Best::default(), Best::default());
    for _ in 0..3 {
        peer.round(|| libdeflate(&plain))?;
        ours.round(|| layer(&plain))?;
    }
    for (name, best) in [("libdeflate 1", &peer), ("pcocc", &ours)] {
        println!(
            "{name:12} {:6.1} MB/s  {:.4} of the size  {:.2} x as fast  {:.3} x as large",
            plain.len() as f64 / 1e6 / best.seconds,
            best.bytes as f64 / plain.len() as f64,
            peer.seconds / best.seconds,
            best.bytes as f64 / peer.bytes as f64,
        );
    }
    Ok(())
}

fn layer(plain: &[u8]) -> io::Result<usize> {
    let mut writer = GzipWriter::new(Count(0), 1);
    writer.write_all(plain)?;
    Ok(writer.finish()?.0)
}

fn libdeflate(plain: &[u8]) -> io::Result<usize> {
    let mut compressor = Compressor::new(CompressionLvl::new(1).unwrap_or_default());
    let mut out = vec![0; compressor.gzip_compress_bound(PIECE)];
    let mut bytes = 0;
    for piece in plain.chunks(PIECE) {
        bytes += compressor
            .gzip_compress(piece, &mut out)
            .map_err(io::Error::other)?;
    }
    Ok(bytes)
}

/// The least CPU time of a number of rounds.
struct Best {
    seconds: f64,
    bytes: usize,
}

impl Default for Best {
    fn default() -> Self {
        Self {
            seconds: f64::INFINITY,
            bytes: 0,
        }
    }
}

impl Best {
    fn round(&mut self, work: impl FnOnce() -> io::Result<usize>) -> io::Result<()> {
        let start = cpu_seconds()?;
        self.bytes = work()?;
        self.seconds = self.seconds.min(cpu_seconds()? - start);
        Ok(())
    }
}

/// CPU time of all threads of this process so far (proc_pid_stat(5): utime and stime, hundredths).
fn cpu_seconds() -> io::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let ticks = fields.split(' ').skip(11).take(2);
    Ok(ticks
        .filter_map(|tick| tick.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0)
}

/// Counts what is written.
struct Count(usize);

impl Write for Count {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 += buf.len();
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
