//! Taking turns by what was used: of those that want the core, the one that has used least of it is next.
//!
//! Start-time fair queueing. Each member has an account, which grows by what the member uses. `now` is the account of the one that was served last, before
//! it was. A member that comes, or comes back, goes on at its own account, or at `now` where that is later: having been idle earns nothing, and what was
//! used just before is not forgotten. Of two members that want the core all the time neither gets ahead of the other by more than the longest
//! time that each has the core at once. Those with equal accounts go in the order in which they came, so that members that want little are served first come first served.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// See the module. A member is a number of the owner's, who also keeps its account: one number that starts at 0.
#[derive(Debug)]
pub struct Turns {
    places: BinaryHeap<Reverse<Place>>,
    now: u64,
    arrivals: u64,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    account: u64,
    arrival: u64,
    member: usize,
}

impl Turns {
    /// For that many members: more would allocate.
    #[must_use]
    pub fn with_capacity(members: usize) -> Self {
        Self { places: BinaryHeap::with_capacity(members), now: 0, arrivals: 0 }
    }

    /// How many want the core.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody wants the core.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A member that is not here wants the core.
    #[inline]
    pub fn join(&mut self, member: usize, account: &mut u64) {
        *account = (*account).max(self.now);
        let arrival = self.arrive();
        self.places.push(Reverse(Place { account: *account, arrival, member }));
    }

    #[inline]
    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Who is next, as far as nobody joins.
    #[inline]
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.places.peek().map(|Reverse(first)| first.member)
    }

    /// Whose turn it is: it stays the first, whoever joins, until it [has used](Self::used) the core or [leaves](Self::leave).
    #[inline]
    pub fn turn(&mut self) -> Option<usize> {
        let Reverse(first) = self.places.peek()?;
        self.now = self.now.max(first.account);
        Some(first.member)
    }

    /// The one whose turn it is has used so much; it wants more, or not.
    #[inline]
    pub fn used(&mut self, account: &mut u64, used: u64, wants_more: bool) {
        *account = account.saturating_add(used);
        let arrival = self.arrive();
        let Some(mut first) = self.places.peek_mut() else { return };
        if wants_more {
            first.0.account = *account;
            first.0.arrival = arrival;
        } else {
            PeekMut::pop(first);
        }
    }

    /// The one whose turn it is does not want the core any more.
    pub fn leave(&mut self) {
        self.places.pop();
    }

    /// A member that is not here has used so much, while nobody else wanted the core.
    pub fn used_alone(&mut self, account: &mut u64, used: u64) {
        self.now = self.now.max(*account);
        *account = self.now.saturating_add(used);
    }

    /// A member goes for good, whether it is here or not.
    pub fn remove(&mut self, member: usize) {
        self.places.retain(|Reverse(place)| place.member != member);
    }

    /// Whether an account says nothing any more: a member that has none would start at the same.
    #[inline]
    #[must_use]
    pub fn is_past(&self, account: u64) -> bool {
        account <= self.now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Serves the next one, which wants more.
    fn serve(turns: &mut Turns, accounts: &mut [u64], used: u64) -> usize {
        let member = turns.turn().expect("somebody wants the core");
        turns.used(&mut accounts[member], used, true);
        member
    }

    #[test]
    fn equal_accounts_go_in_the_order_of_arrival() {
        let (mut turns, mut accounts) = (Turns::with_capacity(8), [0; 8]);
        for member in [3, 1, 7, 0] {
            turns.join(member, &mut accounts[member]);
        }
        let order: Vec<_> = (0..8).map(|_| serve(&mut turns, &mut accounts, 5)).collect();
        assert_eq!(order, [3, 1, 7, 0, 3, 1, 7, 0]);
    }

    #[test]
    fn idling_earns_nothing_and_use_is_not_forgotten() {
        let (mut turns, mut accounts) = (Turns::with_capacity(2), [0; 2]);
        turns.join(0, &mut accounts[0]);
        (0..100).for_each(|_| assert_eq!(serve(&mut turns, &mut accounts, 10), 0));
        turns.join(1, &mut accounts[1]);
        // Not a hundred times: once for the turn that is under way, then by turns.
        let order: Vec<_> = (0..5).map(|_| serve(&mut turns, &mut accounts, 10)).collect();
        assert_eq!(order, [1, 0, 1, 0, 1]);
        // One that goes away with a debt and comes back has it still.
        assert_eq!(turns.turn(), Some(0));
        turns.used(&mut accounts[0], 1000, false);
        assert_eq!(turns.turn(), Some(1));
        turns.join(0, &mut accounts[0]);
        let served = (0..100).take_while(|_| serve(&mut turns, &mut accounts, 10) == 1).count();
        assert!((99..=100).contains(&served), "{served}");
    }

    #[test]
    fn what_was_used_alone_counts_once() {
        let (mut turns, mut accounts) = (Turns::with_capacity(2), [0; 2]);
        (0..1000).for_each(|_| turns.used_alone(&mut accounts[0], 10));
        turns.join(1, &mut accounts[1]);
        turns.join(0, &mut accounts[0]);
        let order: Vec<_> = (0..4).map(|_| serve(&mut turns, &mut accounts, 10)).collect();
        assert_eq!(order, [1, 0, 1, 0], "the last turn alone, not all of them");
    }

    #[test]
    fn who_goes_is_not_served() {
        let (mut turns, mut accounts) = (Turns::with_capacity(3), [0; 3]);
        (0..3).for_each(|member| turns.join(member, &mut accounts[member]));
        turns.remove(1);
        turns.remove(1);
        assert_eq!((serve(&mut turns, &mut accounts, 1), serve(&mut turns, &mut accounts, 1)), (0, 2));
        turns.leave();
        turns.leave();
        assert!(turns.is_empty() && turns.first().is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(usize),
        Serve { used: u64, wants_more: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6usize).prop_map(Step::Join),
            (1..50u64, prop::bool::weighted(0.8))
                .prop_map(|(used, wants_more)| Step::Serve { used, wants_more }),
        ]
    }

    proptest! {
        /// While two want the core all the time, what they use in that time differs by the longest turn of each at most.
        #[test]
        fn nobody_gets_ahead(steps in prop::collection::vec(step(), 1..400)) {
            let (mut turns, mut accounts) = (Turns::with_capacity(6), [0u64; 6]);
            let mut wants = [false; 6];
            let mut used_since = [[0u64; 6]; 6];
            for step in steps {
                match step {
                    Step::Join(member) if !wants[member] => {
                        turns.join(member, &mut accounts[member]);
                        wants[member] = true;
                        used_since[member] = [0; 6];
                        used_since.iter_mut().for_each(|used| used[member] = 0);
                    }
                    Step::Join(_) => {}
                    Step::Serve { used, wants_more } => {
                        let Some(member) = turns.turn() else {
                            prop_assert!(wants.iter().all(|wants| !wants));
                            continue;
                        };
                        prop_assert!(wants[member]);
                        let least = (0..6).filter(|&other| wants[other]).map(|other| accounts[other]).min();
                        prop_assert_eq!(Some(accounts[member]), least);
                        turns.used(&mut accounts[member], used, wants_more);
                        wants[member] = wants_more;
                        used_since[member].iter_mut().for_each(|since| *since += used);
                        for other in (0..6).filter(|&other| wants_more && wants[other]) {
                            let apart = used_since[member][other].abs_diff(used_since[other][member]);
                            prop_assert!(apart <= 2 * 50, "{} and {} are {} apart", member, other, apart);
                        }
                    }
                }
                prop_assert_eq!(turns.len(), wants.iter().filter(|wants| **wants).count());
            }
        }
    }
}
