//! What lies between a relay and its database, and loses an answer when told to.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// What a relay's commit begins with; its `BEGIN` names `READ COMMITTED`.
const COMMIT: &[u8] = b"COMMIT;";

/// What the database answers to it once it is done, or was rolled back: the tag of a `CommandComplete`.
const DONE: [&[u8]; 2] = [b"COMMIT\0", b"ROLLBACK\0"];

/// The most bytes that pass at once.
const PART: usize = 1 << 16;

#[derive(Default)]
struct Orders {
    lose: AtomicBool,
    freeze_in_large: AtomicBool,
    frozen: AtomicBool,
    lost: AtomicU32,
}

/// Passes everything on, in both directions.
pub struct Wire {
    address: SocketAddr,
    orders: Arc<Orders>,
}

impl Wire {
    pub fn to(database: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let orders = Arc::<Orders>::default();
        thread::spawn({
            let orders = orders.clone();
            move || {
                for relay in listener.incoming().flatten() {
                    if let Ok(database) = TcpStream::connect(database) {
                        pass(relay, database, &orders);
                    }
                }
            }
        });
        Self { address, orders }
    }

    pub fn address(&self) -> String {
        format!("postgres://unsaid@{}/postgres", self.address)
    }

    /// The next commit reaches the database, which does it; the answer is lost, and the connection ends.
    pub fn lose_a_commits_answer(&self) {
        self.orders.lose.store(true, Ordering::SeqCst);
    }

    /// Nothing passes any more, in either direction; connections stay.
    pub fn freeze(&self) {
        self.orders.frozen.store(true, Ordering::SeqCst);
    }

    /// As [`Self::freeze`], once a part of a message has passed that is longer than a part.
    pub fn freeze_in_a_large_message(&self) {
        self.orders.freeze_in_large.store(true, Ordering::SeqCst);
    }

    pub fn is_frozen(&self) -> bool {
        self.orders.frozen.load(Ordering::SeqCst)
    }

    pub fn thaw(&self) {
        self.orders.frozen.store(false, Ordering::SeqCst);
    }

    /// Answers that were lost.
    pub fn lost(&self) -> u32 {
        self.orders.lost.load(Ordering::SeqCst)
    }
}

impl Orders {
    /// Until nothing is frozen.
    fn wait(&self) {
        while self.frozen.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn pass(relay: TcpStream, database: TcpStream, orders: &Arc<Orders>) {
    let mute = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) = (relay.try_clone().unwrap(), database.try_clone().unwrap());
    thread::spawn({
        let (orders, mute) = (orders.clone(), mute.clone());
        move || {
            let mut bytes = vec![0; PART];
            while let Ok(length @ 1..) = from.read(&mut bytes) {
                let commits = bytes[..length].windows(COMMIT.len()).any(|it| it == COMMIT);
                if commits && orders.lose.swap(false, Ordering::SeqCst) {
                    mute.store(true, Ordering::SeqCst);
                }
                orders.wait();
                if to.write_all(&bytes[..length]).is_err() {
                    break;
                }
                if length == PART && orders.freeze_in_large.swap(false, Ordering::SeqCst) {
                    orders.frozen.store(true, Ordering::SeqCst);
                }
            }
            orders.wait();
            let _ = to.shutdown(Shutdown::Both);
        }
    });
    let (mut from, mut to, orders) = (database, relay, orders.clone());
    thread::spawn(move || {
        let mut bytes = vec![0; PART];
        let mut unheard = Vec::new();
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            orders.wait();
            if mute.load(Ordering::SeqCst) {
                // The answers to what was sent in the same breath come first.
                unheard.extend_from_slice(&bytes[..length]);
                if DONE
                    .iter()
                    .any(|tag| unheard.windows(tag.len()).any(|it| it == *tag))
                {
                    orders.lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                continue;
            }
            if to.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    });
}
