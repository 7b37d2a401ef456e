//! A certificate authority of a test's own.

use std::path::Path;
use std::process::Command;

use crate::run;

/// Makes `ca.pem`, and `cert.pem` and `key.pem` signed by it, good for server and client on 127.0.0.1.
pub fn certificates(folder: &Path) {
    certificates_for("127.0.0.1", folder);
}

/// The same for an `address`.
pub fn certificates_for(address: &str, folder: &Path) {
    const MAKE: &str = r#"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -subj /CN=authority -keyout ca-key.pem -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
            -keyout key.pem -out request.pem
        echo "subjectAltName=IP:$1" >extensions
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 \
            -extfile extensions -out cert.pem"#;
    std::fs::create_dir_all(folder).expect("make a folder");
    let mut sh = Command::new("sh");
    sh.args(["-euc", MAKE, "certificates", address]);
    run(sh.current_dir(folder)).ok();
}
