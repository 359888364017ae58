//! What lies in file systems.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use microfaas_node::{RestartCause, Status};

use crate::load::Load;
use crate::stage::{HEAL, MODULE, Stage};
use crate::trial::{Stop, Trial};
use crate::victim::Worker;

/// Kills each worker once; what replaces it must come up from what the node has.
fn replace_all(stage: &Stage, trial: &mut Trial) -> Result<(), Stop> {
    for index in 0..2 {
        let Some(worker) = Worker::of(&stage.node, index)? else { continue };
        trial.event();
        let replaced = worker.kill_and_wait(&stage.node, HEAL)?;
        trial.expect(replaced.is_some(), || format!("worker {index} is not replaced"));
    }
    Ok(())
}

fn load() -> Load {
    Load { may_end: &[Status::WorkerLost], ..Load::default() }
}

/// K12. Lanes are memory without a name, made and checked at the start of a worker: nothing of them can be missing later. This process is where the
/// folder is full.
pub(super) fn shared_memory_is_full(trial: &mut Trial) -> Result<(), Stop> {
    trial.expect(fs::write("/dev/shm/more", [1; 4096]).is_err(), || "/dev/shm is not full".to_owned());
    let _ = fs::remove_file("/dev/shm/more");
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let running = stage.load(&load(), trial);
    while !trial.is_over(0.5) {
        replace_all(&stage, trial)?;
        std::thread::sleep(trial.time.mul_f64(0.15));
    }
    stage.finish(vec![running], trial);
    Ok(())
}

/// K13.
pub(super) fn no_cache(_: &mut Trial) -> Result<(), Stop> {
    Err(Stop::Skip(
        "not applicable: the node keeps modules in sealed memory and writes none to a disk".to_owned(),
    ))
}

/// K14. Deploying fails with a clear error, what was deployed serves on, also in workers that start later.
pub(super) fn folder_is_gone(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let running = stage.load(&load(), trial);
    let path = stage.folder().join(MODULE);
    let unreadable = stage.folder().join("unreadable.so");
    fs::copy(&path, &unreadable)?;
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o0))?;
    let empty = stage.folder().join("empty");
    fs::create_dir(&empty)?;
    fs::remove_file(&path)?;
    let mut cases =
        vec![path.clone(), empty, stage.folder().join("no/such/folder"), path.join("below-a-file")];
    if nix::unistd::geteuid().is_root() {
        // Root reads everything: this one is deployed under another name, whose functions are there already.
        trial.figure("unreadable_files_can_be_read", 1.0);
    }
    cases.push(unreadable);
    for case in &cases {
        let said = stage.node.deploy(case).map(|_| ()).map_err(|error| error.to_string());
        trial.expect(said.is_err(), || format!("`{}` was deployed", case.display()));
    }
    replace_all(&stage, trial)?;
    std::thread::sleep(Duration::from_millis(200));
    stage.put_version(1, trial)?;
    stage.node.deploy(&path)?;
    replace_all(&stage, trial)?;
    stage.finish(vec![running], trial);
    Ok(())
}

/// K16. The file is changed in place, which would take the pages away from under a mapping of it.
pub(super) fn file_is_overwritten(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?.loses(&[RestartCause::Died]);
    let running = stage.load(&load(), trial);
    let path = stage.folder().join(MODULE);
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    let whole = file.metadata()?.len();
    for len in [whole / 2, 4096, 0, whole, whole * 2] {
        file.set_len(len)?;
        std::thread::sleep(trial.time.mul_f64(0.05));
    }
    fs::write(&path, vec![0xcc; usize::try_from(whole).unwrap_or(0)])?;
    drop(file);
    replace_all(&stage, trial)?;
    std::thread::sleep(trial.time.mul_f64(0.1));
    trial.expect(stage.node.deploy(&path).is_err(), || "a file of nothing but traps was deployed".to_owned());
    stage.finish(vec![running], trial);
    Ok(())
}
