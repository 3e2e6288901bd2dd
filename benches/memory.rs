//! What the benchmarks count memory with: shared, and no benchmark by itself.

// No benchmark uses all of it.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// The system's allocator, which counts while asked to.
pub struct CountingAllocator;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATED: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

impl CountingAllocator {
    /// Runs `f`; the greatest amount of memory (MB) it had allocated at any time beside what there was before.
    pub fn peak_mb<T>(f: impl FnOnce() -> T) -> (T, f64) {
        ALLOCATED.store(0, Ordering::Relaxed);
        PEAK.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        let value = f();
        COUNTING.store(false, Ordering::Relaxed);
        (value, PEAK.load(Ordering::Relaxed) as f64 / 1e6)
    }

    /// Runs `f`; how many times it allocated memory, or made an allocation larger or smaller.
    pub fn allocations<T>(f: impl FnOnce() -> T) -> (T, u64) {
        ALLOCATIONS.store(0, Ordering::Relaxed);
        COUNTING.store(true, Ordering::Relaxed);
        let value = f();
        COUNTING.store(false, Ordering::Relaxed);
        (value, ALLOCATIONS.load(Ordering::Relaxed))
    }

    /// Notes a change by so many bytes, which is an allocation unless memory is given back.
    fn count(bytes: i64, allocations: u64) {
        if COUNTING.load(Ordering::Relaxed) {
            let allocated = ALLOCATED.fetch_add(bytes, Ordering::Relaxed) + bytes;
            PEAK.fetch_max(allocated, Ordering::Relaxed);
            ALLOCATIONS.fetch_add(allocations, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is handed on unchanged to the system's allocator; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size() as i64, 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::count(-(layout.size() as i64), 0);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count(size as i64 - layout.size() as i64, 1);
        unsafe { System.realloc(memory, layout, size) }
    }
}
