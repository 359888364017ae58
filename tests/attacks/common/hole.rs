//! What cases of the class `hole` share: memory and machine code from safe code.

// --- soundness-hole helper (rust-lang/rust#25860, higher-ranked form; open, compiles on rustc 1.95 and 1.97-nightly) ---
fn tr<'a, 'b, T: ?Sized>(_v: &'a &'b (), b: &'b mut T) -> &'a mut T {
    b
}
fn ext<T: ?Sized + 'static>(x: &mut T) -> &'static mut T {
    let f: fn(&'static &'static (), &mut T) -> &'static mut T = tr;
    f(&&(), x)
}
pub fn transmute<A: 'static, B: 'static>(obj: A) -> B {
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
pub fn rd<T: Copy + 'static>(p: usize) -> T {
    *transmute::<usize, &'static T>(p)
}
#[inline(never)]
fn constant<const CODE: u64>() -> u64 {
    std::hint::black_box(CODE)
}
fn code<const CODE: u64>() -> usize {
    let start = constant::<CODE> as fn() -> u64 as usize;
    let is_here = |at: &usize| (0..8).all(|i| rd::<u8>(at + i) == CODE.to_le_bytes()[i]);
    (start..start + 64).find(is_here).expect("the constant is in the code")
}
pub fn run<const CODE: u64>(a: u64, b: u64) -> u64 {
    transmute::<usize, extern "C" fn(u64, u64) -> u64>(code::<CODE>())(a, b)
}
/// A system call with up to five arguments.
pub fn system_call(number: u64, arguments: &[u64]) -> i64 {
    let argument = |i: usize| arguments.get(i).copied().unwrap_or(0);
    // xchg rax, r9; mov r10, rcx; syscall; ret
    let call =
        transmute::<usize, extern "C" fn(u64, u64, u64, u64, u64, u64) -> i64>(code::<0xc3050fca89499149>());
    call(argument(0), argument(1), argument(2), argument(3), argument(4), number)
}
