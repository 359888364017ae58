//! The one place that names `core::sync::atomic` or loom.
//!
//! The types are newtypes rather than re-exports, so that a lint can ban the originals elsewhere, and
//! transparent, so that mapped memory can be viewed as them.
#![cfg_attr(
    any(loom, not(any(miri, not(target_arch = "x86_64")))),
    expect(
        unsafe_code,
        reason = "a fence by a locked instruction; for loom, a look at a word that nobody writes"
    )
)]

pub use core::sync::atomic::Ordering;

#[cfg(not(loom))]
use core::sync::atomic as imp;
#[cfg(loom)]
use loom::sync::atomic as imp;

macro_rules! atomic {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Debug)]
        pub struct $name(imp::$name);

        impl $name {
            /// A new word.
            #[cfg(not(loom))]
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(imp::$name::new(value))
            }
            /// A new word, known to the running model.
            #[cfg(loom)]
            #[must_use]
            pub fn new(value: $int) -> Self {
                Self(imp::$name::new(value))
            }
            /// See the standard library.
            #[inline]
            pub fn load(&self, order: Ordering) -> $int {
                self.0.load(order)
            }
            /// The value of a word that nobody else writes to meanwhile.
            ///
            /// Not a `load` for loom: that keeps in mind one access to a word, the last, and where that is the writer's own it misses the race of another's load before it with the
            /// store that follows. So it would see no order but one. This is no access for it, and where somebody else does write, it says so.
            #[inline]
            pub fn own(&self) -> $int {
                #[cfg(not(loom))]
                let value = self.0.load(Ordering::Relaxed);
                #[cfg(loom)]
                // SAFETY: nobody writes meanwhile, or loom stops here.
                let value = unsafe { self.0.unsync_load() };
                value
            }
            /// See the standard library.
            #[inline]
            pub fn store(&self, value: $int, order: Ordering) {
                self.0.store(value, order);
            }
            /// See the standard library.
            #[inline]
            pub fn swap(&self, value: $int, order: Ordering) -> $int {
                self.0.swap(value, order)
            }
            /// See the standard library.
            #[inline]
            pub fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                self.0.fetch_add(value, order)
            }
            /// See the standard library.
            #[inline]
            pub fn fetch_or(&self, value: $int, order: Ordering) -> $int {
                self.0.fetch_or(value, order)
            }
            /// See the standard library.
            ///
            /// # Errors
            /// The value found, where it was not `current`.
            #[inline]
            pub fn compare_exchange(&self, current: $int, new: $int, ok: Ordering, err: Ordering) -> Result<$int, $int> {
                self.0.compare_exchange(current, new, ok, err)
            }
        }
    };
}

atomic!(
    /// A 32-bit shared word; futexes need this width.
    AtomicU32, u32
);
atomic!(
    /// A 64-bit shared word.
    AtomicU64, u64
);

#[cfg(not(loom))]
impl AtomicU32 {
    /// The word itself, for a futex call.
    #[must_use]
    pub fn as_std(&self) -> &core::sync::atomic::AtomicU32 {
        &self.0
    }
}

/// Whether the models run with this line of the algorithm broken: `MICROFAAS_MUTANT` names it. See `tests/model/mutants.txt`.
#[cfg(loom)]
pub(crate) fn mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<std::string::String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("MICROFAAS_MUTANT").ok()).as_deref() == Some(name)
}

/// Never broken outside the models.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) const fn mutant(_name: &str) -> bool {
    false
}

/// `fence(SeqCst)`.
///
/// # Cost
/// Waits until what was stored before is visible. On x86-64 a locked instruction keeps a store before later loads as `mfence` does, in about half the time.
#[inline]
pub fn full_fence() {
    #[cfg(any(loom, miri, not(target_arch = "x86_64")))]
    imp::fence(Ordering::SeqCst);
    #[cfg(not(any(loom, miri, not(target_arch = "x86_64"))))]
    // SAFETY: changes no bit of the word at the top of the stack, which is the thread's own. Without `nomem` the compiler moves no access over it.
    unsafe {
        core::arch::asm!("lock or dword ptr [rsp], 0", options(nostack));
    }
}

/// One step of a spin loop.
#[inline]
pub fn spin_loop() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
