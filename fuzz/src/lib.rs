//! What the targets share: a bound on the memory that reading an input may take, and a way to read one again without
//! libFuzzer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Inputs have some kilobytes; the longest event that is waited for has 16 MiB.
const MOST: usize = 64 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, which counts what is held and has nothing beyond the limit. The program aborts then, which
/// is a finding like a panic.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[expect(unsafe_code, reason = "an allocator has no other interface")]
// SAFETY: the system's allocator does all of it; what is refused is null, as the trait allows.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD
            .fetch_add(layout.size(), Relaxed)
            .saturating_add(layout.size());
        if held > LIMIT.load(Relaxed) {
            // What tells of it needs some memory itself.
            LIMIT.store(usize::MAX, Relaxed);
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the promises of the trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the promises of the trait.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Gives a target an input; aborts when reading it takes too much memory.
pub fn within_memory(bytes: &[u8], target: fn(&[u8])) {
    LIMIT.store(HELD.load(Relaxed).saturating_add(MOST), Relaxed);
    target(bytes);
    LIMIT.store(usize::MAX, Relaxed);
}

/// Gives a target the files that the command line names.
///
/// # Errors
/// When one cannot be read.
pub fn replay(target: fn(&[u8])) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        within_memory(&std::fs::read(path)?, target);
    }
    Ok(())
}

/// The program of a target: libFuzzer's, or without it one that reads the files that the command line names.
#[macro_export]
macro_rules! target {
    ($target:path) => {
        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::within_memory(bytes, $target));

        #[cfg(not(feature = "libfuzzer"))]
        fn main() -> std::io::Result<()> {
            $crate::replay($target)
        }
    };
}
