//! Clients of the HTTP gateway.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use microfaas_node::Status;

use crate::experiments::served::Served;
use crate::footprint::descendants;
use crate::ledger::Ledger;
use crate::question::Question;
use crate::stage::HEAL;
use crate::trial::{Stop, Trial};
use crate::victim::Victim;

const CLIENTS: usize = 4;
const STAYS: u8 = 2;
const WAIT_US: u64 = 50_000;
/// Workers that are killed: as many as are replaced at once.
const KILLS: usize = 5;

/// W01. Clients ask over HTTP, and some hang up in the middle of a request or before its answer, while workers are killed: who stays has one answer, his, or is told that his worker
/// was lost.
pub(super) fn clients(trial: &mut Trial) -> Result<(), Stop> {
    let mut served = Served::start_on_the_web(trial)?;
    let Some(address) = served.server.as_ref().map(|server| server.address.clone()) else {
        return Err(Stop::Failed("there is no node".to_owned()));
    };
    // A gateway begins to wait for its node with the first call that is not over at once.
    let question = Question { id: u64::MAX, nonce: trial.random.u64(..), spin_us: WAIT_US, payload: 10 };
    let answer = ask(&address, &question, STAYS)?;
    let is_right =
        answer.as_ref().is_some_and(|(status, body)| *status == 200 && question.check(body).is_ok());
    trial.expect(is_right, || format!("the first client is answered {answer:?}"));
    served.measure();
    let Some(server) = &served.server else { return Ok(()) };
    let is_over = AtomicBool::new(false);
    let seeds: [u64; CLIENTS] = std::array::from_fn(|_| trial.random.u64(..));
    let (problems, mut kills) = std::thread::scope(|scope| {
        let client = |seed| {
            let (ledger, is_over, address) = (&served.ledger, &is_over, address.as_str());
            scope.spawn(move || ask_until(is_over, address, ledger, Rng::with_seed(seed)))
        };
        let clients = seeds.map(client);
        let mut kills = 0;
        while !trial.is_over(0.7) {
            trial.event();
            std::thread::sleep(trial.some_time(Duration::from_millis(60)));
            let processes = descendants(server.process.pid);
            let Some((pid, _)) = processes.get(trial.random.usize(..processes.len().max(1))) else {
                continue;
            };
            if kills < KILLS
                && let Ok(Some(process)) = Victim::open(*pid)
            {
                kills += usize::from(process.kill().is_ok());
            }
        }
        is_over.store(true, Ordering::Relaxed);
        let ended =
            clients.map(|client| client.join().unwrap_or_else(|_| Some("a client panicked".to_owned())));
        (ended, kills)
    });
    trial.verdict.problems.extend(problems.into_iter().flatten());
    // Each has a line of the log.
    trial.verdict.events += served.ledger.counts().accepted;
    trial.figure("kills", kills as f64);
    kills = usize::from(served.ledger.outcomes(Status::Ok) > 0).min(kills);
    trial.expect(kills > 0, || "nobody was answered, or no worker was killed".to_owned());
    served.finish(trial);
    Ok(())
}

/// Asks until it is over, and once at least; what went wrong.
fn ask_until(is_over: &AtomicBool, address: &str, ledger: &Arc<Ledger>, mut random: Rng) -> Option<String> {
    let mut is_first = true;
    while is_first || !is_over.load(Ordering::Relaxed) {
        is_first = false;
        let id = ledger.offer()?;
        let payload = random.usize(0..5000);
        let question = Question { id, nonce: random.u64(..), spin_us: random.u64(0..500), payload };
        ledger.accept(id, Instant::now() + HEAL);
        let leaves = random.u8(0..10);
        match ask(address, &question, leaves) {
            Ok(None) => ledger.hang_up(id),
            Ok(Some((200, body))) => {
                ledger.settle(id, Status::Ok);
                match question.check(&body) {
                    Ok(_) => ledger.answered(id),
                    Err(wrong) => ledger.wrong(id, wrong),
                }
            }
            Ok(Some((502, _))) => ledger.settle(id, Status::WorkerLost),
            Ok(Some((503, _))) => ledger.settle(id, Status::Overloaded),
            Ok(Some((status, body))) => {
                ledger.settle(id, Status::Error);
                return Some(format!("request {id} ended {status}: {}", String::from_utf8_lossy(&body)));
            }
            Err(error) => {
                ledger.settle(id, Status::Error);
                return Some(format!("request {id} has no answer: {error}"));
            }
        }
    }
    None
}

/// Asks over a connection of its own; status and body of the answer. `leaves`: with 0 it hangs up in the middle of the request, with 1 before the answer, with more it [`STAYS`].
fn ask(address: &str, question: &Question, leaves: u8) -> std::io::Result<Option<(u16, Vec<u8>)>> {
    let mut body = Vec::new();
    question.write(&mut body);
    let head = format!(
        "POST /fn/answer HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), &body].concat();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(HEAL))?;
    stream.set_write_timeout(Some(HEAL))?;
    if leaves == 0 {
        return stream.write_all(&request[..request.len() / 2]).map(|()| None);
    }
    stream.write_all(&request)?;
    if leaves == 1 {
        return Ok(None);
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let bad = || std::io::Error::other(format!("not HTTP: {:?}", String::from_utf8_lossy(&answer)));
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok());
    let status = status.and_then(|status| status.parse().ok()).ok_or_else(bad)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(bad)?;
    Ok(Some((status, answer.split_off(end + 4))))
}
