//! `pcocc docker guest show`: the parts of a guest image.

use pcocc_vm::guest_image::{self, IMAGE_NAME, Manifest};

use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::messages;
use crate::output::{self, Format};

/// Show what a guest image was made from
///
/// Its kernel and the Debian packages with their versions; with --files, each file. The same packages and the same agent
/// make the same image, byte for byte.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pcocc docker guest show --files\n\n\
    JSON: {format, protocol, pcocc, kernel, packages, files}.")]
pub(crate) struct Args {
    /// The image: [REPO:]IMAGE[@REVISION]
    #[arg(default_value = IMAGE_NAME)]
    image: String,
    /// Show the files of its root as well: mode and sha256
    #[arg(long)]
    files: bool,
    /// How to write it
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

impl Run for Args {
    fn action(&self) -> String {
        format!("show the guest image {}", self.image)
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let (disk, _) = invocation.host.guest_image(&self.image)?;
        let temporary = &invocation.environment.temporary;
        let manifest = guest_image::manifest(&disk, temporary)?;
        match self.format {
            Format::Json => output::json(&manifest),
            Format::Table => output::text(&text(&manifest, self.files)),
        }
    }
}

fn text(manifest: &Manifest, files: bool) -> String {
    let mut lines = vec![
        format!("built by    pcocc {}", manifest.pcocc),
        format!("protocol    {}", manifest.protocol),
        format!("kernel      {}", manifest.kernel),
    ];
    for (index, (name, version)) in manifest.packages.iter().enumerate() {
        let label = match index {
            0 => "packages",
            _ => "",
        };
        lines.push(format!("{label:<12}{name} {version}"));
    }
    if files {
        lines.push(String::new());
        let files = manifest.files.iter();
        lines.extend(files.map(|(path, what)| format!("{path} {what}")));
    }
    lines
        .iter()
        .map(|line| messages::printable(line) + "\n")
        .collect()
}
