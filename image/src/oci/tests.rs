use pcocc_layers::{Compression, DiffId, Digest};

use super::media_types::{DOCKER_CONFIG, DOCKER_MANIFEST};

use super::*;

fn config(diff_ids: &[&str]) -> Vec<u8> {
    let ids: Vec<_> = diff_ids
        .iter()
        .map(|id| Digest::of(id.as_bytes()).to_string())
        .collect();
    serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string()
    .into_bytes()
}

fn layer(content: &str, compression: Compression) -> Layer {
    Layer {
        digest: Digest::of(format!("blob of {content}").as_bytes()),
        size: 7,
        compression,
        diff_id: DiffId(Digest::of(content.as_bytes())),
    }
}

fn docker_manifest(config: &[u8], layer_type: &str) -> Vec<u8> {
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": DOCKER_CONFIG, "size": config.len(), "digest": Digest::of(config)},
        "layers": [{"mediaType": layer_type, "size": 7, "digest": Digest::of(b"blob of a")}],
    })
    .to_string()
    .into_bytes()
}

#[test]
fn assembled_images_parse_back_to_themselves() {
    let image = Image::assemble(
        config(&["a", "b", "a"]),
        vec![
            layer("a", Compression::Gzip),
            layer("b", Compression::Zstd),
            layer("a", Compression::Gzip),
        ],
    )
    .unwrap();
    assert_eq!(
        Image::parse(image.manifest(), image.config()).unwrap(),
        image
    );
    assert_eq!(image.blobs().len(), 4, "an equal layer is one blob");
    let index = image.index(Some("latest")).unwrap();
    assert!(is_index(&index).unwrap());
    let named = parse_index(&index).unwrap();
    assert_eq!(
        select_manifest(&named, &Platform::host()).unwrap().digest,
        image.manifest_digest()
    );
    assert_eq!(named[0].name.as_deref(), Some("latest"));
}

#[test]
fn docker_schema_2_becomes_an_oci_manifest_with_the_same_config() {
    let config = config(&["a"]);
    let manifest = docker_manifest(&config, "application/vnd.docker.image.rootfs.diff.tar.gzip");
    let image = Image::parse(&manifest, &config).unwrap();
    assert_eq!(image.id(), Digest::of(&config));
    assert!(!String::from_utf8_lossy(image.manifest()).contains("docker"));
    assert_eq!(
        image,
        Image::assemble(config, vec![layer("a", Compression::Gzip)]).unwrap()
    );
}

#[test]
fn an_oci_manifest_has_a_form_for_dockers_registries() {
    let config = config(&["a", "b"]);
    let layers = vec![layer("a", Compression::Gzip), layer("b", Compression::None)];
    let image = Image::assemble(config.clone(), layers).unwrap();
    let docker = image.docker_manifest().unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&docker).contains("oci"));
    assert_eq!(Image::parse(&docker, &config).unwrap(), image);
    let layers = vec![layer("a", Compression::Gzip), layer("b", Compression::Zstd)];
    let zstd = Image::assemble(config, layers).unwrap();
    assert_eq!(zstd.docker_manifest().unwrap(), None);
}

#[test]
fn what_is_not_an_image_is_refused() {
    let good = config(&["a"]);
    let gzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let cases: [(&str, Vec<u8>, Vec<u8>); 6] = [
        ("does not parse", b"{".to_vec(), good.clone()),
        (
            "schema 1",
            br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(),
            good.clone(),
        ),
        (
            "index",
            br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(),
            good.clone(),
        ),
        (
            "media type",
            docker_manifest(&good, "application/x-elf"),
            good.clone(),
        ),
        ("corrupt", docker_manifest(&good, gzip), config(&["b"])),
        (
            "lists 1 layers",
            docker_manifest(&config(&[]), gzip),
            config(&[]),
        ),
    ];
    for (why, manifest, config) in cases {
        let error = Image::parse(&manifest, &config).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let huge = vec![b' '; MAX_DOCUMENT as usize + 1];
    assert!(is_index(&huge).unwrap_err().to_string().contains("larger"));
}

#[test]
fn of_several_manifests_the_best_for_the_machine_is_taken() {
    let one = |platform: Option<&str>, content: &str| ManifestDescriptor {
        digest: Digest::of(content.as_bytes()),
        size: 1,
        is_index: false,
        platform: platform.map(|platform| platform.parse().unwrap()),
        name: None,
    };
    let machine = "linux/amd64/v3".parse().unwrap();
    let chosen = |manifests: &[ManifestDescriptor]| {
        let chosen = select_manifest(manifests, &machine);
        let chosen = chosen.map(|chosen| {
            manifests
                .iter()
                .position(|m| std::ptr::eq(m, chosen))
                .unwrap()
        });
        chosen.map_err(|error| error.to_string())
    };
    let (riscv, own) = (
        one(Some("linux/riscv64"), "r"),
        one(Some("linux/amd64"), "a"),
    );
    let (v2, v4) = (
        one(Some("linux/amd64/v2"), "v2"),
        one(Some("linux/amd64/v4"), "v4"),
    );
    assert_eq!(chosen(&[riscv.clone(), own.clone()]), Ok(1));
    assert_eq!(chosen(&[own.clone(), v4.clone(), v2.clone()]), Ok(2));
    assert_eq!(
        chosen(&[own.clone(), one(Some("linux/x86_64"), "zstd")]),
        Ok(0)
    );
    assert_eq!(chosen(&[one(None, "any"), own]), Ok(1));
    assert_eq!(
        chosen(&[riscv.clone(), one(None, "any"), one(None, "any")]),
        Ok(1)
    );
    for (manifests, words) in [
        (vec![riscv.clone()], "only for linux/riscv64"),
        (vec![riscv, v4], "only for linux/riscv64, linux/amd64/v4"),
        (vec![one(None, "a"), one(None, "b")], "without a platform"),
        (vec![], "names no image"),
    ] {
        let error = chosen(&manifests).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}
