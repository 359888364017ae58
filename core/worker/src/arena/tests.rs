//! Blocks do not overlap, keep their bytes, are used again, and are zero after a reset.

use super::*;

fn fill(block: *mut u8, size: usize, byte: u8) {
    // SAFETY: the test owns the block.
    unsafe { block.write_bytes(byte, size) };
}

fn holds(block: *mut u8, size: usize, byte: u8) -> bool {
    // SAFETY: the test owns the block.
    unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|b| *b == byte)
}

/// A pseudo-random program of allocations whose blocks all hold their own byte.
#[test]
fn blocks_do_not_overlap_and_keep_their_bytes() {
    let mut arena = Arena::new(4 << 20).unwrap();
    let mut seed = 1u64;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % n
    };
    for _round in 0..20 {
        let mut live: Vec<(*mut u8, usize, usize, u8)> = Vec::new();
        for step in 0..2000u32 {
            let byte = u8::try_from(step % 255).unwrap() + 1;
            let bound = if random(10) == 0 { 20_000 } else { 300 };
            let size = 1 + random(bound);
            match random(4) {
                0 if !live.is_empty() => {
                    let (block, size, _, byte) = live.swap_remove(random(live.len()));
                    assert!(holds(block, size, byte));
                    // SAFETY: allocated below, removed from the list.
                    unsafe { arena.dealloc(block, size) };
                }
                1 if !live.is_empty() => {
                    let index = random(live.len());
                    let (block, old, align, byte) = live[index];
                    // SAFETY: allocated below with this size and alignment.
                    let moved = unsafe { arena.realloc(block, old, align, size) };
                    if !moved.is_null() {
                        assert!(holds(moved, old.min(size), byte));
                        fill(moved, size, byte);
                        live[index] = (moved, size, align, byte);
                    }
                }
                kind => {
                    let align = 1 << random(8);
                    let block = arena.alloc(size, align, kind == 2);
                    if !block.is_null() {
                        assert_eq!(block.addr() % align, 0);
                        assert!(kind != 2 || holds(block, size, 0), "zeroed memory was not zero");
                        fill(block, size, byte);
                        live.push((block, size, align, byte));
                    }
                }
            }
        }
        assert!(live.iter().all(|&(block, size, _, byte)| holds(block, size, byte)));
        // SAFETY: the blocks are not used any more.
        unsafe { arena.reset() };
    }
}

#[test]
fn a_reset_arena_is_zero_and_whole_again() {
    for used in [100, KEEP_BYTES, KEEP_BYTES + 5000] {
        let mut arena = Arena::new(16 << 20).unwrap();
        fill(arena.alloc(used, 1, false), used, 0xaa);
        // SAFETY: the block is not used any more.
        unsafe { arena.reset() };
        let whole = arena.alloc(8 << 20, 1, false);
        assert!(holds(whole, 8 << 20, 0), "{used} bytes used");
    }
}

#[test]
fn an_image_brings_back_blocks_and_lists() {
    let mut arena = Arena::new(1 << 20).unwrap();
    let (kept, freed) = (arena.alloc(1000, 16, false), arena.alloc(100, 16, false));
    let last = arena.alloc(16, 16, false);
    fill(kept, 1000, 7);
    // SAFETY: allocated above.
    unsafe { arena.dealloc(freed, 100) };
    let image = arena.image();
    for round in 0..3 {
        assert_eq!(arena.alloc(100, 16, false), freed, "round {round}: the freed block is on its list");
        let next = arena.alloc(2000, 16, true);
        assert!(next > last && holds(next, 2000, 0) && holds(kept, 1000, 7));
        fill(next, 2000, 9);
        fill(kept, 1000, 9);
        // SAFETY: `next` is not used any more.
        unsafe { arena.restore(&image) };
    }
    assert!(holds(kept, 1000, 7));
}

