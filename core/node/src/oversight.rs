//! What the program around a node needs to run it as a service: whether it still lives, who may attach from now on, and the first half of its end.

use std::sync::atomic::Ordering;

use crate::Node;

impl Node {
    /// How often the thread that watches the workers has come round. It is asked to do so now: where the number is the same after a while, that thread hangs, and
    /// no worker is replaced.
    ///
    /// # Cost
    /// Wakes a thread.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        let shared = self.shared();
        shared.hub.wake_supervisor();
        shared.rounds.load(Ordering::Relaxed)
    }

    /// Whether the node has ended, as it does when it is [shut down](Self::shutdown), or by a bug in it. Every call is answered then, and none is accepted.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.supervisor_has_ended()
    }

    /// Lets no hosts in any more, and has those that are attached submit no more calls and leave once they have their answers. The node's own calls go on. Does not
    /// wait, and is not taken back: [`shutdown`](Self::shutdown) is to follow.
    pub fn turn_hosts_away(&self) {
        self.shared().bulletin.turn_away();
    }

    /// From now on hosts of these users and groups may attach, and no others beside the node's own user and root. Those that are attached stay.
    pub fn admit_hosts(&self, users: Vec<u32>, groups: Vec<u32>) {
        self.shared().bulletin.admit(users, groups);
    }
}
