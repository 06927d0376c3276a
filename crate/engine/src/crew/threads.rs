//! The threads themselves: one crew in a process, or in a browser in an instance of the module and those that share its memory.

use std::{
    cell::Cell,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How often a helper looks for work before it sleeps: some milliseconds, longer than what lies between the forks of a step and
/// between two steps, so that within a training none sleeps. (To sleep after a tenth of a millisecond made two threads slower
/// than one in Chromium: to wake one takes longer than most of what is shared out.) A look natively pauses; in wasm it does not.
const LOOKS: u32 = if cfg!(target_arch = "wasm32") {
    3_000_000
} else {
    100_000
};
/// How long helpers may take to come back from their last task, in sleeps of [`NAP`], until one is taken for dead: 20 seconds.
const PATIENCE: u32 = 2_000;
const NAP: Duration = Duration::from_millis(10);

type Work = dyn Fn(usize) + Sync;

/// One task after the other of what was forked.
#[derive(Clone, Copy)]
struct Job {
    work: *const Work,
    tasks: usize,
}

struct Crew {
    /// Threads that help.
    helpers: AtomicUsize,
    /// Whether someone has forked; who finds it so does its tasks alone.
    taken: AtomicBool,
    /// Odd while there is a job. Each job has its own.
    epoch: AtomicU32,
    /// Written only while there is no job and nobody is `inside`.
    job: Cell<Option<Job>>,
    /// The next task of the job.
    next: AtomicUsize,
    /// Helpers that look at the job.
    inside: AtomicUsize,
    /// A task panicked on a helper.
    failed: AtomicBool,
    sleepers: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
}

// SAFETY: `job` is written by the one who has `taken` the crew, while `epoch` is even and nobody is `inside`; it is read by who
// is `inside` and has found `epoch` odd afterwards. Both are sequentially consistent, so one of the two sees the other. What it
// points to lives until then, since `run` returns only when nobody is inside.
unsafe impl Sync for Crew {}

static CREW: Crew = Crew {
    helpers: AtomicUsize::new(0),
    taken: AtomicBool::new(false),
    epoch: AtomicU32::new(0),
    job: Cell::new(None),
    next: AtomicUsize::new(0),
    inside: AtomicUsize::new(0),
    failed: AtomicBool::new(false),
    sleepers: AtomicUsize::new(0),
    door: Mutex::new(()),
    bell: Condvar::new(),
};

thread_local! {
    /// Whether this thread is at a task: what that forks is not forked again.
    static AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Threads that share the work, the one that forks it included.
pub fn size() -> usize {
    if AT_WORK.get() {
        1
    } else {
        1 + CREW.helpers.load(Ordering::Relaxed)
    }
}

/// Makes this program train with `threads` threads; those that are missing are started. None is stopped: where there are more, they
/// stay. How many there are then.
#[cfg(not(target_arch = "wasm32"))]
pub fn start(threads: usize) -> usize {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    while CREW.helpers.load(Ordering::Relaxed) + 1 < threads {
        let before = CREW.helpers.load(Ordering::Relaxed);
        let builder = std::thread::Builder::new().name("unsaid-helper".into());
        if builder.spawn(|| help()).is_err() {
            break;
        }
        while CREW.helpers.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
    }
    CREW.helpers.load(Ordering::Relaxed) + 1
}

/// Makes the calling thread a helper, for good.
pub fn help() -> ! {
    AT_WORK.set(true);
    CREW.helpers.fetch_add(1, Ordering::Relaxed);
    let mut seen = 0;
    loop {
        let epoch = wait_for_another(seen);
        if epoch % 2 == 1 {
            CREW.inside.fetch_add(1, Ordering::SeqCst);
            let leave = Leave;
            if CREW.epoch.load(Ordering::SeqCst) == epoch {
                CREW.tasks();
            }
            drop(leave);
        }
        seen = epoch;
    }
}

/// Says that a helper is outside again, also when a task panics.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if std::thread::panicking() {
            CREW.failed.store(true, Ordering::Relaxed);
            CREW.helpers.fetch_sub(1, Ordering::Relaxed);
        }
        CREW.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until the epoch is not `seen`.
fn wait_for_another(seen: u32) -> u32 {
    for _ in 0..LOOKS {
        let epoch = CREW.epoch.load(Ordering::Acquire);
        if epoch != seen {
            return epoch;
        }
        std::hint::spin_loop();
    }
    let mut door = CREW.door.lock().unwrap_or_else(PoisonError::into_inner);
    CREW.sleepers.fetch_add(1, Ordering::SeqCst);
    loop {
        let epoch = CREW.epoch.load(Ordering::SeqCst);
        if epoch != seen {
            CREW.sleepers.fetch_sub(1, Ordering::SeqCst);
            return epoch;
        }
        door = CREW.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
    }
}

impl Crew {
    /// Takes tasks of the job until none is left.
    fn tasks(&self) {
        let Some(Job { work, tasks }) = self.job.get() else {
            return;
        };
        loop {
            let task = self.next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            // SAFETY: whoever is inside while there is a job keeps `run` from returning, so what was lent to it is there.
            unsafe { (*work)(task) };
        }
    }
}

/// Works on tasks `0..tasks`, with whoever helps.
///
/// # Panics
/// Where a task does, on whichever thread.
pub(super) fn run(tasks: usize, work: &(dyn Fn(usize) + Sync)) {
    let alone = tasks < 2
        || AT_WORK.get()
        || CREW.helpers.load(Ordering::Relaxed) == 0
        || CREW.taken.swap(true, Ordering::Acquire);
    if alone {
        // Nobody else has the crew through us: what a task forks is done at once, too.
        let _at_work = AtWork::also(tasks > 1);
        return (0..tasks).for_each(work);
    }
    let work: *const (dyn Fn(usize) + Sync + '_) = work;
    // SAFETY: only the lifetime changes; nobody is inside when this function returns.
    let work = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Work>(work) };
    CREW.failed.store(false, Ordering::Relaxed);
    CREW.job.set(Some(Job { work, tasks }));
    CREW.next.store(0, Ordering::Relaxed);
    CREW.epoch.fetch_add(1, Ordering::SeqCst);
    if CREW.sleepers.load(Ordering::SeqCst) > 0 {
        drop(CREW.door.lock().unwrap_or_else(PoisonError::into_inner));
        CREW.bell.notify_all();
    }
    let end = End;
    let at_work = AtWork::also(true);
    CREW.tasks();
    drop((end, at_work));
    assert!(!CREW.failed.load(Ordering::Relaxed), "a helping thread panicked");
}

/// This thread is at a task, or was before, as long as this lives.
struct AtWork {
    before: bool,
}

impl AtWork {
    fn also(now: bool) -> Self {
        let before = AT_WORK.get();
        AT_WORK.set(before || now);
        Self { before }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        AT_WORK.set(self.before);
    }
}

/// Ends the job: nobody new comes in, and whoever is inside has left.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        CREW.epoch.fetch_add(1, Ordering::SeqCst);
        let mut looks = 0;
        while CREW.inside.load(Ordering::SeqCst) > 0 {
            looks += 1;
            if looks < LOOKS {
                std::hint::spin_loop();
                continue;
            }
            // In wasm a helper that traps never leaves, and a panic here ends the whole module. Natively a helper always
            // leaves, and a panic would unwind what a slow one still reads.
            assert!(
                !cfg!(target_arch = "wasm32") || looks - LOOKS < PATIENCE,
                "a helping thread died"
            );
            std::thread::park_timeout(NAP);
        }
        CREW.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
