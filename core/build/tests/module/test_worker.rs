//! The least that a module needs of a worker: a runtime over a bump arena, and a buffer for the response.
#![expect(unsafe_code, reason = "plays the worker's side of the module ABI")]
#![expect(clippy::unwrap_used, reason = "a test's helper")]

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use libloading::Library;
use microfaas_abi::{
    ABI_VERSION, Call, Function, MESSAGE_BYTES, MODULE_MAGIC, MODULE_SYMBOL, Module, OUTCOME_OK, Outcome,
    Runtime,
};
use microfaas_lane::message::{Encoder, META_ALIGN, Pairs, encoded_len};

const ARENA_BYTES: usize = 16 << 20;

thread_local! {
    /// One worker for each test thread: the runtime's entries get no context.
    static RUNTIME: Cell<*mut Runtime> = const { Cell::new(ptr::null_mut()) };
    static ARENA: RefCell<Arena> = const { RefCell::new(Arena { memory: Vec::new(), used: 0, taken: 0, blocks: 0 }) };
    static OUT: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static CHECKPOINT: Cell<u32> = const { Cell::new(0) };
}

struct Arena {
    memory: Vec<u8>,
    used: usize,
    taken: usize,
    blocks: usize,
}

pub(crate) struct Worker {
    module: &'static Module,
    runtime: Box<Runtime>,
    pub(crate) out_capacity: usize,
    pub(crate) deadline_ns: u64,
    pub(crate) flags: u64,
}

pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) body: Vec<u8>,
    pub(crate) meta: Vec<(String, String)>,
}

impl Answer {
    pub(crate) fn meta(&self) -> Vec<(&str, &str)> {
        self.meta.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

impl Worker {
    /// Loads a copy of the module, so that each test has an instance of its own, attaches it and runs each `init`.
    pub(crate) fn load(path: &Path) -> Self {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let copy =
            path.with_extension(format!("{}-{}", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed)));
        std::fs::copy(path, &copy).unwrap();
        // SAFETY: the module's initialisers are the standard library's.
        let library = unsafe { Library::new(&copy) }.unwrap();
        std::fs::remove_file(&copy).unwrap();
        // SAFETY: the symbol is a `Module` by the ABI.
        let module = unsafe { library.get::<*const Module>(MODULE_SYMBOL) }.unwrap();
        // SAFETY: the library is never unloaded, below.
        let module = unsafe { &**module };
        std::mem::forget(library);
        assert_eq!((module.magic, module.abi_version), (MODULE_MAGIC, ABI_VERSION));
        ARENA.with_borrow_mut(|arena| arena.memory = vec![0xaa; ARENA_BYTES]);
        let mut runtime = Box::new(Runtime {
            abi_version: ABI_VERSION,
            pending: AtomicU32::new(0),
            call: ptr::null_mut(),
            alloc,
            dealloc,
            realloc,
            reserve,
            checkpoint,
            message_len: 0,
            reserved: 0,
            message: [0; MESSAGE_BYTES],
            worker: ptr::null_mut(),
        });
        RUNTIME.set(&raw mut *runtime);
        // SAFETY: the runtime is boxed and lives as long as the worker, and is used by this thread alone.
        unsafe { (module.attach)(&raw mut *runtime) };
        let worker = Self { module, runtime, out_capacity: 4096, deadline_ns: u64::MAX, flags: 0 };
        for function in worker.functions() {
            if let Some(init) = function.init {
                // SAFETY: attached, once.
                assert_eq!(unsafe { init() }, OUTCOME_OK, "{}", worker.message());
            }
        }
        worker
    }

    fn functions(&self) -> &'static [Function] {
        // SAFETY: by the ABI.
        unsafe { std::slice::from_raw_parts(self.module.functions, self.module.function_count as usize) }
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        let name = |function: &Function| {
            // SAFETY: by the ABI.
            let name = unsafe { std::slice::from_raw_parts(function.name, function.name_len) };
            str::from_utf8(name).unwrap()
        };
        self.functions().iter().map(name).collect()
    }

    pub(crate) fn message(&self) -> &str {
        str::from_utf8(&self.runtime.message[..self.runtime.message_len as usize]).unwrap()
    }

    /// What `Runtime::pending` is, and what a checkpoint answers.
    pub(crate) fn pending(&mut self, pending: u32, answer: u32) {
        self.runtime.pending.store(pending, Ordering::Relaxed);
        CHECKPOINT.set(answer);
    }

    pub(crate) fn arena_taken(&self) -> usize {
        ARENA.with_borrow(|arena| arena.taken)
    }

