//! attack  : 122_hole_alarm_off
//! class   : hole
//! what    : Switches the alarm off, and goes on for ever.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT|WORKER_LOST
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

use crate::hole::system_call;

pub fn attack(_input: &[u8]) -> Vec<u8> {
    let never = [0u64; 4];
    for timer in 0..8 {
        // timer_settime
        system_call(223, &[timer, 0, never.as_ptr() as u64, 0]);
    }
    loop {
        std::hint::spin_loop();
    }
}
