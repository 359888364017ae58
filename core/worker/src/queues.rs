//! The queues of one lane: one for each function that has calls here, or has used the core of late.

use microfaas_lane::worker::Submission;

use crate::backlog::Full;
use crate::turns::Turns;

/// No queue, no call.
const NONE: u32 = u32::MAX;
/// Idle queues that are looked at for one whose account says nothing any more, before one that does is forgotten.
const LOOKS: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Queues {
    /// What the lane has used, among lanes.
    pub account: u64,
    /// See [`Backlog::seen`](crate::backlog::Backlog::seen).
    pub seen: (u32, u64),
    turns: Turns,
    /// More than can have calls at a time, so that one can always be used for another function.
    queues: Box<[Queue]>,
    /// The first queue of each bucket: a function's number, cut.
    buckets: Box<[u32]>,
    calls: Box<[Waiting]>,
    /// The first place that is free.
    free: u32,
    /// The queue that is looked at first for the next function.
    hand: usize,
    suspended: usize,
    parked: usize,
}

/// One function's.
#[derive(Debug, Clone)]
struct Queue {
    function: u32,
    account: u64,
    first: u32,
    last: u32,
    suspended: u32,
    /// Calls started since one was resumed.
    started: u32,
    standing: Standing,
    /// The next one of its bucket.
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has never been used.
    Vacant,
    /// It wants nothing.
    Idle,
    /// It wants the core.
    Wants,
    /// It has calls, and can do nothing with them.
    Parked,
}

#[derive(Debug, Clone)]
struct Waiting {
    submission: Submission,
    /// The next one of its queue, or the next free place.
    next: u32,
}

const NOTHING: Submission = Submission {
    slot: 0,
    generation: 0,
    function: 0,
    flags: 0,
    body_len: 0,
    meta_len: 0,
    deadline_ns: 0,
    submitted_cycles: 0,
};

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("a lane has some thousand slots")
}

impl Queues {
    /// For a lane of so many slots, at a worker that has so many contexts.
    ///
    /// # Panics
    /// Where those are more than fit a `u32`.
    #[must_use]
    pub fn new(slots: usize, contexts: usize) -> Self {
        let queue = Queue {
            function: 0,
            account: 0,
            first: NONE,
            last: NONE,
            suspended: 0,
            started: 0,
            standing: Standing::Vacant,
            next: NONE,
        };
        // Each call that waits or is suspended may be another function's; and one more, whose account is written when all those are in use.
        let count = slots + contexts + 1;
        let next = |i| if i + 1 < slots { number(i + 1) } else { NONE };
        Self {
            account: 0,
            seen: (0, 0),
            turns: Turns::with_capacity(count),
            queues: vec![queue; count].into(),
            buckets: vec![NONE; count.next_power_of_two()].into(),
            calls: (0..slots).map(|i| Waiting { submission: NOTHING, next: next(i) }).collect(),
            free: if slots == 0 { NONE } else { 0 },
            hand: 0,
            suspended: 0,
            parked: 0,
        }
    }

    /// Whether any function wants the core.
    #[inline]
    pub fn wants(&self) -> bool {
        !self.turns.is_empty()
    }

    /// How many functions want the core.
    #[inline]
    pub fn wanting(&self) -> usize {
        self.turns.len()
    }

    /// How many functions are parked.
    #[inline]
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// The function that wants the core, where it is the only one.
    #[inline]
    pub fn only(&self) -> Option<u32> {
        if self.turns.len() != 1 {
            return None;
        }
        self.turns.first().map(|queue| self.queues[queue].function)
    }

    /// Whose turn it is.
    #[inline]
    pub fn turn(&mut self) -> Option<usize> {
        self.turns.turn()
    }

    /// Puts a call at the end of its function's queue.
    ///
    /// # Errors
    /// [`Full`].
    #[inline]
    pub fn push(&mut self, submission: &Submission) -> Result<(), Full> {
        let place = self.free;
        let Some(waiting) = self.calls.get_mut(place as usize) else { return Err(Full) };
        self.free = waiting.next;
        *waiting = Waiting { submission: *submission, next: NONE };
        let index = self.find(submission.function);
        let queue = &mut self.queues[index];
        match self.calls.get_mut(queue.last as usize) {
            Some(last) => last.next = place,
            None => queue.first = place,
        }
        queue.last = place;
        self.wake(index);
        Ok(())
    }

    /// A queue has something to do, unless it is parked.
    #[inline]
    fn wake(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if queue.standing == Standing::Idle {
            queue.standing = Standing::Wants;
            self.turns.join(index, &mut queue.account);
        }
    }

    #[inline]
    fn bucket(&self, function: u32) -> usize {
        function as usize & (self.buckets.len() - 1)
    }

    /// The queue of a function.
    #[inline]
    fn find(&mut self, function: u32) -> usize {
        self.look_up(function).unwrap_or_else(|| self.make(function))
    }

    /// The queue of a function, where it has one.
    #[inline]
    fn look_up(&self, function: u32) -> Option<usize> {
        let mut at = self.buckets[self.bucket(function)];
        while let Some(queue) = self.queues.get(at as usize) {
            if queue.function == function {
                return Some(at as usize);
            }
            at = queue.next;
        }
        None
    }

