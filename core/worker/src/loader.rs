//! Loads a module: from a sealed memfd to an [`Instance`] and the entries of its functions.
//!
//! The one seam for loading. Here it is the system's loader, through `libloading`; [`loading`] opens the library by its descriptor, so
//! nothing on disk can change under it.
#![expect(unsafe_code, reason = "runs and reads a loaded library")]

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use libloading::os::unix::Library;
use microfaas_abi::{
    self as abi, Function, MODULE_MAGIC, MODULE_SYMBOL, Module, OUTCOME_OK, Outcome, Runtime,
};
use microfaas_control::{FunctionSpec, Load};
use microfaas_preempt::contain::Fault;
use microfaas_preempt::{Ending, Entry, Exit, timer};
use microfaas_sys::clock::cycles;

use crate::arena::Arena;
use crate::context::Context;
use crate::descriptor::Received;
use crate::host_calls::{LEFT_OOM, State};
use crate::instance::{Heap, Instance, WRITABLE_BYTES_MAX, Writable};
use crate::sandbox::{betrays, denied_call, loading};
use crate::thread_locals;

/// What `attach` and each `init` may take: about ten seconds at 3 GHz.
const INIT_CYCLES_MAX: u64 = 30_000_000_000;

/// Why a module was refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// A system call failed.
    Io(&'static str, io::Error),
    /// The system's loader refused it.
    Open(String),
    /// It is no module.
    NoModule,
    /// It was built for another ABI version.
    AbiVersion(u32),
    /// Its table does not have this function.
    Missing(String),
    /// Some of its functions keep their state and others do not: a call of these would put back what a suspended one of those has there.
    Mixed,
    /// A function's `init` failed, in this way.
    Init(String, String),
    /// A function's `init` did what no safe code does, in this way: the worker's memory cannot be trusted any more.
    Unsafe(String, String),
    /// It has this many writable bytes.
    Writable(usize),
    /// It takes as many bytes by itself as the first, of which there may be no more than the second.
    Room(u64, u64),
    /// It was called, and is not wanted any more.
    Unwanted,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Open(reason) => write!(f, "the loader refuses it: {reason}"),
            Self::NoModule => write!(f, "it is no microfaas module"),
            Self::AbiVersion(v) => {
                write!(
                    f,
                    "it was built for module ABI {v}, this worker has {}; build it again",
                    abi::ABI_VERSION
                )
            }
            Self::Missing(name) => write!(f, "its table has no function {name}"),
            Self::Mixed => write!(f, "some of its functions keep their state and others do not"),
            Self::Init(name, how) | Self::Unsafe(name, how) => write!(f, "init of {name}: {how}"),
            Self::Room(bytes, max) => {
                write!(f, "it takes {bytes} bytes when it is loaded, allowed are {max} (modules_bytes_max)")
            }
            Self::Unwanted => write!(f, "another version is in its place"),
            Self::Writable(n) => {
                write!(
                    f,
                    "it has {n} writable bytes (data, bss, thread-locals), allowed are {WRITABLE_BYTES_MAX}"
                )
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    /// Whether the worker must not go on.
    #[must_use]
    pub fn betrays(&self) -> bool {
        matches!(self, Self::Unsafe(..))
    }
}

/// A function's entry, as the dispatch table has it.
type CallEntry = unsafe extern "C" fn(*mut abi::Call) -> Outcome;

/// A loaded module: its instance, and for each function of the request its entry.
#[derive(Debug)]
pub struct Loaded {
    /// The one copy of its state.
    pub instance: Instance,
    /// Number in the node and entry.
    pub entries: Vec<(u32, Entry)>,
}

/// Loads a module and runs its `init` functions on the context's stack, with an arena of `init_bytes` that stays theirs. `serial` is another for each load of
/// the worker's life.
///
/// # Errors
/// [`LoadError`]; the worker is as it was.
pub fn load(
    fd: Received,
    request: &Load,
    serial: u32,
    context: &mut Context,
    state: NonNull<State>,
    init_bytes: usize,
) -> Result<Loaded, LoadError> {
    let loaded = try_load(fd, request, serial, context, state, init_bytes);
    if loaded.is_err() {
        // The library has gone again.
        thread_locals::settle();
    }
    loaded
}

fn try_load(
    fd: Received,
    request: &Load,
    serial: u32,
    context: &mut Context,
    state: NonNull<State>,
    init_bytes: usize,
) -> Result<Loaded, LoadError> {
    let stateful = keeps_state(&request.functions)?;
    let library = loading::open(fd, serial)?;
    let module = head(&library)?;
    let writable = || Writable::of_module_at(std::ptr::from_ref(module).addr());
    // Before its code runs, or the system's loader makes its thread-locals.
    check_size(&writable())?;
    writable().make_thread_locals();
    let table = functions(module);
    let find = |name: &str| table.iter().find(|f| function_name(f) == Some(name));
    let mut wanted = Vec::new();
    for spec in &request.functions {
        let function = find(&spec.name).filter(|function| has_entry(function));
        let function = function.ok_or_else(|| LoadError::Missing(spec.name.clone()))?;
        wanted.push((spec, function));
    }
    let arena = Arena::new(init_bytes).map_err(|e| LoadError::Io("cannot reserve memory for init", e))?;
    let mut nursery = Nursery { context, state, arena };
    nursery.attach(module)?;
    for (spec, function) in &wanted {
        nursery.init(&spec.name, function)?;
    }
    let entries = wanted.iter().map(|(spec, function)| (spec.function, entry_of(function))).collect();
    let writable = writable();
    let heap = Heap::new(nursery.arena, stateful)
        .map_err(|e| LoadError::Io("cannot protect the heap of init", e))?;
    // SAFETY: the library was attached and initialised above, and runs only in calls.
    let instance = unsafe { Instance::capture(library, &writable, heap) };
    Ok(Loaded { instance, entries })
}

fn check_size(writable: &Writable) -> Result<(), LoadError> {
    match writable.bytes() {
        bytes if bytes > WRITABLE_BYTES_MAX => Err(LoadError::Writable(bytes)),
        _ => Ok(()),
    }
}

/// Whether the instance of these functions keeps its state: one that does is [held](Instance::is_held) while a call is suspended, which goes for all of them or for none.
fn keeps_state(functions: &[FunctionSpec]) -> Result<bool, LoadError> {
    let stateful = functions.iter().filter(|spec| spec.limits.stateful).count();
    if stateful > 0 && stateful < functions.len() { Err(LoadError::Mixed) } else { Ok(stateful > 0) }
}

/// Whether a function's entry is there, which is for the module's maker to see to. What stands there is looked at as a number: a pointer to a function is never null.
fn has_entry(function: &Function) -> bool {
    let entry = (&raw const function.call).cast::<usize>();
    // SAFETY: as large and aligned as a pointer, and initialised, in a table that does not change.
    unsafe { entry.read() != 0 }
}

fn entry_of(function: &Function) -> Entry {
    // SAFETY: function pointers that differ only in the type that a pointer argument points to are compatible.
    unsafe { std::mem::transmute::<CallEntry, Entry>(function.call) }
}

/// The head of a library's table, if it is a module.
fn head(library: &Library) -> Result<&Module, LoadError> {
    // SAFETY: the symbol's type is checked below by its magic.
    let symbol = unsafe { library.get::<*const Module>(MODULE_SYMBOL) }.map_err(|_| LoadError::NoModule)?;
    let module: *const Module = *symbol;
    if module.is_null() || !module.is_aligned() {
        return Err(LoadError::NoModule);
    }
    // SAFETY: the symbol points into the library's data; the first word is there whatever it is.
    let magic = unsafe { (*module).magic };
    if magic != MODULE_MAGIC {
        return Err(LoadError::NoModule);
    }
    // SAFETY: whatever the version, a module's second word is its version.
    let version = unsafe { (*module).abi_version };
    if version != abi::ABI_VERSION {
        return Err(LoadError::AbiVersion(version));
    }
    // SAFETY: magic and version say that it is a `Module` of this layout; it is immutable, and mapped as long as the library.
    Ok(unsafe { &*module })
}

fn functions(module: &Module) -> &[Function] {
    if module.functions.is_null() {
        return &[];
    }
    // SAFETY: by the ABI the table has that many entries, and is immutable.
    unsafe { std::slice::from_raw_parts(module.functions, module.function_count as usize) }
}

fn function_name(function: &Function) -> Option<&str> {
    // SAFETY: by the ABI the name has that many bytes, and is immutable.
    let bytes = unsafe { std::slice::from_raw_parts(function.name, function.name_len) };
    std::str::from_utf8(bytes).ok()
}

/// Where a module's first code runs.
struct Nursery<'a> {
    context: &'a mut Context,
    state: NonNull<State>,
    arena: Arena,
}

