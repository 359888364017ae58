//! What a node has counted of its calls since it was started.

use microfaas_lane::{Status, Violation};

use crate::node::Shared;

/// Counts since the node was started; each is exact, together they are not from one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that came back, by status in the order of `Status::ALL`, whether or not their callers still waited at the end.
    pub completed: [u64; Status::ALL.len()],
    /// Calls that came back after their callers had gone: hung up, or past their deadline.
    pub abandoned: u64,
    /// Calls on their way now.
    pub outstanding: u64,
    /// Workers that have ended, whatever for, and were replaced.
    pub restarts: u64,
    /// Times a worker broke the lane's protocol.
    pub violations: u64,
    /// One of the latest such breaks.
    pub last_violation: Option<Violation>,
    /// Times a call was submitted while another had a long slice, whose rest was then taken from it.
    pub pokes: u64,
    /// Times a call went to another worker before it had started, or to be run again.
    pub moves: u64,
    /// Times a call was run again since its worker was lost with it: of functions that are declared idempotent.
    pub retries: u64,
}

impl Stats {
    /// Calls that came back with this status to a caller who waited.
    #[must_use]
    pub fn completed(&self, status: Status) -> u64 {
        self.completed[status as usize]
    }

    /// Calls that were accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.completed.iter().sum::<u64>() + self.abandoned + self.outstanding
    }
}

impl Shared {
    /// Whoever has a call's answer finds the call counted: a thread that is just taking completions counts them while it has the reader.
    pub(crate) fn stats(&self) -> Stats {
        for lane in self.lanes() {
            drop(lane.lock());
        }
        let mut stats = Stats::default();
        for seat in &self.seats {
            seat.counters.add_to(&mut stats);
            let info = seat.info();
            stats.outstanding += u64::from(info.outstanding);
            stats.restarts += u64::from(info.restarts);
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use crate::CallError;
    use crate::moves::tests::node;
    use crate::names::Entry;

    /// As when the supervisor has taken the answer, and its owner asks before it has been counted.
    #[test]
    fn a_call_whose_answer_is_there_is_counted() -> Result<(), CallError> {
        let (shared, mut lanes) = node(1);
        let entry = Entry { function: 5, deadline_ns: u64::MAX, concurrency: 0, ..Entry::NONE };
        shared.names.publish(&[Some(entry)]);
        let (lane, mut worker) = lanes.remove(0);
        shared.seats[0].open(lane.clone());
        let mut call = shared.prepare(0, (0, 0), || {})?.submit(0, &[], None)?;
        worker.answer(&[]);
        std::thread::scope(|scope| {
            let mut reader = lane.lock();
            let completed = lane.host.poll(&mut reader).expect("an honest worker").expect("its answer");
            assert!(call.try_take().is_some(), "the owner has it");
            let asked = scope.spawn(|| shared.stats());
            // Long enough for it to look, if it did not wait.
            std::thread::sleep(std::time::Duration::from_millis(50));
            lane.counters().told(&completed);
            lane.load().sub(1);
            drop(reader);
            let stats = asked.join().expect("it looks");
            assert_eq!((stats.outstanding, stats.completed(completed.status)), (0, 1));
        });
        Ok(())
    }
}
