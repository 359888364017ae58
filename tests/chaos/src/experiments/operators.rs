//! What operators do, and what they do wrong.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use microfaas_node::{CallError, DeployError, Request, Status};
use nix::sys::signal::Signal;

use crate::experiments::served::Served;
use crate::load::Load;
use crate::modules::{numbered_answer, numbered_name, put};
use crate::question::Question;
use crate::role::{Role, SETTINGS_FILE, connect};
use crate::stage::{HEAL, MODULE, OTHER, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::until;

/// At once.
const HANGUPS: u32 = 50;
/// That a reload that fails is likely to have begun.
const WHILE: Duration = Duration::from_millis(20);

/// N03. Settings that are none, a module that is none, a socket's file that is away, a second node in the same place, and hangups by the dozen: calls go on, and what is put
/// right is taken at the next hangup.
pub(super) fn mistakes(trial: &mut Trial) -> Result<(), Stop> {
    let mut served = Served::start(trial)?;
    let running = Load::default().start(&served.host, &served.ledger, &mut trial.random);
    let Some(server) = served.server.as_ref().map(|server| server.process.clone()) else {
        return Err(Stop::Failed("there is no node".to_owned()));
    };
    let (folder, socket) = (served.folder.path().to_owned(), served.socket.clone());
    let (folder, socket) = (folder.as_path(), socket.as_path());
    let settings = folder.join(SETTINGS_FILE);
    let right = std::fs::read(&settings)?;
    let hang_up = || server.send(Signal::SIGHUP);
    let mut version = 0;
    while version < 5 || !trial.is_over(0.7) {
        trial.event();
        match version % 5 {
            0 => {
                std::fs::write(&settings, "[node\nstop_timeout = never")?;
                hang_up()?;
                std::thread::sleep(WHILE);
                std::fs::write(&settings, &right)?;
            }
            1 => {
                put(folder, MODULE, b"\x7fELF and no more")?;
                hang_up()?;
                std::thread::sleep(WHILE);
            }
            2 => {
                let away = folder.join("away");
                std::fs::rename(socket, &away)?;
                trial
                    .expect(connect(socket).is_err(), || "a host attached at a file that is away".to_owned());
                std::fs::rename(&away, socket)?;
                connect(socket)?;
            }
            3 => {
                let second = Role::server(folder, socket);
                trial.expect(second.is_err(), || "two nodes listen at one socket".to_owned());
                connect(socket)?;
            }
            _ => (0..HANGUPS).try_for_each(|_| hang_up())?,
        }
        version += 1;
        put(folder, MODULE, &trial.modules.version(version))?;
        hang_up()?;
        let question = Question { id: u64::MAX, nonce: trial.random.u64(..), spin_us: 0, payload: 10 };
        let mut body = Vec::new();
        question.write(&mut body);
        let taken = until(HEAL, || {
            let answer = served.host.call("answer", Request::new(&body));
            question.check(&answer.body).is_ok_and(|right| right.version == version)
        });
        trial.expect(taken, || format!("version {version} is not served after a hangup"));
        if version == 5 {
            // From now on it has a version to go back to, and the threads that reload.
            served.measure();
        }
    }
    trial.figure("hangups", f64::from(version));
    trial.verdict.problems.extend(running.stop());
    served.finish(trial);
    Ok(())
}

/// N04. Several at once deploy the same, roll it back, and deploy and remove another module whose function is called meanwhile: each is done or refused with its reason, and
/// each call is answered by what there was.
pub(super) fn several_at_once(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let running = stage.load(&Load::default(), trial);
    let (done, answered) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut version = 0;
    while version == 0 || !trial.is_over(0.6) {
        version += 1;
        let same = stage.put_version(version, trial)?;
        let other = put(stage.folder(), OTHER, &trial.modules.numbered(version))?;
        (0..5).for_each(|_| trial.event());
        let took = |done_by: Result<_, DeployError>| match done_by {
            Ok(_) => {
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(DeployError::Unknown { .. } | DeployError::NothingBefore { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let node = &stage.node;
        let call = || call_other(&stage, version, &answered);
        let results = std::thread::scope(|scope| {
            let sides = [
                scope.spawn(|| took(node.deploy(&same))),
                scope.spawn(|| took(node.deploy(&same))),
                scope.spawn(|| took(node.rollback(MODULE))),
                scope.spawn(|| took(node.deploy(&other)).and_then(|()| took(node.remove(OTHER)))),
                scope.spawn(|| took(node.remove(OTHER))),
                scope.spawn(call),
                scope.spawn(call),
            ];
            sides.map(|side| side.join().unwrap_or_else(|_| Err("panic".to_owned())))
        });
        for result in results {
            trial.verdict.problems.extend(result.err());
        }
    }
    let (done, answered) = (done.into_inner(), answered.into_inner());
    trial.figure("done", f64::from(done));
    trial.figure("answered_by_what_comes_and_goes", f64::from(answered));
    trial.expect(done >= 3 * version, || format!("{done} of {version} times five were done"));
    stage.finish(vec![running], trial);
    Ok(())
}

/// Calls a function that comes and goes until it has come and gone, some times at most.
///
/// # Errors
/// An end that is none of those it may have.
fn call_other(stage: &Stage, number: u32, answered: &AtomicU32) -> Result<(), String> {
    let name = numbered_name(number);
    for _ in 0..50 {
        let answer = match stage.node.submit(name.as_str(), Request::new(b"").deadline(HEAL)) {
            Ok(call) => call.wait(),
            Err(CallError::UnknownFunction) => {
                stage.aside.doubt();
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(format!("{name} was refused: {error}")),
        };
        stage.aside.enter(&answer);
        match answer.status {
            Status::Ok if answer.body == numbered_answer(number) => answered.fetch_add(1, Ordering::Relaxed),
            Status::NotFound => 0,
            status => return Err(format!("{name} ended {status}: {}", answer.detail)),
        };
    }
    Ok(())
}