impl Nursery<'_> {
    fn attach(&mut self, module: &Module) -> Result<(), LoadError> {
        unsafe extern "C" fn entry(argument: *mut c_void) -> u32 {
            // SAFETY: `argument` is the pair below, alive for the run.
            let (module, runtime) = unsafe { &*argument.cast::<(&Module, *mut Runtime)>() };
            // SAFETY: the ABI's `attach`, called once, with a runtime that lives for ever.
            unsafe { (module.attach)(*runtime) };
            OUTCOME_OK
        }
        // SAFETY: the state lives for ever.
        let runtime = unsafe { &raw mut (*self.state.as_ptr()).runtime };
        let mut argument = (module, runtime);
        self.run("the module", entry, (&raw mut argument).cast())
    }

    fn init(&mut self, name: &str, function: &Function) -> Result<(), LoadError> {
        unsafe extern "C" fn entry(argument: *mut c_void) -> u32 {
            // SAFETY: `argument` is the function pointer below, alive for the run.
            let init = unsafe { *argument.cast::<unsafe extern "C" fn() -> Outcome>() };
            // SAFETY: the ABI's `init`, called once, after `attach`.
            unsafe { init() }
        }
        let Some(mut init) = function.init else { return Ok(()) };
        self.run(name, entry, (&raw mut init).cast())
    }

    fn run(&mut self, name: &str, entry: Entry, argument: *mut c_void) -> Result<(), LoadError> {
        timer::limit(cycles().saturating_add(INIT_CYCLES_MAX));
        // SAFETY: the entries take the arguments they are given; what they leave half done is in a module that is then not used.
        let exit = unsafe { self.context.start_apart(self.state, &mut self.arena, entry, argument) };
        timer::limit(u64::MAX);
        let betrayed = matches!(exit, Exit::Ended(Ending::Fault(fault)) if betrays(fault));
        let how = match exit {
            Exit::Returned(OUTCOME_OK) => return Ok(()),
            // SAFETY: no code of the module runs now.
            Exit::Returned(_) => unsafe { self.state.as_ref() }.message().to_owned(),
            Exit::Ended(Ending::HostCall(LEFT_OOM)) => "out of memory (see init_bytes)".to_owned(),
            Exit::Ended(Ending::HostCall(code)) => format!("ended by host call {code}"),
            Exit::Ended(Ending::Fault(Fault::SystemCall)) => {
                format!("forbidden system call {} (SIGSYS)", denied_call().name())
            }
            Exit::Ended(Ending::Fault(fault)) => fault.describe().to_owned(),
            Exit::Suspended(_) => "it takes too long".to_owned(),
        };
        let error = if betrayed { LoadError::Unsafe } else { LoadError::Init };
        Err(error(name.to_owned(), how))
    }
}

#[cfg(test)]
mod tests {
    use microfaas_control::Limits;

    use super::*;

    #[test]
    fn all_functions_of_an_instance_keep_their_state_or_none_does() {
        let spec = |stateful: &bool| FunctionSpec {
            function: 0,
            name: "f".to_owned(),
            aliases: Vec::new(),
            limits: Limits { stateful: *stateful, ..Limits::default() },
        };
        let of = |stateful: &[bool]| keeps_state(&stateful.iter().map(spec).collect::<Vec<_>>());
        assert!(matches!(of(&[true, true]), Ok(true)));
        assert!(matches!(of(&[false, false]), Ok(false)));
        assert!(matches!(of(&[false, true]), Err(LoadError::Mixed)));
        assert!(matches!(of(&[true, false]), Err(LoadError::Mixed)));
    }
}
