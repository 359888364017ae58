//! Where everything lies in a lane's three regions. `docs/protocol.md` says the same in prose.
//!
//! | region | written by | mapped by the worker | holds |
//! | --- | --- | --- | --- |
//! | down | host | read-only (sealed against writing) | header, host words, submission ring, small requests |
//! | bulk | host | read-only (read-only descriptor) | large requests; pages come when touched and go back afterwards |
//! | up | both | read-write | header, worker words, completion ring, call states with small responses, overflow |
//!
//! Slots `0..small_slots` are small: their requests fit the down region. Slots from `small_slots` are large:
//! their requests lie in bulk. Every response starts in its slot's small response buffer and moves to the slot's
//! overflow buffer when it outgrows it, so no response needs a slot of another class.
//!
//! A stride is one line longer than a power of two, so that the first lines of neighbouring slots
//! fall into different cache sets.

/// First word of each region: `"mfaaslan"` in little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"mfaaslan");
/// Version of this layout and of the protocol on it.
pub const LAYOUT_VERSION: u32 = 3;
/// Bytes of a cache line, and of a ring entry.
pub const LINE: usize = 64;
/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Offset of the words that the host writes, in the down region.
pub const HOST_WORDS: usize = LINE;
/// Offset of the words that the worker writes, in the up region.
pub const WORKER_WORDS: usize = LINE;
/// Offset of the ring, in the down and up regions.
pub const RING: usize = PAGE;
/// Bytes of a call state. The states of all slots lie together, behind the ring in the up region.
pub const STATE_BYTES: usize = 8;

/// Most slots in a lane, both classes together.
pub const SLOTS_MAX: u32 = 4096;
/// Range of `small_bytes`.
pub const SMALL_BYTES: core::ops::RangeInclusive<u32> = 256..=65_536;
/// Range of `large_bytes` and `response_bytes`.
pub const LARGE_BYTES: core::ops::RangeInclusive<u32> = 4096..=1 << 30;

/// The start of each region. Written once by the host before the worker maps it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`LAYOUT_VERSION`].
    pub layout_version: u32,
    /// 0 down, 1 bulk, 2 up.
    pub region: u32,
    /// Bytes of the region.
    pub total_bytes: u64,
    /// The geometry that the offsets follow from.
    pub geometry: Geometry,
    /// Fills the line; zero.
    pub reserved: [u32; 5],
}

/// The sizes of a lane.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Geometry {
    /// Small slots; at least 1.
    pub small_slots: u32,
    /// Large slots; may be 0.
    pub large_slots: u32,
    /// Request bytes (body and metadata) of a small slot, and response bytes before it overflows; a multiple of 64.
    pub small_bytes: u32,
    /// Request bytes of a large slot; a multiple of 4096.
    pub large_bytes: u32,
    /// Most response bytes of any slot; a multiple of 4096.
    pub response_bytes: u32,
}

const _: () = assert!(size_of::<Header>() == LINE);
const _: () = assert!(size_of::<Geometry>() == 20);
const _: () = assert!(core::mem::offset_of!(Header, geometry) == 24);

/// A geometry outside the allowed ranges: the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeometryError(pub &'static str);

impl core::fmt::Display for GeometryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            "slots" => write!(f, "slots are outside 1 to {SLOTS_MAX}, of which at least one is small"),
            "small_bytes" => {
                write!(
                    f,
                    "small_bytes is not a multiple of 64 from {} to {}",
                    SMALL_BYTES.start(),
                    SMALL_BYTES.end()
                )
            }
            name => write!(
                f,
                "{name} is not a multiple of 4096 from {} to {}",
                LARGE_BYTES.start(),
                LARGE_BYTES.end()
            ),
        }
    }
}

impl core::error::Error for GeometryError {}

impl Default for Geometry {
    /// 128 small slots of 4 KiB, 16 large ones, both ways up to 16 MiB.
    fn default() -> Self {
        Self {
            small_slots: 128,
            large_slots: 16,
            small_bytes: 4096,
            large_bytes: 16 << 20,
            response_bytes: 16 << 20,
        }
    }
}

impl Geometry {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn check(&self) -> Result<(), GeometryError> {
        let slots = self.small_slots.checked_add(self.large_slots);
        if self.small_slots == 0 || slots.is_none_or(|n| n > SLOTS_MAX) {
            return Err(GeometryError("slots"));
        }
        if !SMALL_BYTES.contains(&self.small_bytes) || !self.small_bytes.is_multiple_of(64) {
            return Err(GeometryError("small_bytes"));
        }
        for (name, bytes) in [("large_bytes", self.large_bytes), ("response_bytes", self.response_bytes)] {
            if !LARGE_BYTES.contains(&bytes) || !bytes.is_multiple_of(4096) {
                return Err(GeometryError(name));
            }
        }
        Ok(())
    }

    /// Slots of both classes.
    #[must_use]
    pub const fn slots(&self) -> u32 {
        self.small_slots + self.large_slots
    }

    /// Entries of each ring: the power of two that holds every slot at once, so neither can be full.
    #[must_use]
    pub const fn ring_entries(&self) -> u32 {
        self.slots().next_power_of_two()
    }

    /// Whether the slot is of the large class.
    #[must_use]
    pub const fn is_large(&self, slot: u32) -> bool {
        slot >= self.small_slots
    }

    /// Request bytes that the slot holds.
    #[must_use]
    pub const fn request_capacity(&self, slot: u32) -> usize {
        if self.is_large(slot) { self.large_bytes as usize } else { self.small_bytes as usize }
    }

