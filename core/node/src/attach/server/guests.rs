//! Who comes, what each of them says, and how they go.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::attach::{FromHost, ToHost, VERSION, Welcome};
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::local::{self, Peer};

use crate::attach::guest::{Guest, Said, Stage};
use crate::attach::server::{Dismissal, PAUSE, Server};

/// How long a connection may say nothing at first.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(2);
/// Connections of one user beside those of attached hosts.
const CALLERS_MAX: usize = 32;
/// Packets taken from one connection before the next is looked at.
const PACKETS: usize = 16;
/// Connections whose end is logged within a second: anybody who can open the socket can have as many as he likes.
const LOGGED_PER_SECOND: u32 = 100;

impl Server {
    pub(super) fn let_in(&mut self) {
        for _ in 0..PACKETS {
            let Some(door) = &self.door else { return };
            let socket = match door.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, say. Who has come waits.
                    tracing::warn!(%error, "a host cannot be let in now");
                    self.pause_until = Instant::now() + PAUSE;
                    return;
                }
            };
            let Ok(peer) = local::peer(socket.as_fd()) else { continue };
            self.receive(socket, peer);
        }
    }

    pub(super) fn receive(&mut self, socket: OwnedFd, peer: Peer) {
        let Some(door) = &self.door else { return };
        let (is_own, admitted) = (door.is_own(&peer), door.admits(&peer));
        let uid = peer.uid;
        let undecided = self.guests.values().filter(|guest| !guest.is_attached());
        let others = undecided.filter(|guest| guest.uid == uid).count();
        let guest = Guest::new(socket, peer, is_own, Instant::now() + GREET_WITHIN);
        let number = self.number();
        self.guests.insert(number, guest);
        if !admitted {
            self.part(number, Some(format!("user {uid} is not on the list of those who may attach")));
        } else if others >= CALLERS_MAX {
            self.part(number, Some(format!("{others} connections have not said what they want, come again")));
        }
    }

    /// Takes what a guest has said.
    pub(super) fn listen(&mut self, number: u64) {
        for _ in 0..PACKETS {
            let Some(guest) = self.guests.get_mut(&number) else { return };
            let result = guest.flush().map_err(|error| Some(error.to_string())).and_then(|()| {
                match guest.hear(&mut self.buffer) {
                    Ok(Said::Message(message)) => Ok(Some(message)),
                    Ok(Said::Nothing) => Ok(None),
                    Ok(Said::End) => Err(None),
                    Err(error) => Err(Some(error.to_string())),
                }
            });
            match result.and_then(|message| message.map(|message| self.obey(number, message)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(dismissal) => return self.part(number, dismissal),
            }
        }
    }

    pub(super) fn obey(&mut self, number: u64, message: FromHost) -> Result<(), Dismissal> {
        let stage = self.guests.get(&number).ok_or(None)?.stage;
        match (stage, message) {
            (Stage::Greeting(_), FromHost::Hello { version, lanes }) => self.greet(number, version, lanes),
            (Stage::Attached { .. }, FromHost::Mapped { lane }) => self.add(number, lane),
            (Stage::Attached { .. }, FromHost::Complaint { lane, about }) => {
                self.complaint(number, lane, about);
                Ok(())
            }
            (Stage::Asking | Stage::Attached { .. }, FromHost::Admin { id, request }) => {
                match self.begin_errand(number, id, request) {
                    Ok(()) => Ok(()),
                    Err(reason) => {
                        let guest = self.guests.get_mut(&number).ok_or(None)?;
                        say(guest, &ToHost::Admin { id, answer: Err(reason) })
                    }
                }
            }
            _ => Err(Some("a message that does not belong there".to_owned())),
        }
    }

    pub(super) fn greet(&mut self, number: u64, version: u32, lanes: bool) -> Result<(), Dismissal> {
        if version != VERSION {
            return Err(Some(format!("version {version} of the protocol, this node speaks {VERSION}")));
        }
        let attached = self.guests.values().filter(|guest| guest.is_attached()).count();
        let guest = self.guests.get(&number).ok_or(None)?;
        if !lanes && !guest.is_own {
            return Err(Some(format!("user {} may not administrate this node", guest.uid)));
        }
        if lanes && self.door.is_none() {
            return Err(Some("the node is shutting down".to_owned()));
        }
        if lanes && attached >= self.terms.hosts_max as usize {
            return Err(Some(format!("{attached} hosts are attached, which is the most")));
        }
        let news: Vec<ToHost> = (0..self.posts.len()).filter_map(|worker| self.news(worker)).collect();
        let table = self.table();
        let guest = self.guests.get_mut(&number).ok_or(None)?;
        let mut beside = Vec::new();
        guest.stage = if lanes { Stage::Attached { ready: false } } else { Stage::Asking };
        if lanes {
            tracing::info!(pid = guest.pid, uid = guest.uid, "host attaches");
            self.shared.bulletin.attached(1);
            match self.shared.ledgers.open(number, guest.pid, guest.uid) {
                Ok(ledger) => beside.push(Arc::new(ledger)),
                Err(error) => {
                    tracing::warn!(%error, pid = guest.pid, "what a host decides will not be counted")
                }
            }
        }
        let welcome = ToHost::Welcome(Welcome {
            version: VERSION,
            workers: u32::try_from(self.posts.len()).unwrap_or(u32::MAX),
            spin_ns: self.terms.spin_ns,
            stall_ns: self.terms.stall_ns,
        });
        say_with(guest, &welcome, beside)?;
        guest.say_table(&table).map_err(dismissal)?;
        news.iter().try_for_each(|message| say(guest, message))
    }

    /// Ends a connection, and takes all lanes of the host back. It learns the reason, where it still reads.
    pub(super) fn part(&mut self, number: u64, dismissal: Dismissal) {
        let Some(mut guest) = self.guests.remove(&number) else { return };
        let (pid, uid) = (guest.pid, guest.uid);
        let is_logged = self.ended.count(monotonic_ns()) <= LOGGED_PER_SECOND;
        match &dismissal {
            Some(reason) => {
                if is_logged {
                    tracing::warn!(pid, uid, reason, "host is shown out");
                }
                let _ = guest.say(&ToHost::Refused { reason: reason.clone() }, Vec::new());
            }
            None if is_logged => tracing::info!(pid, uid, "host has gone"),
            None => {}
        }
        if guest.is_attached() {
            self.shared.bulletin.attached(-1);
            self.shared.ledgers.close(number, self.shared.catalog.load().owners.len());
        }
        for lane in std::mem::take(&mut guest.lanes).into_values() {
            self.let_go(lane);
        }
    }

    pub(super) fn each_guest(&mut self, mut tell: impl FnMut(&mut Guest) -> Result<(), Dismissal>) {
        let failed: Vec<(u64, Dismissal)> = self
            .guests
            .iter_mut()
            .filter(|(_, guest)| guest.is_attached())
            .filter_map(|(number, guest)| Some((*number, tell(guest).err()?)))
            .collect();
        for (number, dismissal) in failed {
            self.part(number, dismissal);
        }
    }

    pub(super) fn look_at_limits(&mut self) {
        self.notice_lapse();
        let now = Instant::now();
        let late = |guest: &Guest| guest.next_limit().is_some_and(|limit| limit <= now);
        let late: Vec<u64> = self.guests.iter().filter(|(_, g)| late(g)).map(|(number, _)| *number).collect();
        for number in late {
            self.part(number, Some("no answer in time".to_owned()));
        }
    }
}

/// Says something to a guest, which has to go where it cannot be told.
pub(super) fn say(guest: &mut Guest, message: &ToHost) -> Result<(), Dismissal> {
    say_with(guest, message, Vec::new())
}

pub(super) fn say_with(guest: &mut Guest, message: &ToHost, fds: Vec<Arc<OwnedFd>>) -> Result<(), Dismissal> {
    guest.say(message, fds).map_err(dismissal)
}

pub(super) fn dismissal(error: io::Error) -> Dismissal {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => None,
        _ => Some(error.to_string()),
    }
}
