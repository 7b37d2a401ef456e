//! Names, listings, renaming and deleting.

use pcocc_tests::{Mount, Pcocc};

use crate::common::{shell, text, with_image};

#[test]
fn images_are_renamed_and_deleted_where_that_is_allowed() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::with(&pcocc, "mnt", &["--allow-delete"]);
    shell(
        &pcocc,
        &mount,
        "mv repo/user/hello repo/user/renamed; cp -r repo/user/renamed repo/user/other; \
         rm -r repo/user/other",
    )
    .ok();
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "renamed"
    );
    assert_eq!(pcocc.image_id("renamed"), id);
    // An import by another process shows up without a new mount.
    let plain = pcocc.home().join("plain");
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "late"]);
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "late\nrenamed"
    );
    mount.end();
    pcocc.verify();
}
