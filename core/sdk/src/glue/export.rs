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
            const _: () = assert!(names_are_distinct::<{ DEFS.len() }>(NAMES), "two functions have the same name");

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
        $crate::__define_c_environment!();
        $crate::__define_c_functions!(
            malloc = libc_memory::malloc,
            calloc = libc_memory::calloc,
            free = libc_memory::free,
            realloc = libc_memory::realloc,
            reallocarray = libc_memory::reallocarray,
            posix_memalign = libc_memory::posix_memalign,
            aligned_alloc = libc_memory::aligned_alloc,
            memalign = libc_memory::memalign,
            valloc = libc_memory::valloc,
            pvalloc = libc_memory::pvalloc,
            malloc_usable_size = libc_memory::malloc_usable_size,
            strdup = libc_memory::strdup,
            __strdup = libc_memory::strdup,
            strndup = libc_memory::strndup,
            __strndup = libc_memory::strndup,
            __cxa_thread_atexit_impl = libc_memory::__cxa_thread_atexit_impl,
            pthread_key_create = libc_threads::key_create,
            tss_create = libc_threads::key_create,
            pthread_key_delete = libc_threads::key_delete,
            tss_delete = libc_threads::key_delete,
            pthread_setspecific = libc_threads::set_specific,
            tss_set = libc_threads::set_specific,
            pthread_getspecific = libc_threads::get_specific,
            tss_get = libc_threads::get_specific,
            gmtime_r = libc_time::gmtime_r,
            localtime_r = libc_time::localtime_r,
            gmtime = libc_time::localtime,
            localtime = libc_time::localtime,
            mktime = libc_time::mktime,
            timelocal = libc_time::mktime,
            timegm = libc_time::mktime,
            rand = libc_time::random,
            random = libc_time::random,
            srand = libc_time::seed,
            srandom = libc_time::seed,
            abort = libc_process::abort,
            __assert_fail = libc_process::abort,
            __assert_perror_fail = libc_process::abort,
            __stack_chk_fail = libc_process::abort,
            __chk_fail = libc_process::abort,
            exit = libc_process::exit,
            quick_exit = libc_process::exit,
            _Exit = libc_process::exit,
            pthread_exit = libc_process::exit,
            thrd_exit = libc_process::exit,
            fork = libc_process::fork,
            _Fork = libc_process::fork,
            vfork = libc_process::fork,
            system = libc_process::fork,
            posix_spawn = libc_process::spawn,
            posix_spawnp = libc_process::spawn,
            pidfd_spawn = libc_process::spawn,
            pidfd_spawnp = libc_process::spawn,
            pthread_create = libc_process::spawn,
            thrd_create = libc_process::spawn,
            posix_spawn_file_actions_init = libc_process::nothing,
            posix_spawn_file_actions_destroy = libc_process::nothing,
            posix_spawn_file_actions_addopen = libc_process::nothing,
            posix_spawn_file_actions_addclose = libc_process::nothing,
            posix_spawn_file_actions_adddup2 = libc_process::nothing,
            posix_spawn_file_actions_addchdir = libc_process::nothing,
            posix_spawn_file_actions_addchdir_np = libc_process::nothing,
            posix_spawn_file_actions_addfchdir = libc_process::nothing,
            posix_spawn_file_actions_addfchdir_np = libc_process::nothing,
            posix_spawn_file_actions_addclosefrom_np = libc_process::nothing,
            posix_spawn_file_actions_addtcsetpgrp_np = libc_process::nothing,
            getaddrinfo = libc_process::getaddrinfo,
            getnameinfo = libc_process::getaddrinfo,
            gethostbyname = libc_process::no_socket,
            gethostbyname2 = libc_process::no_socket,
            gethostbyaddr = libc_process::no_socket,
            getservbyname = libc_process::no_socket,
            getservbyport = libc_process::no_socket,
            getprotobyname = libc_process::no_socket,
            openlog = libc_process::no_socket,
            syslog = libc_process::no_socket,
            vsyslog = libc_process::no_socket,
            getpwnam_r = libc_process::no_entry,
            getpwuid_r = libc_process::no_entry,
            getgrnam_r = libc_process::no_entry,
            getgrgid_r = libc_process::no_entry,
            pthread_getattr_np = libc_process::no_entry,
            getpwnam = libc_process::no_file,
            getpwuid = libc_process::no_file,
            getgrnam = libc_process::no_file,
            getgrgid = libc_process::no_file,
            realpath = libc_process::no_file,
            canonicalize_file_name = libc_process::no_file,
            getcwd = libc_process::getcwd,
            get_current_dir_name = libc_process::getcwd,
            fopen = libc_process::no_file,
            fopen64 = libc_process::no_file,
            freopen = libc_process::no_file,
            freopen64 = libc_process::no_file,
            tmpfile = libc_process::no_file,
            tmpfile64 = libc_process::no_file,
            popen = libc_process::no_file,
            dlopen = libc_process::no_file,
            dlmopen = libc_process::no_file,
            open_memstream = libc_process::no_stream,
            open_wmemstream = libc_process::no_stream,
            fmemopen = libc_process::no_stream,
            fopencookie = libc_process::no_stream,
            write = libc_process::write,
            printf = libc_process::no_output,
            vprintf = libc_process::no_output,
            fprintf = libc_process::no_output,
            vfprintf = libc_process::no_output,
            dprintf = libc_process::no_output,
            vdprintf = libc_process::no_output,
            puts = libc_process::no_output,
            fputs = libc_process::no_output,
            putchar = libc_process::no_output,
            fputc = libc_process::no_output,
            putc = libc_process::no_output,
            fwrite = libc_process::no_output,
            perror = libc_process::no_output,
            __printf_chk = libc_process::no_output,
            __vprintf_chk = libc_process::no_output,
            __fprintf_chk = libc_process::no_output,
            __vfprintf_chk = libc_process::no_output,
            __overflow = libc_process::no_output,
            getline = libc_process::no_input,
            getdelim = libc_process::no_input,
            __getdelim = libc_process::no_input,
            fgets = libc_process::no_input,
            fgetc = libc_process::no_input,
            getc = libc_process::no_input,
            getchar = libc_process::no_input,
            fread = libc_process::no_input,
            __uflow = libc_process::no_input,
            getenv = libc_process::getenv,
            secure_getenv = libc_process::getenv,
            putenv = libc_process::setenv,
            setenv = libc_process::setenv,
            unsetenv = libc_process::nothing,
            clearenv = libc_process::nothing,
            fflush = libc_process::nothing,
            tzset = libc_process::nothing,
            __res_init = libc_process::nothing,
            dlclose = libc_process::nothing,
            __cxa_atexit = libc_process::nothing,
            __cxa_at_quick_exit = libc_process::nothing,
            on_exit = libc_process::nothing,
            __register_atfork = libc_process::nothing,
            dlsym = libc_process::dlsym,
            dlvsym = libc_process::dlsym,
            dlerror = libc_process::dlerror,
            __xpg_strerror_r = libc_process::strerror_r,
        );
    };
}

/// Defines the C library's variables for the environment, in the module: an empty one. Else a call that is about to become another program has the process's point into its own heap.
#[doc(hidden)]
#[macro_export]
macro_rules! __define_c_environment {
    () => {
        ::core::arch::global_asm!(
            ".pushsection .bss.microfaas_environ,\"aw\",@nobits",
            ".globl environ, __environ, _environ",
            ".hidden environ, __environ, _environ",
            ".type environ, @object",
            ".size environ, 8",
            ".balign 8",
            "environ:",
            "__environ:",
            "_environ:",
            ".zero 8",
            ".popsection",
        );
    };
}

/// Defines C symbols that jump to functions of [`libc_memory`](super::libc_memory), [`libc_threads`](super::libc_threads), [`libc_time`](super::libc_time) and [`libc_process`](super::libc_process), in assembly: the compiler exports
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
