//! Gives what libFuzzer makes up to the parser that PCOCC_FUZZ_TARGET names.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use pcocc_image::testing::parsers::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("PCOCC_FUZZ_TARGET").unwrap_or_default();
    let mut all = TARGETS.iter().chain(&pcocc_fs::testing::TARGETS);
    let found = all.find(|(name, _)| *name == wanted);
    found.expect("PCOCC_FUZZ_TARGET names a target").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
