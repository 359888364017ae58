//! One function, whose name and answer the chaos suite changes by writing other digits into the module's file: so it has as many modules as it wants.
#![forbid(unsafe_code)]

use std::hint::black_box;

static VERSION: [u8; 16] = *b"version-00000000";

/// Says which one it is.
#[microfaas::function]
pub fn numbered_00000000(_: &[u8]) -> Vec<u8> {
    black_box(&VERSION).to_vec()
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_says_which_one_it_is() {
        assert_eq!(super::numbered_00000000(b""), b"version-00000000");
    }
}
