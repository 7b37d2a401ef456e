use super::*;
use crate::store::Store;
use crate::testing::MemoryStore;
use crate::testing::memory::MemoryImage;

#[test]
fn a_layers_compression_is_that_of_its_bytes() {
    let all = [Compression::None, Compression::Gzip, Compression::Zstd];
    for is in all {
        for said in all {
            let layers: [&[u8]; 2] = [b"first", &[3; 300_000]];
            let mut image = MemoryImage::new(&layers, is);
            let right = image.image.clone();
            let mut layers = right.layers().to_vec();
            for layer in &mut layers {
                layer.compression = said;
            }
            image.image = Image::assemble(right.config().to_vec(), layers).unwrap();
            let store = MemoryStore::temporary().unwrap();
            let sink = store.sink("image", None).unwrap();
            let copied = copy(&image, &*sink, &Context::silent());
            // Bytes that come from afar are looked at where the digests say that something is wrong.
            let far = is != Compression::None && said != Compression::None && is != said;
            match copied {
                Ok(copied) => assert_eq!(copied, right, "{is:?} said to be {said:?}"),
                Err(error) => assert!(far, "{is:?} said to be {said:?}: {error}"),
            }
        }
    }
}
