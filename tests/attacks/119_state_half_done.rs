//! attack  : 119_state_half_done
//! class   : state
//! what    : Ended in the middle of what is done once, with a lock in hand, and with a thread-local borrowed; a lock poisoned; a hook set. The next call has all of them new.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "once" ; "get" ; "lock" ; "get" ; "poison" ; "get"
//! expect.status = TIMEOUT|PANIC|OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
//! expect.call2.equals_zero = true
//! expect.call4.equals_zero = true
//! expect.call6.equals_zero = true
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use std::cell::RefCell;
use std::sync::{Mutex, OnceLock};

static ONCE: OnceLock<u8> = OnceLock::new();
static LOCK: Mutex<u8> = Mutex::new(0);
thread_local!(static CELL: RefCell<u8> = const { RefCell::new(0) });

fn endless() -> u8 {
    loop {
        std::hint::spin_loop();
    }
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    match input {
        b"once" => vec![*ONCE.get_or_init(endless)],
        b"lock" => CELL.with_borrow_mut(|cell| {
            let mut lock = LOCK.lock().unwrap();
            (*cell, *lock) = (7, 7);
            vec![endless()]
        }),
        b"poison" => {
            std::panic::set_hook(Box::new(|_| loop {}));
            let _ = std::panic::take_hook();
            std::panic::set_hook(Box::new(|_| ()));
            let lock = LOCK.lock().unwrap();
            panic!("with the lock in hand")
        }
        _ => vec![*ONCE.get_or_init(|| 0), *LOCK.lock().unwrap(), CELL.with_borrow(|cell| *cell)],
    }
}
