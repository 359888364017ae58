//! Modules come and go while calls are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::Histogram;
use microfaas_node::{Request, RestartCause, Status};
use nix::sys::stat::Mode;

use crate::load::Load;
use crate::modules::{numbered_answer, numbered_name, put};
use crate::stage::{HEAL, MODULE, OTHER, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::until;

/// Modules that are there at the same time.
const AT_ONCE: u32 = 16;

/// K23. Each call runs wholly on one version; one that was submitted after a deployment never on an older one.
pub(super) fn under_load(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let running = stage.load(&Load::default(), trial);
    std::thread::sleep(trial.time.mul_f64(0.3));
    let before = running.watch().take_times();
    let (mut version, mut took) = (0, Duration::ZERO);
    while !trial.is_over(0.9) {
        version += 1;
        let path = stage.put_version(version, trial)?;
        trial.event();
        let start = Instant::now();
        running.watch().deploy(|| stage.node.deploy(path))?;
        took += start.elapsed();
        running.watch().version.store(version, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(trial.some_time(Duration::from_millis(100)));
        if version.is_multiple_of(5) {
            // Older answers are right again.
            running.watch().version.store(version - 1, std::sync::atomic::Ordering::SeqCst);
            running.watch().deploy(|| stage.node.rollback(MODULE))?;
        }
    }
    let (during, between) = (running.watch().take_times_deploying(), running.watch().take_times());
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let ms = |times: &Histogram<u64>| times.value_at_quantile(quantile) as f64 / 1e6;
        trial.figure(&format!("{name}_before_ms"), ms(&before));
        trial.figure(&format!("{name}_between_ms"), ms(&between));
        trial.figure(&format!("{name}_deploying_ms"), ms(&during));
        trial.figure(&format!("{name}_deploying_share"), ms(&during) / ms(&before).max(1e-6));
    }
    trial.figure("calls_before", before.len() as f64);
    trial.figure("calls_deploying", during.len() as f64);
    trial.expect(!during.is_empty(), || "no call was on its way during a deployment".to_owned());
    trial.figure("deployments", f64::from(version));
    trial.figure("deploy_ms", took.as_secs_f64() * 1000.0 / f64::from(version.max(1)));
    stage.finish(vec![running], trial);
    Ok(())
}

/// K18. What was removed leaves nothing, but for the latest few that the node keeps to bring back.
pub(super) fn many(trial: &mut Trial) -> Result<(), Stop> {
    let mut stage = Stage::start(trial)?;
    let running = stage.load(&Load::default(), trial);
    let first = come_and_go(&stage, trial, 0, |number, _| number >= 2 * AT_ONCE)?;
    stage.measure();
    let last = come_and_go(&stage, trial, first, |_, trial| trial.is_over(0.8))?;
    let left = stage.node.list().len();
    trial.expect(left == 1, || format!("{left} modules are listed where one is left"));
    trial.figure("modules", f64::from(last));
    stage.finish(vec![running], trial);
    Ok(())
}

/// Deploys numbered modules from `after` on, of which [`AT_ONCE`] are there at the same time, calls them, and removes them; the last one's number.
fn come_and_go(
    stage: &Stage,
    trial: &mut Trial,
    after: u32,
    is_enough: impl Fn(u32, &Trial) -> bool,
) -> Result<u32, Stop> {
    let folder = tempfile::tempdir()?;
    let file = |number: u32| format!("{}.so", numbered_name(number));
    let (mut number, mut oldest) = (after, after + 1);
    while number == after || !is_enough(number, trial) {
        number += 1;
        trial.event();
        let path = put(folder.path(), &file(number), &trial.modules.numbered(number))?;
        stage.node.deploy(&path)?;
        fs::remove_file(path)?;
        for number in [number, oldest] {
            let answer = stage.call(numbered_name(number).as_str(), Request::new(b""));
            let right = answer.status == Status::Ok && answer.body == numbered_answer(number);
            trial.expect(right, || {
                format!("{} ended {}: {}", numbered_name(number), answer.status, answer.detail)
            });
        }
        if number - oldest + 1 >= AT_ONCE {
            stage.node.remove(&file(oldest))?;
            oldest += 1;
        }
    }
    for number in oldest..=number {
        stage.node.remove(&file(number))?;
    }
    Ok(number)
}

/// K17. Whatever it is, the node answers what it thinks of it, and what was deployed serves on.
pub(super) fn corrupt(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let running = stage.load(&Load::default(), trial);
    let folder = tempfile::tempdir()?;
    let whole = trial.modules.numbered(1);
    let mut refused = 0;
    for path in special_files(folder.path())? {
        let said = stage.node.deploy(&path).map(|_| ()).map_err(|error| error.to_string());
        trial.expect(said.is_err(), || format!("`{}` was deployed", path.display()));
        refused += 1;
    }
    for (what, bytes, must_fail) in certain(&whole) {
        let path = put(folder.path(), OTHER, &bytes)?;
        trial.event();
        if stage.node.deploy(&path).is_err() {
            refused += 1;
            continue;
        }
        trial.expect(!must_fail, || format!("a module was deployed: {what}"));
        stage.call(numbered_name(1).as_str(), Request::new(b""));
        stage.node.remove(OTHER)?;
    }
    stage.finish(vec![running], trial);
    trial.figure("refused", f64::from(refused));
    changed_by_chance(trial, folder.path(), &whole)
}

/// Of modules that are changed by chance some can be loaded, and write into what else the worker has. Then anything may come of calls there, and it is the other module that is
/// banned. So nobody calls anything, and nobody judges calls: the node is to go on, with other workers if need be.
fn changed_by_chance(trial: &mut Trial, folder: &Path, whole: &[u8]) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let (mut refused, mut taken) = (0, 0);
    while refused + taken == 0 || !trial.is_over(0.7) {
        let (what, bytes, must_fail) = by_chance(whole, &mut trial.random);
        let path = put(folder, OTHER, &bytes)?;
        trial.event();
        if stage.node.deploy(&path).is_ok() {
            trial.expect(!must_fail, || format!("a module was deployed: {what}"));
            taken += 1;
            stage.node.remove(OTHER)?;
        } else {
            refused += 1;
        }
    }
    trial.figure("refused_by_chance", f64::from(refused));
    trial.figure("taken_by_chance", f64::from(taken));
    trial.figure("workers_lost", stage.node.stats().restarts as f64);
    let path = put(folder, OTHER, whole)?;
    let deployed = until(HEAL, || stage.node.deploy(&path).is_ok());
    trial.expect(deployed, || "a good module is not deployed after bad ones".to_owned());
    stage.node.remove(OTHER)?;
    Ok(())
}

