//! attack  : 037_fault_exec_data
//! class   : fault
//! what    : Calls into a data page (NX): SIGSEGV, PC itself is bad - the fault handler must not trust the interrupted PC/stack.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT
//! expect.worker = same|restarted
//! expect.next_ok = true
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
    let code = Box::leak(Box::new([0xC3u8; 64]));
    let a = code.as_ptr() as usize + input.len() % 8;
    let f = transmute::<usize, extern "C" fn()>(a);
    f();
    vec![1]
}