    /// Response bytes before a response overflows.
    #[must_use]
    pub const fn small_response_capacity(&self) -> usize {
        self.small_bytes as usize
    }

    const fn stride(&self) -> usize {
        self.small_bytes as usize + LINE
    }

    const fn ring_bytes(&self) -> usize {
        self.ring_entries() as usize * LINE
    }

    /// Offset of a small slot's request in the down region, or of a large slot's in bulk.
    #[must_use]
    pub const fn request_offset(&self, slot: u32) -> usize {
        if self.is_large(slot) {
            PAGE + (slot - self.small_slots) as usize * self.large_bytes as usize
        } else {
            RING + self.ring_bytes() + slot as usize * self.stride()
        }
    }

    /// Offset of the slot's call state in the up region.
    #[must_use]
    pub const fn state_offset(&self, slot: u32) -> usize {
        RING + self.ring_bytes() + slot as usize * STATE_BYTES
    }

    const fn states_bytes(&self) -> usize {
        (self.slots() as usize * STATE_BYTES).next_multiple_of(LINE)
    }

    /// Offset of the slot's small response buffer in the up region.
    #[must_use]
    pub const fn response_offset(&self, slot: u32) -> usize {
        RING + self.ring_bytes() + self.states_bytes() + slot as usize * self.stride()
    }

    /// Offset of the slot's overflow buffer in the up region.
    #[must_use]
    pub const fn overflow_offset(&self, slot: u32) -> usize {
        self.resident_up_bytes() + slot as usize * self.response_bytes as usize
    }

    /// Bytes of the down region.
    #[must_use]
    pub const fn down_bytes(&self) -> usize {
        (RING + self.ring_bytes() + self.small_slots as usize * self.stride()).next_multiple_of(PAGE)
    }

    /// Bytes of the bulk region: a header page, then the large requests.
    #[must_use]
    pub const fn bulk_bytes(&self) -> usize {
        PAGE + self.large_slots as usize * self.large_bytes as usize
    }

    /// Bytes at the start of the up region that are populated when the lane is made: all but the overflow.
    #[must_use]
    pub const fn resident_up_bytes(&self) -> usize {
        self.response_offset(self.slots()).next_multiple_of(PAGE)
    }

    /// Bytes of the up region.
    #[must_use]
    pub const fn up_bytes(&self) -> usize {
        self.resident_up_bytes() + self.slots() as usize * self.response_bytes as usize
    }

    /// The header of a region of this geometry.
    #[must_use]
    pub const fn header(&self, region: Region) -> Header {
        let total_bytes = match region {
            Region::Down => self.down_bytes(),
            Region::Bulk => self.bulk_bytes(),
            Region::Up => self.up_bytes(),
        } as u64;
        Header {
            magic: MAGIC,
            layout_version: LAYOUT_VERSION,
            region: region as u32,
            total_bytes,
            geometry: *self,
            reserved: [0; 5],
        }
    }
}

/// One of the three regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Region {
    /// Host to worker, small.
    Down = 0,
    /// Host to worker, large requests.
    Bulk = 1,
    /// Worker to host.
    Up = 2,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_two_buffers_overlap() {
        for geometry in [
            Geometry::default(),
            Geometry {
                small_slots: 1,
                large_slots: 0,
                small_bytes: 256,
                large_bytes: 4096,
                response_bytes: 4096,
            },
            Geometry {
                small_slots: 5,
                large_slots: 3,
                small_bytes: 320,
                large_bytes: 8192,
                response_bytes: 4096,
            },
        ] {
            geometry.check().unwrap();
            let mut end_down = RING + geometry.ring_entries() as usize * LINE;
            let mut end_bulk = PAGE;
            let mut end_state = end_down;
            let mut end_response = geometry.state_offset(geometry.slots());
            let mut end_overflow = geometry.resident_up_bytes();
            for slot in 0..geometry.slots() {
                let end = if geometry.is_large(slot) { &mut end_bulk } else { &mut end_down };
                assert!(geometry.request_offset(slot) >= *end);
                *end = geometry.request_offset(slot) + geometry.request_capacity(slot);
                assert!(geometry.state_offset(slot) >= end_state);
                assert_eq!(geometry.state_offset(slot) % 8, 0);
                end_state = geometry.state_offset(slot) + STATE_BYTES;
                assert!(geometry.response_offset(slot) >= end_response);
                assert_eq!(geometry.response_offset(slot) % LINE, 0);
                end_response = geometry.response_offset(slot) + geometry.small_response_capacity();
                assert!(geometry.overflow_offset(slot) >= end_overflow);
                end_overflow = geometry.overflow_offset(slot) + geometry.response_bytes as usize;
            }
            assert!(end_down <= geometry.down_bytes());
            assert!(end_bulk <= geometry.bulk_bytes());
            assert!(end_response <= geometry.resident_up_bytes());
            assert!(end_overflow <= geometry.up_bytes());
        }
    }

    #[test]
    fn ranges_are_enforced() {
        let good = Geometry::default();
        for (bad, field) in [
            (Geometry { small_slots: 0, ..good }, "slots"),
            (Geometry { large_slots: u32::MAX, ..good }, "slots"),
            (Geometry { small_bytes: 100, ..good }, "small_bytes"),
            (Geometry { large_bytes: 4097, ..good }, "large_bytes"),
            (Geometry { response_bytes: 0, ..good }, "response_bytes"),
        ] {
            assert_eq!(bad.check(), Err(GeometryError(field)));
        }
    }
}