/// What is no file, or has no end.
fn special_files(folder: &Path) -> Result<Vec<PathBuf>, Stop> {
    let [pipe, ring, directory] = ["pipe.so", "ring.so", "directory.so"].map(|name| folder.join(name));
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU)?;
    std::os::unix::fs::symlink(&ring, &ring)?;
    fs::create_dir(&directory)?;
    Ok([pipe, ring, directory]
        .into_iter()
        .chain(["/dev/zero", "/dev/null", "/proc/self/mem"].map(PathBuf::from))
        .collect())
}

type Case = (String, Vec<u8>, bool);

/// Modules with one thing wrong each, that must be refused.
fn certain(whole: &[u8]) -> Vec<Case> {
    let with = |what: &str, at: usize, bytes: &[u8]| {
        let mut changed = whole.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        (what.to_owned(), changed, true)
    };
    let mut cases = vec![
        ("no bytes".to_owned(), Vec::new(), true),
        ("a text".to_owned(), b"#!/bin/sh\nexit 0\n".to_vec(), true),
        with("32 bits", 4, &[1]),
        with("big end first", 5, &[2]),
        with("no shared library", 16, &[2, 0]),
        with("of another machine", 18, &[0xf3, 0]),
    ];
    for part in [1, 2, 10, 50, 90] {
        cases.push((format!("the first {part} %"), whole[..whole.len() * part / 100].to_vec(), true));
    }
    if let Some(note) = find(whole, b"microfaas\0") {
        cases.push(with("of another ABI", note + 12, &999u32.to_le_bytes()));
        cases.push(with("a million functions", note + 16, &1_000_000u32.to_le_bytes()));
    }
    for (at, kind) in program_headers(whole) {
        match kind {
            1 => cases.push(with("a segment of 64 TiB", at + 40, &(1u64 << 46).to_le_bytes())),
            2 => cases.push(with("no dynamic section", at, &0u32.to_le_bytes())),
            _ => {}
        }
        if kind == 1 {
            cases.push(with("a segment of 1 TiB in memory", at + 40, &(1u64 << 40).to_le_bytes()));
            cases.push(with("a segment that ends behind the file", at + 32, &(1u64 << 30).to_le_bytes()));
        }
    }
    // What runs first is no code: what lies behind the list, or an address where nothing is.
    for (what, tag, value) in [
        ("a longer list of constructors", INIT_ARRAYSZ, 1 << 16),
        ("constructors beyond the end", INIT_ARRAY, 1 << 40),
        ("a first instruction beyond the end", INIT, 1 << 40),
        ("relocations beyond the end", RELA, 1 << 40),
    ] {
        if let Some(at) = dynamic_entry(whole, tag) {
            cases.push(with(what, at + 8, &u64::to_le_bytes(value)));
        }
    }
    // Of names that it needs: one that nobody has, its own table's, and one that is there and no function may use: what that does, the sandbox sees to, whatever its name.
    for (what, from, to, must_fail) in [
        ("a symbol that there is not", b"\0memcpy\0".as_slice(), b"\0memcpz\0".as_slice(), true),
        ("without its table", b"\0microfaas_module\0", b"\0microfaas_modulo\0", true),
        ("programs are started in place of memory being cleared", b"\0memset\0", b"\0system\0", false),
    ] {
        if let Some(at) = find(whole, from) {
            let (what, bytes, _) = with(what, at, to);
            cases.push((what, bytes, must_fail));
        }
    }
    cases
}

