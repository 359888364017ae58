//! Functions that are stopped where it hurts most, and functions that notice when something of another call is left or missing.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use microfaas::{Error, checkpoint};

/// Never returns; the body says where it spends its time.
#[microfaas::function]
pub fn runaway(body: &[u8]) -> Result<Vec<u8>, Error> {
    run_away(body)
}

/// As `runaway`, for a second set of limits.
#[microfaas::function]
pub fn runaway_too(body: &[u8]) -> Result<Vec<u8>, Error> {
    run_away(body)
}

fn run_away(body: &[u8]) -> Result<Vec<u8>, Error> {
    match body {
        b"leaf" => {
            let mut n = 1u64;
            loop {
                n = black_box(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
        b"alloc" => {
            let mut kept: Vec<Vec<u8>> = vec![Vec::new(); 64];
            let mut n = 88_172_645_463_325_252u64;
            loop {
                n ^= n << 13;
                n ^= n >> 7;
                n ^= n << 17;
                kept[(n % 64) as usize] = vec![1; (n >> 8) as usize % 3000 + 1];
                black_box(&mut kept[(n >> 40) as usize % 64]).reserve_exact((n >> 20) as usize % 5000);
            }
        }
        b"format" => {
            // The lock is held whenever the call is stopped, and so is open for the next one only if statics are put back.
            static LOCK: Mutex<String> = Mutex::new(String::new());
            let mut text = LOCK.try_lock().map_err(|_| Error::new("a lock that another call has left"))?;
            for i in 0u64.. {
                text.clear();
                write!(text, "{i:>20}|{:e}|{:?}", i as f64 / 3.0, body)
                    .map_err(|_| Error::new("formatting"))?;
            }
            Err(Error::new("ended"))
        }
        b"recurse" => {
            fn down(depth: u32) -> u64 {
                let frame = black_box([depth; 16]);
                if depth < 2000 {
                    down(depth + 1).wrapping_add(u64::from(frame[3]))
                } else {
                    u64::from(frame[2])
                }
            }
            loop {
                black_box(down(0));
            }
        }
        b"clock" => {
            let start = Instant::now();
            while black_box(start.elapsed()) < Duration::from_secs(3600) {}
            Err(Error::new("an hour has passed"))
        }
        b"copy" => {
            // Of a size that is there at once, so that a call of a few microseconds gets to copying.
            let (from, mut to) = (vec![1u8; 32 << 10], vec![0u8; 32 << 10]);
            loop {
                black_box(&mut to).copy_from_slice(black_box(&from));
            }
        }
        b"panic" => loop {
            let caught = std::panic::catch_unwind(|| panic!("{}", black_box("once more")));
            if caught.is_ok() {
                return Err(Error::new("a panic that did not happen"));
            }
        },
        b"state" => loop {
            WORDS.with_borrow_mut(|words| words.push(String::from("word")));
            if WORDS.with_borrow(Vec::len) > 1000 {
                WORDS.with_borrow_mut(Vec::clear);
            }
        },
        b"drop" => {
            struct Endless;
            impl Drop for Endless {
                fn drop(&mut self) {
                    loop {
                        black_box(0);
                    }
                }
            }
            drop(Endless);
            Err(Error::new("it ended"))
        }
        b"swallow" => loop {
            // Catches what a safe point throws, and goes on.
            let _ = std::panic::catch_unwind(|| {
                loop {
                    checkpoint();
                }
            });
        },
        _ => Err(Error::new("no such place")),
    }
}

thread_local! {
    static WORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static LOCAL: Cell<u64> = const { Cell::new(0) };
}

static GLOBAL: AtomicU64 = AtomicU64::new(0);
static TEXT: Mutex<String> = Mutex::new(String::new());

/// What `init` makes: something behind a lock, on the heap.
#[derive(Debug)]
pub struct Table {
    words: Mutex<HashMap<u64, String>>,
    count: AtomicU64,
}

/// The `init` of `witness`.
pub fn fill() -> Table {
    let words = (0..100).map(|i| (i, format!("word {i}"))).collect();
    Table { words: Mutex::new(words), count: AtomicU64::new(0) }
}

/// Body: a number, and microseconds. Writes the number wherever a call can write, over and over for that time, and fails when it finds anything
/// that it has not written itself.
#[microfaas::function(init = fill)]
pub fn witness(table: &Table, body: &[u8]) -> Result<String, Error> {
    let (number, micros) = two_numbers(body)?;
    let start = Instant::now();
    let clean = GLOBAL.load(Ordering::Relaxed) == 0
        && LOCAL.get() == 0
        && TEXT.try_lock().is_ok_and(|text| text.is_empty())
        && WORDS.with_borrow(Vec::is_empty)
        && table.count.load(Ordering::Relaxed) == 0
        && table.words.try_lock().is_ok_and(|words| {
            words.len() == 100 && words.iter().all(|(i, word)| *word == format!("word {i}"))
        });
    if !clean {
        return Err(Error::new("something was there before the call"));
    }
    let mut rounds = 0u64;
    let mut sums = [1.0f64, 1.5, 2.25, 3.125, 4.0625, 5.5, 6.75, 7.875];
    while start.elapsed() < Duration::from_micros(micros) || rounds < 3 {
        rounds += 1;
        let mark = number.wrapping_mul(1_000_003).wrapping_add(rounds);
        GLOBAL.store(mark, Ordering::Relaxed);
        LOCAL.set(mark);
        table.count.store(mark, Ordering::Relaxed);
        let mut words = table.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.insert(mark % 50, mark.to_string());
        *TEXT.lock().unwrap_or_else(PoisonError::into_inner) = mark.to_string();
        WORDS.with_borrow_mut(|words| {
            words.truncate(20);
            words.push(mark.to_string());
        });
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = (*sum * 1.000_1 + (mark % 7) as f64 / 3.0).sqrt() + i as f64;
        }
        let mine = mark.to_string();
        let same = GLOBAL.load(Ordering::Relaxed) == mark
            && LOCAL.get() == mark
            && table.count.load(Ordering::Relaxed) == mark
            && words.get(&(mark % 50)).is_some_and(|word| *word == mine)
            && *TEXT.lock().unwrap_or_else(PoisonError::into_inner) == mine
            && WORDS.with_borrow(|words| words.last() == Some(&mine));
        if !same {
            return Err(Error::new(format!("call {number} found something of another in round {rounds}")));
        }
    }
    black_box(sums);
    Ok(format!("{number} {rounds}"))
}

/// Keeps the core busy for so many microseconds, then ends the process by the library's function of that code: 0 is `abort`, any other `exit`.
#[microfaas::function]
pub fn end(body: &[u8]) -> Result<Vec<u8>, Error> {
    let (code, micros) = two_numbers(body)?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    if code == 0 {
        std::process::abort();
    }
    std::process::exit(i32::try_from(code).unwrap_or(1))
}

/// Body: a seed, and how many rounds. The bits of a sum that depends on all lanes and on the order of operations.
#[microfaas::function]
pub fn compute(body: &[u8]) -> Result<String, Error> {
    let (seed, rounds) = two_numbers(body)?;
    let mut lanes = [1.0f64, 1.1, 1.3, 1.7, 2.1, 2.3, 2.9, 3.1].map(|lane| lane + seed as f64);
    for round in 0..rounds {
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = (*lane * 1.000_000_1 + (round & 7) as f64 / 3.0).sqrt() + i as f64;
        }
    }
    Ok(format!("{:016x}", lanes.iter().sum::<f64>().to_bits()))
}

/// Body: a word, and microseconds. Adds the word to a list in a static, keeps busy for that time, and returns the list. For a function whose state is kept.
#[microfaas::function]
pub fn remember(body: &[u8]) -> Result<String, Error> {
    static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let text = String::from_utf8_lossy(body);
    let (word, micros) = text.split_once(' ').ok_or_else(|| Error::new("the body is no word and number"))?;
    let micros = micros.parse().map_err(|_| Error::new("no number"))?;
    let before = CALLS.load(Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        black_box(0);
    }
    // Lost where another call has come between.
    CALLS.store(before + 1, Ordering::Relaxed);
    let mut kept = KEPT.try_lock().map_err(|_| Error::new("locked by another call"))?;
    kept.push(word.to_owned());
    Ok(format!("{} {}", before + 1, kept.join(" ")))
}

fn two_numbers(body: &[u8]) -> Result<(u64, u64), Error> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let numbers = text.split_once(' ').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    numbers.ok_or_else(|| Error::new("the body is not two numbers").with_status(400))
}
