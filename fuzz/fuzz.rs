//! Gives what libFuzzer makes up to the parser that PCOCC_FUZZ_TARGET names.

#![no_main]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let wanted = std::env::var("PCOCC_FUZZ_TARGET").unwrap_or_default();
    let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
    found.expect("PCOCC_FUZZ_TARGET names a target").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
