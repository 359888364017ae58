//! The numbers of the lanes of one worker process. A number is free again when the worker has said that its lane is gone, and not before.

use crate::attach::HOSTS_MAX;

/// See the module. Number 0 is the node's own lane.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    taken: u128,
}

impl Numbers {
    /// The lowest free number; `None` where the worker has as many lanes as it can have.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let number = (1..=HOSTS_MAX).find(|number| self.taken >> number & 1 == 0)?;
        self.taken |= 1 << number;
        Some(number)
    }

    pub(crate) fn give_back(&mut self, number: u32) {
        self.taken &= !(1 << number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_come_back() {
        let mut numbers = Numbers::default();
        assert_eq!((1..=HOSTS_MAX).filter(|n| numbers.take() == Some(*n)).count(), HOSTS_MAX as usize);
        assert_eq!(numbers.take(), None);
        numbers.give_back(77);
        assert_eq!((numbers.take(), numbers.take()), (Some(77), None));
    }
}