#[test]
fn large_and_small_by_turns_do_not_use_the_arena_up() {
    let mut arena = Arena::new(80 << 20).unwrap();
    for _ in 0..100 {
        let (small, large) = (arena.alloc(1 << 20, 1, false), arena.alloc(64 << 20, 1, false));
        assert!(!small.is_null() && !large.is_null());
        // SAFETY: allocated on the line before.
        unsafe { arena.dealloc(small, 1 << 20) };
        // SAFETY: as above.
        unsafe { arena.dealloc(large, 64 << 20) };
    }
}

#[test]
fn aligned_blocks_are_used_again_in_any_order() {
    for align in [32, 64, 256, 4096] {
        let mut arena = Arena::new(1 << 20).unwrap();
        let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
        for round in 0..20_000usize {
            let size = 1 + round * 37 % (8 * align.min(512));
            let block = arena.alloc(size, align, round.is_multiple_of(3));
            assert!(!block.is_null(), "blocks at multiples of {align} used the arena up after {round}");
            assert!(block.addr().is_multiple_of(align));
            assert!(!round.is_multiple_of(3) || holds(block, size, 0), "zeroed memory was not zero");
            let byte = u8::try_from(round % 255).unwrap() + 1;
            fill(block, size, byte);
            live.push((block, size, byte));
            if live.len() == 12 {
                let (block, size, byte) = live.swap_remove(round % 11);
                assert!(holds(block, size, byte));
                // SAFETY: allocated above, removed from the list.
                unsafe { arena.dealloc(block, size) };
            }
        }
    }
}

#[test]
fn what_is_skipped_for_alignment_is_not_lost() {
    let mut arena = Arena::new(1 << 20).unwrap();
    let small = arena.alloc(16, 16, false);
    let aligned = arena.alloc(4096, 4096, false);
    // The largest class that fits in between.
    let next = arena.alloc(3584, 16, false);
    assert!(small < next && next < aligned, "the page before an aligned block lies idle");
}

#[test]
fn what_does_not_fit_is_null() {
    let mut arena = Arena::new(ARENA_BYTES_MIN).unwrap();
    assert!(arena.alloc(ARENA_BYTES_MIN + 1, 1, false).is_null());
    assert!(arena.alloc(usize::MAX, 1, false).is_null());
    let aligned = arena.alloc(16, 1 << 15, false);
    assert!(aligned.is_null() || aligned.addr().is_multiple_of(1 << 15));
    assert!(arena.alloc(16, 1 << 40, false).is_null());
    assert!(!Arena::new(ARENA_BYTES_MIN).unwrap().alloc(ARENA_BYTES_MIN / 2, 1, false).is_null());
}

/// A quarter of the arena in use at most, in sizes that hardly come again; then none.
#[test]
fn what_is_free_becomes_one_piece_when_nothing_else_fits() {
    let mut arena = Arena::new(1 << 20).unwrap();
    let mut seed = 1usize;
    let mut live: Vec<(*mut u8, usize, u8)> = Vec::new();
    for round in 0..50_000usize {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (size, align) = (1 + (seed >> 33) % 20_000, 1 << (seed >> 60));
        let byte = u8::try_from(round % 255).unwrap() + 1;
        let block = arena.alloc(size, align.min(256), round.is_multiple_of(3));
        assert!(!block.is_null(), "used up after {round} blocks");
        assert!(!round.is_multiple_of(3) || holds(block, size, 0), "zeroed memory was not zero");
        fill(block, size, byte);
        live.push((block, size, byte));
        if live.len() > 20 {
            let (block, size, byte) = live.swap_remove((seed >> 20) % 20);
            assert!(holds(block, size, byte), "round {round}");
            // SAFETY: allocated above, removed from the list.
            unsafe { arena.dealloc(block, size) };
        }
    }
    for (block, size, byte) in live.drain(..) {
        assert!(holds(block, size, byte));
        // SAFETY: as above.
        unsafe { arena.dealloc(block, size) };
    }
    assert!(!arena.alloc(1 << 20, 1, false).is_null(), "all of it is free, and in one piece");
    assert!(arena.alloc(16, 1, false).is_null());
}