    /// A queue for a function that has none, in the place of another that is idle.
    fn make(&mut self, function: u32) -> usize {
        let count = self.queues.len();
        let mut found = None;
        for (looks, index) in (self.hand..count).chain(0..self.hand).enumerate() {
            let queue = &self.queues[index];
            let is_free = matches!(queue.standing, Standing::Vacant | Standing::Idle);
            if is_free && self.turns.is_past(queue.account) {
                found = Some(index);
                break;
            }
            if is_free && found.is_none() {
                found = Some(index);
            }
            if looks >= LOOKS && found.is_some() {
                break;
            }
        }
        let index = found.expect("there are more queues than calls");
        self.hand = (index + 1) % count;
        if self.queues[index].standing == Standing::Idle {
            self.unlink(index);
        }
        let bucket = self.bucket(function);
        let queue = &mut self.queues[index];
        (queue.function, queue.account, queue.started) = (function, 0, 0);
        queue.standing = Standing::Idle;
        queue.next = std::mem::replace(&mut self.buckets[bucket], number(index));
        index
    }

    /// Takes a queue out of its bucket.
    fn unlink(&mut self, index: usize) {
        let (bucket, next) = (self.bucket(self.queues[index].function), self.queues[index].next);
        let mut at = self.buckets[bucket];
        if at as usize == index {
            self.buckets[bucket] = next;
            return;
        }
        while let Some(queue) = self.queues.get_mut(at as usize) {
            if queue.next as usize == index {
                queue.next = next;
                return;
            }
            at = queue.next;
        }
    }

    /// The number of a queue's function.
    #[inline]
    pub fn function(&self, queue: usize) -> u32 {
        self.queues[queue].function
    }

    /// The first call that waits.
    #[inline]
    pub fn first_call(&self, queue: usize) -> Option<&Submission> {
        self.calls.get(self.queues[queue].first as usize).map(|waiting| &waiting.submission)
    }

    /// Whether more than one call waits.
    #[inline]
    pub fn has_second(&self, queue: usize) -> bool {
        self.queues[queue].first != self.queues[queue].last
    }

    /// Takes the first call out.
    #[inline]
    pub fn pop(&mut self, queue: usize) -> Option<Submission> {
        let queue = &mut self.queues[queue];
        let place = queue.first;
        let waiting = self.calls.get_mut(place as usize)?;
        queue.first = waiting.next;
        if queue.first == NONE {
            queue.last = NONE;
        }
        queue.started = queue.started.saturating_add(1);
        waiting.next = self.free;
        self.free = place;
        Some(waiting.submission)
    }

    /// Calls of a queue that are suspended.
    #[inline]
    pub fn suspended(&self, queue: usize) -> usize {
        self.queues[queue].suspended as usize
    }

    /// Calls of the lane that are suspended.
    #[inline]
    pub fn suspended_in_all(&self) -> usize {
        self.suspended
    }

    /// See [`Backlog::started`](crate::backlog::Backlog::started).
    #[inline]
    pub fn started(&self, queue: usize) -> u32 {
        self.queues[queue].started
    }

    /// It resumes one.
    pub fn resumes(&mut self, queue: usize) {
        self.queues[queue].started = 0;
    }

    /// A call was suspended for the first time.
    pub fn call_suspended(&mut self, function: u32) {
        let index = self.find(function);
        self.queues[index].suspended += 1;
        self.suspended += 1;
        if self.queues[index].standing == Standing::Parked {
            self.parked -= 1;
            self.queues[index].standing = Standing::Idle;
        }
        self.wake(index);
    }

    /// A suspended call is over.
    pub fn call_over(&mut self, queue: usize) {
        self.queues[queue].suspended -= 1;
        self.suspended -= 1;
    }

    fn has_calls(&self, queue: usize) -> bool {
        self.queues[queue].first != NONE || self.queues[queue].suspended > 0
    }

    /// Whose turn it is has used so much.
    #[inline]
    pub fn used(&mut self, index: usize, used: u64) {
        let wants_more = self.has_calls(index);
        let queue = &mut self.queues[index];
        if !wants_more {
            queue.standing = Standing::Idle;
        }
        self.turns.used(&mut queue.account, used, wants_more);
    }

    /// A function used so much while none wanted the core.
    pub fn used_alone(&mut self, function: u32, used: u64) {
        let index = self.find(function);
        let queue = &mut self.queues[index];
        if queue.standing == Standing::Idle && self.turns.is_empty() {
            self.turns.used_alone(&mut queue.account, used);
        } else {
            // It waits, or will; its place among those that wait is as it was.
            queue.account = queue.account.saturating_add(used);
        }
    }

    /// Whose turn it is can do nothing.
    pub fn park(&mut self, queue: usize) {
        self.turns.leave();
        self.queues[queue].standing = Standing::Parked;
        self.parked += 1;
    }

    /// Those that are parked want the core again.
    pub fn release(&mut self) {
        for index in 0..self.queues.len() {
            if self.queues[index].standing == Standing::Parked {
                self.queues[index].standing = Standing::Idle;
                self.wake(index);
            }
        }
        self.parked = 0;
    }

    /// Whether calls of this function wait.
    pub fn has_calls_of(&self, function: u32) -> bool {
        self.look_up(function).is_some_and(|queue| self.queues[queue].first != NONE)
    }

    /// Takes out a call whose function is one of these, wherever it stands in the order of turns.
    pub fn take_out(&mut self, is_wanted: impl Fn(u32) -> bool) -> Option<Submission> {
        let wanted = |queue: &Queue| queue.first != NONE && is_wanted(queue.function);
        let index = self.queues.iter().position(wanted)?;
        let submission = self.pop(index);
        if !self.has_calls(index) {
            match std::mem::replace(&mut self.queues[index].standing, Standing::Idle) {
                Standing::Parked => self.parked -= 1,
                _ => self.turns.remove(index),
            }
        }
        submission
    }
}
