//! Size classes of blocks: 16-byte steps up to 128, then four for each doubling.

/// All blocks are multiples of it, and lie at such.
pub(super) const GRANULE: usize = 16;
/// Room for the class of the largest arena, 124.
pub(super) const CLASSES: usize = 128;

/// The class of a block of `size` bytes and the bytes that blocks of that class have.
#[inline]
pub(super) const fn class_of(size: usize) -> (usize, usize) {
    let size = if size < GRANULE { GRANULE } else { size };
    if size <= 128 {
        let class = size.div_ceil(GRANULE);
        return (class, class * GRANULE);
    }
    // Four classes for each doubling above 128: steps of a quarter of the power of two below.
    let power = (size - 1).ilog2();
    let step = 1usize << (power - 2);
    let quarter = (size - (1 << power)).div_ceil(step);
    (8 + (power as usize - 7) * 4 + quarter, (1 << power) + quarter * step)
}

/// Bytes of a block of a class.
#[inline]
pub(super) const fn class_bytes(class: usize) -> usize {
    if class <= 8 {
        return class * GRANULE;
    }
    let (doubling, quarter) = ((class - 9) / 4, (class - 9) % 4 + 1);
    let power = 7 + doubling;
    (1 << power) + quarter * (1 << (power - 2))
}

/// The largest class whose blocks fit `bytes`, and their size. `bytes` is at least 16.
#[inline]
pub(super) const fn largest_class_within(bytes: usize) -> (usize, usize) {
    let (class, size) = class_of(bytes);
    if size <= bytes { (class, size) } else { (class - 1, class_bytes(class - 1)) }
}

#[cfg(test)]
mod tests {
    use super::super::ARENA_BYTES_MAX;
    use super::*;

    #[test]
    fn classes_are_tight_and_consistent() {
        for size in (1..5000).chain([1 << 20, (1 << 20) + 1, (1 << 30) - 1, ARENA_BYTES_MAX]) {
            let (class, bytes) = class_of(size);
            assert!(bytes >= size && bytes.is_multiple_of(GRANULE), "{size}: {bytes}");
            assert!(size < GRANULE || bytes - size < GRANULE.max(size / 4 + 1), "{size}: {bytes}");
            assert_eq!(class_bytes(class), bytes, "{size}");
            assert!(class < CLASSES);
            let (within, fits) = largest_class_within(bytes);
            assert_eq!((within, fits), (class, bytes));
        }
    }
}
