//! A metadata block of arbitrary bytes: refused, or a list of pairs that encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use microfaas_lane::message::{Encoder, META_BYTES_MAX, PAIRS_MAX, Pairs, check_pair, encoded_len};

fuzz_target!(|bytes: &[u8]| {
    let Ok(pairs) = Pairs::parse(bytes) else { return };
    assert!(bytes.len() <= META_BYTES_MAX && pairs.iter().count() <= PAIRS_MAX);
    assert_eq!(pairs.is_empty(), bytes.is_empty());
    assert_eq!(encoded_len(&pairs), bytes.len());
    let mut buffer = vec![0; bytes.len()];
    let mut encoder = Encoder::new(&mut buffer);
    for (name, value) in &pairs {
        assert_eq!(check_pair(name, value), Ok(()));
        assert!(!value.contains(['\r', '\n', '\0']) && !name.contains(['\r', '\n', ' ']));
        assert!(pairs.get(name).is_some());
        encoder.push(name, value).expect("what was parsed can be encoded");
    }
    assert_eq!(encoder.finish(), bytes.len());
    assert_eq!(buffer, bytes);
});
