//! attack  : 030_mem_rc_cycle
//! class   : mem
//! what    : Leaks through an Rc cycle.
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : "" ; "" ; ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.rss_delta = <8MiB after 1000 calls
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::{cell::RefCell, rc::Rc};
struct N(RefCell<Option<Rc<N>>>, #[allow(dead_code)] Vec<u8>);
pub fn attack(input: &[u8]) -> Vec<u8> {
    let n = Rc::new(N(RefCell::new(None), vec![1; 1 << 20]));
    *n.0.borrow_mut() = Some(n.clone());
    vec![input.len() as u8]
}
