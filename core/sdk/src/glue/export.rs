//! What makes a shared library a module.

/// Exports functions from a shared library. For the shim crate that `microfaas build` generates, once in it:
/// it takes the process's memory functions over inside that library, and the ways to end the process.
///
/// ```ignore
/// microfaas::export_module!([my_crate::__microfaas_hello, my_crate::admin::__microfaas_stop]);
/// ```
///
/// It defines the exported table `microfaas_module`, the note in `.note.microfaas`, the global allocator, and
/// local definitions of the C library's functions that calls would share state by.
#[macro_export]
macro_rules! export_module {
    ([$($def:path),+ $(,)?]) => {
        const _: () = {
            use $crate::__private::{abi, attach, names_are_distinct, run_call, run_init, ModuleAllocator, Note};

            const DEFS: &[$crate::FunctionDef] = &[$($def),+];
            const NAMES: &[&str] = &[$({ const DEF: $crate::FunctionDef = $def; DEF.name }),+];
            const NOTE_BYTES: usize = abi::manifest::encoded_len(NAMES);
            const _: () = assert!(names_are_distinct(NAMES), "two functions have the same name");

            #[used]
            #[unsafe(link_section = ".note.microfaas")]
            static NOTE: Note<NOTE_BYTES> = Note(abi::manifest::encode(NAMES));

            static FUNCTIONS: [abi::Function; DEFS.len()] = [$({
                const DEF: $crate::FunctionDef = $def;
                extern "C" fn init() -> abi::Outcome {
                    const INIT: fn() -> ::core::result::Result<(), $crate::Error> = match DEF.init {
                        ::core::option::Option::Some(init) => init,
                        ::core::option::Option::None => || ::core::result::Result::Ok(()),
                    };
                    run_init(INIT)
                }
                unsafe extern "C" fn call(call: *mut abi::Call) -> abi::Outcome {
                    const CALL: fn(&$crate::__private::Invocation<'_>) -> abi::Outcome = DEF.call;
                    // SAFETY: the worker passes the current call, as the ABI says.
                    unsafe { run_call(call, CALL) }
                }
                abi::Function {
                    name: DEF.name.as_ptr(),
                    name_len: DEF.name.len(),
                    init: match DEF.init {
                        ::core::option::Option::Some(_) => ::core::option::Option::Some(init),
                        ::core::option::Option::None => ::core::option::Option::None,
                    },
                    call,
                }
            }),+];

            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals, reason = "the name is the contract's")]
            pub static microfaas_module: abi::Module = abi::Module {
                magic: abi::MODULE_MAGIC,
                abi_version: abi::ABI_VERSION,
                function_count: FUNCTIONS.len() as u32,
                functions: FUNCTIONS.as_ptr(),
                attach,
            };

            #[global_allocator]
            static ALLOCATOR: ModuleAllocator = ModuleAllocator;
        };
        $crate::__define_c_functions!(
            malloc = libc_memory::malloc,
            calloc = libc_memory::calloc,
            free = libc_memory::free,
            realloc = libc_memory::realloc,
            posix_memalign = libc_memory::posix_memalign,
            aligned_alloc = libc_memory::aligned_alloc,
            __cxa_thread_atexit_impl = libc_memory::__cxa_thread_atexit_impl,
            abort = libc_process::abort,
            exit = libc_process::exit,
            quick_exit = libc_process::exit,
            _Exit = libc_process::exit,
            fork = libc_process::fork,
            posix_spawn = libc_process::spawn,
            posix_spawnp = libc_process::spawn,
            pthread_create = libc_process::spawn,
            getaddrinfo = libc_process::getaddrinfo,
            getpwnam_r = libc_process::getpw,
            getpwuid_r = libc_process::getpw,
            realpath = libc_process::realpath,
            putenv = libc_process::setenv,
            setenv = libc_process::setenv,
            unsetenv = libc_process::unsetenv,
            clearenv = libc_process::unsetenv,
            __cxa_atexit = libc_process::register,
            __cxa_at_quick_exit = libc_process::register,
            on_exit = libc_process::register,
            __register_atfork = libc_process::register,
        );
    };
}

/// Defines C symbols that jump to functions of [`libc_memory`](super::libc_memory) and [`libc_process`](super::libc_process), in assembly: the compiler exports
/// from a shared library what Rust code defines under a C name, and these must stay inside.
#[doc(hidden)]
#[macro_export]
macro_rules! __define_c_functions {
    ($($name:ident = $module:ident :: $function:ident,)+) => {$(
        #[cfg(target_arch = "x86_64")]
        ::core::arch::global_asm!(
            concat!(".pushsection .text.microfaas_", stringify!($name), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($name)),
            concat!(".hidden ", stringify!($name)),
            concat!(".type ", stringify!($name), ",@function"),
            concat!(stringify!($name), ":"),
            "jmp {}",
            concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
            ".popsection",
            sym $crate::__private::$module::$function,
        );
        #[cfg(target_arch = "aarch64")]
        ::core::arch::global_asm!(
            concat!(".pushsection .text.microfaas_", stringify!($name), ",\"ax\",@progbits"),
            concat!(".globl ", stringify!($name)),
            concat!(".hidden ", stringify!($name)),
            concat!(".type ", stringify!($name), ",@function"),
            concat!(stringify!($name), ":"),
            "b {}",
            concat!(".size ", stringify!($name), ", . - ", stringify!($name)),
            ".popsection",
            sym $crate::__private::$module::$function,
        );
    )+};
}