    pub(crate) fn arena_blocks(&self) -> usize {
        ARENA.with_borrow(|arena| arena.blocks)
    }

    pub(crate) fn call(&mut self, name: &str, body: &[u8], pairs: &[(&str, &str)]) -> Answer {
        let index = self.names().iter().position(|&n| n == name).expect("the function exists");
        let mut meta = vec![0; encoded_len(pairs.iter().copied())];
        let mut encoder = Encoder::new(&mut meta);
        for (name, value) in pairs {
            encoder.push(name, value).unwrap();
        }
        OUT.with_borrow_mut(|out| *out = vec![u64::MAX; self.out_capacity.div_ceil(8)]);
        let mut call = Call {
            body: body.as_ptr(),
            body_len: body.len(),
            meta: meta.as_ptr(),
            meta_len: meta.len(),
            out: OUT.with_borrow_mut(|out| out.as_mut_ptr().cast()),
            out_capacity: self.out_capacity,
            out_body_len: usize::MAX,
            out_meta_len: usize::MAX,
            deadline_ns: self.deadline_ns,
            flags: self.flags,
        };
        let call_pointer = &raw mut call;
        self.runtime.call = call_pointer;
        RUNTIME.set(&raw mut *self.runtime);
        // SAFETY: the call and what it points to live until the entry has returned.
        let outcome = unsafe { (self.functions()[index].call)(call_pointer) };
        self.runtime.call = ptr::null_mut();
        let meta_start = call.out_body_len.next_multiple_of(META_ALIGN);
        let end = if call.out_meta_len == 0 { call.out_body_len } else { meta_start + call.out_meta_len };
        assert!(end <= call.out_capacity, "{end} bytes in a buffer of {}", call.out_capacity);
        // SAFETY: the buffer holds `out_capacity` bytes.
        let out = unsafe { std::slice::from_raw_parts(call.out, end) };
        let meta = Pairs::parse(out.get(meta_start..).unwrap_or_default()).unwrap();
        Answer {
            outcome,
            body: out[..call.out_body_len].to_vec(),
            meta: meta.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

unsafe extern "C" fn alloc(size: usize, align: usize, zeroed: u32) -> *mut u8 {
    ARENA.with_borrow_mut(|arena| {
        assert!(align.is_power_of_two());
        let base = arena.memory.as_mut_ptr();
        let start = (base.addr() + arena.used).next_multiple_of(align) - base.addr();
        arena.used = start + size;
        arena.taken += size;
        arena.blocks += 1;
        let block = &mut arena.memory[start..start + size];
        if zeroed != 0 {
            block.fill(0);
        }
        block.as_mut_ptr()
    })
}

unsafe extern "C" fn dealloc(block: *mut u8, size: usize, align: usize) {
    ARENA.with_borrow(|arena| {
        let from = arena.memory.as_ptr().addr();
        assert!((from..=from + ARENA_BYTES - size).contains(&block.addr()), "freed what is not of the arena");
        assert!(block.addr().is_multiple_of(align), "freed with another alignment");
    });
}

unsafe extern "C" fn realloc(block: *mut u8, old: usize, align: usize, new: usize) -> *mut u8 {
    // SAFETY: it takes anything.
    let moved = unsafe { alloc(new, align, 0) };
    // SAFETY: both are blocks of the arena, of these sizes, and do not overlap.
    unsafe { ptr::copy_nonoverlapping(block, moved, old.min(new)) };
    moved
}

/// Always moves the buffer, so that a pointer kept across it is found out.
unsafe extern "C" fn reserve(total: usize) {
    // SAFETY: called on the thread of the worker that set it, whose runtime is alive.
    let call = unsafe { (*RUNTIME.get()).call };
    // SAFETY: called during a call; the module holds no reference to it.
    let call = unsafe { &mut *call };
    assert!(total > call.out_capacity, "asked for less than there is");
    let mut larger = vec![u64::MAX; total.div_ceil(8)];
    // `usize::MAX` until something was written.
    let written = if call.out_body_len > call.out_capacity { 0 } else { call.out_body_len };
    // SAFETY: both hold as many bytes.
    unsafe { ptr::copy_nonoverlapping(call.out, larger.as_mut_ptr().cast(), written) };
    call.out = larger.as_mut_ptr().cast();
    call.out_capacity = total;
    OUT.with_borrow_mut(|out| {
        out.fill(0);
        *out = larger;
    });
}

unsafe extern "C" fn checkpoint() -> u32 {
    CHECKPOINT.get()
}
