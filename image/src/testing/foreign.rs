//! Private parsers of foreign bytes, for the fuzzer in `fuzz/`.
#![cfg_attr(
    not(test),
    expect(
        clippy::expect_used,
        reason = "a broken property is to stop the fuzzer"
    )
)]

use std::path::Path;

use serde_json::{Value, json};

use crate::layout::sink::merged;
use crate::oci::REF_NAME;
use crate::origin::Origin;

/// The index of an OCI layout of somebody else to which an image is added: it stays as it is but for that image.
pub fn layout_index(data: &[u8]) {
    const NAME: &str = "name";
    let added = json!({"digest": "sha256:00", "size": 1, "annotations": {REF_NAME: NAME}});
    let fresh = json!({"manifests": [added]}).to_string();
    let Ok(made) = merged(Path::new("index.json"), data, fresh.as_bytes(), Some(NAME)) else {
        return;
    };
    let (mut old, mut made) = (parsed(data), parsed(&made));
    let mut expected = taken(&mut old);
    expected.retain(|manifest| {
        let name = manifest
            .get("annotations")
            .and_then(|all| all.get(REF_NAME));
        name.and_then(Value::as_str) != Some(NAME)
    });
    expected.push(added);
    assert_eq!(taken(&mut made), expected);
    assert_eq!(made, old, "something else has changed");
}

fn parsed(document: &[u8]) -> Value {
    serde_json::from_slice(document).expect("it was parsed before")
}

/// Takes the list of manifests out of an index.
fn taken(index: &mut Value) -> Vec<Value> {
    let list = index.get_mut("manifests").and_then(Value::as_array_mut);
    std::mem::take(list.expect("it has a list"))
}

/// The origin of an image, in annotations that anybody can write.
pub fn origin(data: &[u8]) {
    let Ok(index) = std::str::from_utf8(data) else {
        return;
    };
    let Some(origin) = Origin::of_index(index) else {
        return;
    };
    for (_, text) in origin.annotations() {
        assert!(text.len() <= 4 * 1024 && !text.contains(char::is_control));
    }
    // What is left out when it makes no sense does not come back.
    let noted = origin.annotate(br#"{"manifests":[{}]}"#.to_vec());
    let noted = String::from_utf8(noted).expect("JSON is text");
    let again = Origin::of_index(&noted).expect("it was written");
    assert_eq!(again, origin);
}
