//! What all hosts are told: which functions there are, which workers have come and gone, that all is there.

use std::sync::Arc;

use microfaas_control::attach::{Function, ToHost, Worker};
use microfaas_control::{PACKET_BYTES_MAX, encode};

use crate::attach::guest::{GuestLane, Progress, Stage};
use crate::attach::numbers::Numbers;
use crate::attach::server::guests::{dismissal, say};
use crate::attach::server::{Post, Server};
use crate::call::nanoseconds;
use crate::function::FunctionInfo;
use crate::names::Entry;
use crate::seat::WorkerState;

/// Of the table's rows in one packet, if it is more than one: the longest row is half a packet.
const PART_BYTES: usize = PACKET_BYTES_MAX / 4;

impl Server {
    /// The table of functions, in at least one part.
    pub(super) fn table(&self) -> Vec<ToHost> {
        let entry = |info: &FunctionInfo| self.shared.names.resolve(info.id);
        let functions: Vec<Function> =
            self.catalog.functions.iter().filter_map(|info| Some(row(entry(info)?, info))).collect();
        let mut parts = vec![Vec::new()];
        let mut room = PART_BYTES;
        for function in functions {
            let bytes = encode(&function).map_or(0, |packet| packet.len());
            if bytes > room {
                parts.push(Vec::new());
                room = PART_BYTES;
            }
            room = room.saturating_sub(bytes);
            parts.last_mut().expect("there is one from the start").push(function);
        }
        let count = parts.len();
        let part = |(i, functions)| ToHost::Functions { first: i == 0, last: i + 1 == count, functions };
        parts.into_iter().enumerate().map(part).collect()
    }

    /// Tells all of a change of the functions. Calls that come by an old number meanwhile go to the function's current version.
    pub(super) fn look_at_functions(&mut self) {
        let catalog = self.shared.catalog.load_full();
        if Arc::ptr_eq(&catalog, &self.catalog) {
            return;
        }
        self.catalog = catalog;
        let table = self.table();
        self.each_guest(|guest| guest.say_table(&table).map_err(dismissal));
    }

    /// What a worker's place is doing.
    pub(super) fn news(&self, worker: usize) -> Option<ToHost> {
        let seat = self.shared.seats.get(worker)?;
        let info = seat.info();
        let pid = info.pid.filter(|_| info.state == WorkerState::Serving);
        let sandbox = seat.sandbox();
        let (index, cpu, generation, restarts) = (info.index, info.cpu, info.generation, info.restarts);
        Some(ToHost::Worker(Worker { index, pid, cpu, generation, restarts, sandbox }))
    }

    pub(super) fn tell_all(&mut self, message: &ToHost) {
        self.each_guest(|guest| say(guest, message));
    }

    /// Notices which workers have come and gone.
    pub(super) fn look_at_workers(&mut self) {
        for worker in 0..self.posts.len() {
            let info = self.shared.seats[worker].info();
            if info.state == WorkerState::Stopped {
                // With the node itself, which its hosts learn by the end of their connections.
                return;
            }
            let (serves, generation) = (info.state == WorkerState::Serving, info.generation);
            let post = &mut self.posts[worker];
            if (post.serves, post.generation) == (serves, generation) {
                continue;
            }
            *post = Post { serves, generation, numbers: Numbers::default() };
            for number in self.guests.keys().copied().collect::<Vec<_>>() {
                self.drop_lanes(number, |lane| {
                    lane.worker == worker && (lane.generation != generation || !serves)
                });
            }
            if let Some(news) = self.news(worker) {
                self.tell_all(&news);
            }
        }
    }

    /// Tells a guest of lanes whose worker has gone.
    pub(super) fn drop_lanes(&mut self, number: u64, is_lost: impl Fn(&GuestLane) -> bool) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let lost: Vec<u64> =
            guest.lanes.iter().filter(|(_, lane)| is_lost(lane)).map(|(number, _)| *number).collect();
        for lane in lost {
            guest.lanes.remove(&lane);
            let reason = "the worker has ended".to_owned();
            if let Err(dismissal) = say(guest, &ToHost::Gone { lane, reason }) {
                return self.part(number, dismissal);
            }
        }
    }

    pub(super) fn tell_who_is_ready(&mut self) {
        let mut failed = Vec::new();
        for (number, guest) in &mut self.guests {
            if guest.stage != (Stage::Attached { ready: false }) {
                continue;
            }
            let served =
                self.posts.iter().enumerate().filter(|(_, post)| post.serves).all(|(worker, post)| {
                    guest.shunned.contains(&(worker, post.generation))
                        || guest
                            .lanes
                            .values()
                            .any(|lane| lane.worker == worker && matches!(lane.progress, Progress::Open))
                });
            if served {
                guest.stage = Stage::Attached { ready: true };
                failed.extend(say(guest, &ToHost::Ready).err().map(|dismissal| (*number, dismissal)));
            }
        }
        for (number, dismissal) in failed {
            self.part(number, dismissal);
        }
    }
}

fn row(entry: Entry, function: &FunctionInfo) -> Function {
    Function {
        id: entry.function,
        name: function.name.clone(),
        module: function.module.to_string_lossy().into_owned(),
        deadline_ns: nanoseconds(function.deadline),
        idempotent: function.idempotent,
        limits: function.limits,
        concurrency: function.concurrency,
        is_lazy: entry.is_lazy,
    }
}
