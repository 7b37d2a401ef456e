//! Names of images, and files that name images.

use std::collections::BTreeMap;

use pcocc_image::reference::{DockerReference, ImageUri, check_name, legal_name};
use pcocc_remote::dockerfile::Dockerfile;

/// The name of an image: docker's reference, and the URI of an image in a repository.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    check_name(&legal_name(text)).expect("a legal name is legal");
    if let Ok(reference) = text.parse::<DockerReference>() {
        for form in [reference.to_string(), reference.canonical()] {
            assert_eq!(form.parse().ok().as_ref(), Some(&reference), "{form}");
        }
        assert_eq!(reference.to_string().matches(char::is_control).count(), 0);
    }
    if let Ok(uri) = text.parse::<ImageUri>() {
        let form = uri.to_string();
        assert_eq!(form.parse().ok().as_ref(), Some(&uri), "{form}");
        check_name(&uri.name).expect("a URI has a legal name");
    }
}

/// A Dockerfile. What it names is not longer than the file by orders of magnitude.
pub fn dockerfile(data: &[u8]) {
    const LONGEST: usize = 1 << 20;
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let file = Dockerfile::parse(text, &BTreeMap::new());
    for image in file.images() {
        assert!(image.len() < LONGEST);
        file.parent(Some(image));
    }
    if let Some(parent) = file.parent(None) {
        assert!(parent == "scratch" || parent.contains('$') || file.images().contains(&parent));
    }
}
