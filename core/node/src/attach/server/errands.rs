//! What operators ask of the node by its socket. It may take a while (a module is read, tried out and loaded; thousands of functions are counted up), so each is run by a
//! thread of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use microfaas_control::admin::AdminRequest;
use microfaas_control::attach::ToHost;
use microfaas_sys::eventfd;
use serde_json::Value;

use crate::attach::server::Server;
use crate::attach::server::guests::say_with;
use crate::attach::stats;

/// Errands at a time; and as many looks at the counts, which wait for none of them.
const RUNNING_MAX: usize = 8;

/// An errand that is over: the guest, the request's number, the answer, the file beside it; whether it was a look at the counts.
type Done = (u64, u64, Result<Value, String>, Option<Arc<OwnedFd>>, bool);

/// The errands that run.
#[derive(Debug)]
pub(super) struct Errands {
    running: usize,
    /// Looks at the counts.
    looking: usize,
    sender: Sender<Done>,
    done: Receiver<Done>,
}

impl Default for Errands {
    fn default() -> Self {
        let (sender, done) = channel();
        Self { running: 0, looking: 0, sender, done }
    }
}

impl Errands {
    /// How many of this kind run.
    fn count(&mut self, is_look: bool) -> &mut usize {
        if is_look { &mut self.looking } else { &mut self.running }
    }
}

impl Server {
    /// Sends somebody to do what a guest asks.
    ///
    /// # Errors
    /// Why not, for the guest.
    pub(super) fn begin_errand(&mut self, guest: u64, id: u64, request: Value) -> Result<(), String> {
        if let Some(stranger) = self.guests.get(&guest).filter(|guest| !guest.is_own) {
            return Err(format!("user {} may not administrate this node", stranger.uid));
        }
        // What is looked at every second is not logged.
        let request = match stats::is_asked(&request) {
            true => None,
            false => Some(AdminRequest::from_value(request)?),
        };
        let is_look = request.is_none();
        if *self.errands.count(is_look) == RUNNING_MAX {
            return Err(format!("{RUNNING_MAX} requests are being carried out, try again"));
        }
        if let Some(request) = &request {
            tracing::info!(?request, "asked by the socket");
        }
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.wake));
        let sender = self.errands.sender.clone();
        let run = move || {
            let (answer, file) = match request {
                Some(request) => (Ok(shared.administrate(request).to_value()), None),
                None => match stats::answer(&shared) {
                    Ok((answer, file)) => (Ok(answer), Some(file)),
                    Err(error) => (Err(error.to_string()), None),
                },
            };
            // A server that has ended does not listen any more.
            let _ = sender.send((guest, id, answer, file, is_look));
            let _ = eventfd::signal(wake.as_fd());
        };
        let thread = std::thread::Builder::new().name("microfaas-admin".into()).spawn(run);
        thread.map_err(|error| format!("the request cannot be carried out now: {error}"))?;
        *self.errands.count(is_look) += 1;
        Ok(())
    }

    /// Brings answers to those who still wait for them.
    pub(super) fn look_at_errands(&mut self) {
        while let Ok((number, id, answer, file, is_look)) = self.errands.done.try_recv() {
            *self.errands.count(is_look) -= 1;
            let Some(guest) = self.guests.get_mut(&number) else { continue };
            let answer = ToHost::Admin { id, answer };
            if let Err(dismissal) = say_with(guest, &answer, file.into_iter().collect()) {
                self.part(number, dismissal);
            }
        }
    }
}
