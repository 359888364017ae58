//! The experiments. Those named K are of the project's list; the others belong to the same class.

mod clocks;
mod cold;
mod deaths;
mod deploys;
mod forks;
mod groups;
mod hosts;
mod limits;
mod mix;
mod operators;
mod overload;
mod served;
mod signals;
mod starts;
mod stops;
mod storage;
mod storms;
mod web;

use crate::place::Place;
use crate::trial::{Stop, Trial};

/// One experiment.
#[derive(Debug)]
pub struct Experiment {
    /// As on the command line.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// Where its process has to run.
    pub place: Place,
    /// Does it.
    pub run: fn(&mut Trial) -> Result<(), Stop>,
}

const fn experiment(
    name: &'static str,
    about: &'static str,
    run: fn(&mut Trial) -> Result<(), Stop>,
) -> Experiment {
    Experiment { name, about, place: Place::Here, run }
}

/// All of them.
pub const ALL: &[Experiment] = &[
    experiment("K01", "workers are killed one at a time, at random moments", deaths::one_at_a_time),
    experiment("K02", "all workers are killed at once, again and again", deaths::all_at_once),
    experiment("D01", "one of two workers is killed every 100 ms", deaths::one_of_two),
    experiment("D02", "as K01, while the cores have time to spare", deaths::one_at_a_time_under_light_load),
    experiment("D03", "spares are killed all the time, and workers now and then", starts::spares_die),
    experiment("D04", "workers are killed in the middle of deployments", starts::workers_die_while_deploying),
    experiment("K03", "a worker is stopped for longer than a stall", stops::longer_than_a_stall),
    experiment(
        "S01",
        "workers are stopped and continued before it counts as a stall",
        stops::shorter_than_a_stall,
    ),
    experiment("S02", "a worker is stopped by a debugger, whose it is when it has ended", stops::traced),
    experiment("S03", "an attached host is stopped in the middle of its calls", stops::attached_host),
    experiment("N01", "the node is stopped under attached hosts", stops::node),
    experiment("K05", "attached hosts are killed in the middle of their calls", hosts::attached_are_killed),
    experiment("H01", "a host that has its own node is killed", hosts::embedded_is_killed),
    experiment("H02", "an attached host leaks its slots and is stopped, another goes on", hosts::slots_leak),
    experiment("H03", "a host is killed while its own node starts", hosts::starting_is_killed),
    experiment(
        "H04",
        "attached hosts and workers are killed in the middle of calls",
        hosts::hosts_and_workers_are_killed,
    ),
    experiment("H05", "hosts are killed while they attach", starts::attaching_hosts_are_killed),
    experiment("F01", "hosts fork in the middle of their calls, and are killed", forks::hosts_fork),
    experiment("G01", "every thread of a host is interrupted all the time", signals::interrupted),
    experiment("G02", "workers get their own signals all the time", signals::alarmed),
    experiment("P01", "the cores that everybody may use come and go", signals::cores_come_and_go),
    experiment("K06", "the node is killed under attached hosts, and started again", hosts::node_is_killed),
    experiment("K08", "functions allocate for ever", limits::memory),
    experiment("K10", "the host runs out of descriptors while workers die", limits::descriptors),
    Experiment {
        name: "L01",
        about: "no process can be started while workers die, for an ordinary user",
        place: Place::OrdinaryUser,
        run: limits::processes,
    },
    Experiment {
        name: "U01",
        about: "as K01, for an ordinary user",
        place: Place::OrdinaryUser,
        run: deaths::one_at_a_time,
    },
    Experiment {
        name: "U02",
        about: "as K02, for an ordinary user",
        place: Place::OrdinaryUser,
        run: deaths::all_at_once,
    },
    experiment("L02", "the kernel ends workers that are out of memory", groups::out_of_memory),
    experiment("K09", "a balloon takes the memory that node and workers share", groups::pressure),
    Experiment {
        name: "K12",
        about: "/dev/shm is full",
        place: Place::FullSharedMemory,
        run: storage::shared_memory_is_full,
    },
    experiment("K13", "the disk of the module cache is full", storage::no_cache),
    experiment("K14", "the module folder is removed, unreadable, or not a folder", storage::folder_is_gone),
    experiment(
        "K16",
        "the module's file is truncated and overwritten while it is loaded",
        storage::file_is_overwritten,
    ),
    experiment("K17", "corrupt modules are deployed", deploys::corrupt),
    experiment("K18", "many modules come and go", deploys::many),
    experiment(
        "C01",
        "more modules are called than there is room for, while workers are killed",
        cold::crowded,
    ),
    experiment("K20", "more calls than there is capacity for", overload::more_than_capacity),
    experiment("K22", "one function is flooded", overload::one_function_floods),
    experiment("K23", "versions are deployed and rolled back under load", deploys::under_load),
    experiment("K24", "the node is told to stop under load", hosts::graceful_stop),
    experiment(
        "N02",
        "the node is told to stop in the middle of a deployment",
        hosts::stopped_while_deploying,
    ),
    experiment(
        "N05",
        "the node is told to stop, once or twice, while it starts",
        starts::told_to_stop_while_it_starts,
    ),
    experiment("W01", "clients of the gateway hang up while workers are killed", web::clients),
    experiment(
        "N03",
        "settings, modules and the socket are wrong, and the node is hung up on",
        operators::mistakes,
    ),
    experiment("N04", "several deploy, roll back and remove at the same moment", operators::several_at_once),
    experiment("X01", "all calls are due, or taken back, at the same moment", storms::ends),
    experiment("X02", "hosts attach, call and go, several at a time", storms::hosts_come_and_go),
    Experiment {
        name: "K26",
        about: "the wall clock is set back and forth all the time",
        place: Place::JumpingWallClock,
        run: clocks::wall_clock,
    },
    Experiment {
        name: "K27",
        about: "the monotonic clock is far ahead, and everything is stopped for a while",
        place: Place::FarFuture,
        run: clocks::monotonic_clock,
    },
    Experiment {
        name: "K29",
        about: "a random mix of everything",
        place: Place::FullSharedMemoryWherePossible,
        run: mix::random,
    },
];

/// The one of this name, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Experiment> {
    ALL.iter().find(|experiment| experiment.name.eq_ignore_ascii_case(name))
}
