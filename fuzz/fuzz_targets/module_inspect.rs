//! A module file of arbitrary bytes: refused with a reason, or a list of valid names, none twice.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use microfaas_abi::is_function_name;
use microfaas_abi::manifest::FUNCTIONS_MAX;
use microfaas_manifest::inspect_bytes;

fuzz_target!(|bytes: &[u8]| match inspect_bytes(bytes) {
    Ok(manifest) => {
        let names: BTreeSet<&String> = manifest.functions.iter().collect();
        assert!((1..=FUNCTIONS_MAX).contains(&names.len()) && names.len() == manifest.functions.len());
        assert!(names.iter().all(|name| is_function_name(name)));
    }
    Err(error) => assert!(!error.to_string().is_empty()),
});
