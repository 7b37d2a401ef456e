//! Copies between formats (not part of the project).
use pcocc_image::archive::*;
use pcocc_image::formats::Location;
use pcocc_image::layout::*;
use pcocc_image::registry::*;
use pcocc_image::transfer::{self, Context, Sink, Source};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let access = Access {
        default_registry: None,
        insecure_registries: std::env::var("INSECURE").into_iter().collect(),
        docker_config: std::env::var("DCONF")
            .ok()
            .map(|f| std::fs::read_to_string(f).unwrap()),
    };
    let c = Context::silent();
    let r = (|| {
        let src: Box<dyn Source> = match Location::source(&a[1], None, None)? {
            Location::DockerArchive { path, reference } => {
                Box::new(ArchiveFile::open(&path, reference.as_deref(), &c)?)
            }
            Location::OciFolder { path, tag } => {
                Box::new(LayoutFolder::open(&path, tag.as_deref())?)
            }
            Location::Registry { reference } => {
                Box::new(RegistryImage::new(&reference, access.clone())?)
            }
            _ => panic!(),
        };
        let dst: Box<dyn Sink> = match Location::destination(&a[2], None, None, false)? {
            Location::DockerArchive { path, reference } => {
                Box::new(ArchiveSink::new(&path, reference.as_deref()))
            }
            Location::OciFolder { path, tag } => Box::new(LayoutSink::new(&path, tag.as_deref())),
            Location::Registry { reference } => Box::new(RegistryImage::new(&reference, access)?),
            _ => panic!(),
        };
        transfer::copy(&*src, &*dst, &c)
    })();
    match r {
        Ok(i) => println!("ok id={} manifest={}", i.id(), i.manifest_digest()),
        Err(e) => {
            println!("ERR {e}");
            std::process::exit(1)
        }
    }
}