/// Tags of the dynamic section.
const RELA: usize = 7;
const INIT: usize = 12;
const INIT_ARRAY: usize = 25;
const INIT_ARRAYSZ: usize = 27;

/// Where the entry of this tag is.
fn dynamic_entry(elf: &[u8], tag: usize) -> Option<usize> {
    let (at, _) = program_headers(elf).into_iter().find(|(_, kind)| *kind == 2)?;
    let (start, len) = (word(elf, at + 8), word(elf, at + 32));
    (start..start + len).step_by(16).find(|at| word(elf, *at) == tag)
}

/// One with something changed in what the loader reads. It may be as good as before.
fn by_chance(whole: &[u8], random: &mut Rng) -> Case {
    let mut changed = whole.to_vec();
    let headers = program_headers(whole);
    let dynamic = headers.iter().find(|(_, kind)| *kind == 2).map(|(at, _)| word(whole, at + 8));
    let (what, range) = match (random.u8(0..3), dynamic) {
        (0, _) => {
            changed.truncate(random.usize(..whole.len()));
            return ("cut somewhere".to_owned(), changed, true);
        }
        (1, Some(dynamic)) => ("the dynamic section", dynamic..dynamic + 256),
        _ => ("the headers", 16..64 + 56 * headers.len()),
    };
    for _ in 0..random.usize(1..4) {
        let at = random.usize(range.clone());
        if let Some(byte) = changed.get_mut(at) {
            *byte ^= 1 << random.u8(0..8);
        }
    }
    (format!("a change in {what}"), changed, false)
}

/// Where each program header is, and its kind.
fn program_headers(elf: &[u8]) -> Vec<(usize, usize)> {
    let (at, count) = (word(elf, 32), word(elf, 56) & 0xffff);
    (0..count).map(|i| at + 56 * i).map(|at| (at, word(elf, at) & 0xffff_ffff)).collect()
}

fn word(bytes: &[u8], at: usize) -> usize {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    usize::try_from(u64::from_le_bytes(eight)).unwrap_or(usize::MAX)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
