//! Functions that try to get out of the sandbox with nothing but the standard library. Those that must be denied answer `escaped: …` where they are
//! not; the last ones are law-abiding and must work.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use microfaas::Error;

/// What a function that got out, or was told no politely, answers.
fn report<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) -> Result<String, Error> {
    match result {
        Ok(_) => Ok(format!("escaped: {what}")),
        Err(error) => Err(Error::new(format!("refused politely: {error}"))),
    }
}

/// Reads a file.
#[microfaas::function]
pub fn read_file(_: &[u8]) -> Result<String, Error> {
    report("read", std::fs::read("/etc/passwd"))
}

/// Writes its own memory through the file system.
#[microfaas::function]
pub fn write_memory(_: &[u8]) -> Result<String, Error> {
    report("memory", std::fs::OpenOptions::new().read(true).write(true).open("/proc/self/mem"))
}

/// Creates a file.
#[microfaas::function]
pub fn create_file(_: &[u8]) -> Result<String, Error> {
    report("create", std::fs::write("/tmp/microfaas-outlaw", "x"))
}

/// Asks whether a file exists.
#[microfaas::function]
pub fn stat_file(_: &[u8]) -> Result<String, Error> {
    report("stat", std::fs::metadata("/"))
}

/// Lists a directory.
#[microfaas::function]
pub fn list_directory(_: &[u8]) -> Result<String, Error> {
    report("list", std::fs::read_dir("/proc/self/fd"))
}

/// Deletes a file.
#[microfaas::function]
pub fn delete_file(_: &[u8]) -> Result<String, Error> {
    report("delete", std::fs::remove_file("/tmp/microfaas-outlaw"))
}

/// Connects by TCP.
#[microfaas::function]
pub fn tcp_connect(_: &[u8]) -> Result<String, Error> {
    report("connect", TcpStream::connect("127.0.0.1:1"))
}

/// Listens by TCP.
#[microfaas::function]
pub fn tcp_listen(_: &[u8]) -> Result<String, Error> {
    report("listen", TcpListener::bind("127.0.0.1:0"))
}

/// Sends a datagram.
#[microfaas::function]
pub fn udp(_: &[u8]) -> Result<String, Error> {
    report("datagram", UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", "127.0.0.1:9")))
}

/// Makes a pair of sockets.
#[microfaas::function]
pub fn socket_pair(_: &[u8]) -> Result<String, Error> {
    report("pair", UnixStream::pair())
}

/// Listens on a socket in the file system.
#[microfaas::function]
pub fn unix_listen(_: &[u8]) -> Result<String, Error> {
    report("listen", UnixListener::bind("/tmp/microfaas-outlaw.sock"))
}

/// Looks a name up.
#[microfaas::function]
pub fn resolve(_: &[u8]) -> Result<String, Error> {
    report("resolve", "localhost:80".to_socket_addrs())
}

/// Starts a program.
#[microfaas::function]
pub fn spawn(_: &[u8]) -> Result<String, Error> {
    report("spawn", Command::new("/bin/true").status())
}

/// Becomes another program.
#[microfaas::function]
pub fn exec(_: &[u8]) -> Result<String, Error> {
    use std::os::unix::process::CommandExt as _;
    report::<(), _>("exec", Err(Command::new("/bin/true").exec()))
}

/// Starts a thread.
#[microfaas::function]
pub fn thread(_: &[u8]) -> Result<String, Error> {
    report(
        "thread",
        std::thread::Builder::new().spawn(|| {
            loop {
                std::thread::park()
            }
        }),
    )
}

/// Ends the process, with success.
#[microfaas::function]
pub fn exit(_: &[u8]) -> Vec<u8> {
    std::process::exit(0)
}

/// Sleeps for an hour.
#[microfaas::function]
pub fn sleep(_: &[u8]) -> String {
    std::thread::sleep(Duration::from_secs(3600));
    "escaped: slept".to_owned()
}

/// Waits for itself.
#[microfaas::function]
pub fn deadlock(_: &[u8]) -> String {
    static LOCK: Mutex<()> = Mutex::new(());
    let _first = LOCK.lock();
    let _second = LOCK.lock();
    "escaped: locked twice".to_owned()
}

/// Reads standard input.
#[microfaas::function]
pub fn read_input(_: &[u8]) -> Result<String, Error> {
    report("input", std::io::stdin().read(&mut [0; 16]))
}

/// Writes to standard output.
#[microfaas::function]
pub fn write_output(_: &[u8]) -> Result<String, Error> {
    report("output", std::io::stdout().write_all(b"hello\n").and_then(|()| std::io::stdout().flush()))
}

/// Writes to standard error.
#[microfaas::function]
pub fn write_error(_: &[u8]) -> Result<String, Error> {
    report("error", std::io::stderr().write_all(b"hello\n"))
}

/// Goes to another directory.
#[microfaas::function]
pub fn change_directory(_: &[u8]) -> Result<String, Error> {
    report("directory", std::env::set_current_dir("/tmp"))
}

/// Resolves links in the file system.
#[microfaas::function]
pub fn canonical(_: &[u8]) -> Result<String, Error> {
    report("canonical", std::fs::canonicalize("/tmp"))
}

/// Asks who the user is.
#[microfaas::function]
pub fn home(_: &[u8]) -> Result<String, Error> {
    report("home", std::env::home_dir().ok_or("nobody's home"))
}

/// Leaves a variable to whoever comes next.
#[microfaas::function]
pub fn set_variable(_: &[u8]) -> String {
    older::set_variable("MICROFAAS_OUTLAW", "was here");
    "escaped: set".to_owned()
}

/// Law-abiding: the environment, and an unsetting.
#[microfaas::function]
pub fn environment(_: &[u8]) -> String {
    older::remove_variable("MICROFAAS_OUTLAW");
    format!("lawful {:?}", std::env::vars().collect::<Vec<_>>())
}

/// Law-abiding: a hash map with random seeds, which are new ones.
#[microfaas::function]
pub fn hash_map(_: &[u8]) -> String {
    let map: HashMap<u32, u32> = (0..1000).map(|n| (n, n * n)).collect();
    format!("lawful {}", map[&31])
}

/// Law-abiding: clocks.
#[microfaas::function]
pub fn clocks(_: &[u8]) -> Result<String, Error> {
    let now = Instant::now();
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(format!("lawful {}", now.elapsed().as_secs()))
}

/// Law-abiding: more heap than is kept from call to call, so that it is given back.
#[microfaas::function]
pub fn much_heap(_: &[u8]) -> String {
    let mut bytes = vec![1u8; 12 << 20];
    bytes[5] = 2;
    format!("lawful {}", std::hint::black_box(bytes).len())
}
