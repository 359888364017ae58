//! attack  : 040_fault_panic_kinds
//! class   : fault
//! what    : Every ordinary panic: div by zero, index, unwrap, RefCell, slice, utf8, overflow, unreachable, sort order, assert.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "\0" ; "\1" ; "\2" ; "\3" ; "\4" ; "\5" ; "\6" ; "\7" ; "\x08" ; "\t"
//! expect.status = PANIC
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! notes   : Each: PANIC with the message (bounded length) and location in the error.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::cell::RefCell;
pub fn attack(input: &[u8]) -> Vec<u8> {
    let z = std::hint::black_box(input.len() as i32 * 0);
    let b = std::hint::black_box(input);
    match input.first().copied().unwrap_or(0) % 10 {
        0 => vec![(1 / z) as u8],
        1 => vec![b[b.len() + 7]],
        2 => vec![None::<u8>.unwrap()],
        3 => {
            let c = RefCell::new(1);
            let _a = c.borrow_mut();
            vec![*c.borrow()]
        }
        4 => b[5..z as usize].to_vec(),
        5 => String::from_utf8(vec![0xff]).unwrap().into_bytes(),
        6 => vec![(i32::MIN / (z - 1)) as u8],
        7 => unreachable!(),
        8 => {
            let mut v: Vec<u32> = (0..500).collect();
            let mut f = 0u32;
            v.sort_by(|_, _| {
                f = f.wrapping_mul(1664525).wrapping_add(1013904223);
                if f & 0x8000 != 0 { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater }
            });
            panic!("order")
        }
        _ => {
            assert_eq!(z, 1);
            vec![]
        }
    }
}
