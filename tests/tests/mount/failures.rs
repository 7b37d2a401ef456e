//! Copies that fail or are given up leave nothing behind.

use pcocc_tests::{Mount, Pcocc};

use crate::common::{shell, with_image};

#[test]
fn a_killed_copy_leaves_nothing_behind() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    for round in 0..10 {
        // The fifo holds the copy up in the middle of a blob.
        let line = format!(
            "rm -rf $home/part; cp -r $home/plain $home/part; rm $home/part/index.json; \
             mkfifo $home/part/index.json; cp -r --copy-contents $home/part repo/user/killed & \
             p=$!; sleep 0.0{round}; kill -9 $p; wait $p || true"
        );
        shell(&pcocc, &mount, &line).ok();
        assert_eq!(
            shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
            "hello"
        );
    }
    shell(&pcocc, &mount, "cp -r $home/plain repo/user/killed").ok();
    assert_eq!(pcocc.image_id("killed"), id);
    mount.end();
    pcocc.verify();
}
