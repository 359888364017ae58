//! The table of lanes. A lane keeps its number, also the one by which calls name it, for as long as it lives; the number of one that has gone is free again.

use std::io;
use std::ops::{Index, IndexMut};

use microfaas_sys::futex;

use crate::control::Lane;

/// The lane of the node itself. It is there from the start to the end, and the worker looks at the control socket when its control count moves: that of
/// another lane is the word of a host that may not be trusted.
pub const NODE: usize = 0;

/// See the module.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<Option<Lane>>,
    /// Others than the call that runs now want the core, and are in no ring: it is not to have more than its slice.
    pub has_rival: bool,
}

impl Lanes {
    /// Those that are there.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.iter().flatten()
    }

    /// As [`iter`](Self::iter), to change them.
    #[inline]
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut().flatten()
    }

    /// All numbers are below this.
    #[inline]
    #[must_use]
    pub fn end(&self) -> usize {
        self.lanes.len()
    }

    /// The lane of this number.
    #[inline]
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&Lane> {
        self.lanes.get(number)?.as_ref()
    }

    /// As [`get`](Self::get), to change it.
    #[inline]
    #[must_use]
    pub fn get_mut(&mut self, number: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(number)?.as_mut()
    }

    /// Makes room for a lane of this number.
    ///
    /// # Errors
    /// Where there is such a lane, or the worker could not sleep on so many.
    pub fn vacant(&mut self, number: u32) -> io::Result<&mut Option<Lane>> {
        let index = number as usize;
        if index >= futex::WAIT_ANY_MAX {
            return Err(io::Error::other(format!(
                "lane {number}, and there are at most {}",
                futex::WAIT_ANY_MAX
            )));
        }
        if index >= self.lanes.len() {
            self.lanes.resize_with(index + 1, || None);
        }
        match &mut self.lanes[index] {
            Some(_) => Err(io::Error::other(format!("lane {number} twice"))),
            vacant => Ok(vacant),
        }
    }

    /// Takes a lane out. Nothing of the worker's may name it any more.
    pub fn remove(&mut self, number: usize) -> Option<Lane> {
        let lane = self.lanes.get_mut(number)?.take();
        while self.lanes.last().is_some_and(Option::is_none) {
            self.lanes.pop();
        }
        lane
    }

    /// Whether the node has sent a packet.
    #[inline]
    #[must_use]
    pub fn control_waits(&self) -> bool {
        self.lanes.first().and_then(Option::as_ref).is_some_and(Lane::control_waits)
    }
}

impl Index<usize> for Lanes {
    type Output = Lane;

    #[inline]
    fn index(&self, number: usize) -> &Lane {
        self.lanes[number].as_ref().expect("calls of a lane are dropped before it is")
    }
}

impl IndexMut<usize> for Lanes {
    #[inline]
    fn index_mut(&mut self, number: usize) -> &mut Lane {
        self.lanes[number].as_mut().expect("calls of a lane are dropped before it is")
    }
}
