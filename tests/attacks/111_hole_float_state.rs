//! attack  : 111_hole_float_state
//! class   : hole
//! what    : Leaves the floating point units with traps on, full, and with an exception pending.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : "mxcsr" ; "full" ; "pending" ; "mxcsr" ; "full" ; "pending"
//! expect.status = OK|FAULT
//! expect.worker = same
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
pub fn attack(input: &[u8]) -> Vec<u8> {
    let word = std::hint::black_box([if input == b"mxcsr" { 0x6000u32 } else { 0x0300 }; 1]);
    let at = word.as_ptr() as u64;
    match input {
        // ldmxcsr [rdi]; ret
        b"mxcsr" => run::<0x90909090c317ae0f>(at, 0),
        // fld1; fld1; fld1; ret
        b"full" => run::<0x90c3e8d9e8d9e8d9>(0, 0),
        // fldcw [rdi]; fsqrt; ret
        _ => run::<0x909090c3fad92fd9>(at, 0),
    };
    Vec::new()
}
