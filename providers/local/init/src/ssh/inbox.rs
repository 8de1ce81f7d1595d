//! What a client has sent on one channel and its process has not read yet.
//!
//! russh grants a client new window as its data arrives, and hands all channels' data to one task. Waiting there for one
//! channel's reader would hold up the others, and for ever if that reader itself waits for the client to read. So a full
//! inbox only slows its sender down, more and more: an upload runs at the speed of its reader, and nothing ever stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

/// From here on, a packet waits a little.
const FULL: usize = 1 << 20;
/// From here on it waits long: 32 KiB a second.
const TOO_FULL: usize = 64 << 20;

#[derive(Debug, Default)]
struct Level {
    bytes: AtomicUsize,
    falls: Notify,
}

/// Where data is put in.
#[derive(Debug)]
pub struct Inbox {
    sender: mpsc::UnboundedSender<Bytes>,
    level: Arc<Level>,
}

/// Where data is taken out.
#[derive(Debug)]
pub struct Outlet {
    receiver: mpsc::UnboundedReceiver<Bytes>,
    level: Arc<Level>,
}

/// An empty one. Dropping the inbox is the end of the data.
pub fn inbox() -> (Inbox, Outlet) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level::default());
    let inbox = Inbox {
        sender,
        level: level.clone(),
    };
    (inbox, Outlet { receiver, level })
}

impl Inbox {
    /// Adds data; returns after a bounded time.
    pub async fn put(&self, data: Bytes) {
        let length = data.len();
        if self.sender.send(data).is_err() {
            return;
        }
        let now = self.level.bytes.fetch_add(length, Ordering::AcqRel) + length;
        let patience = match now {
            TOO_FULL.. => Duration::from_secs(1),
            FULL.. => Duration::from_millis(20),
            _ => return,
        };
        let _ = tokio::time::timeout(patience, self.level.falls.notified()).await;
    }
}

impl Outlet {
    /// The next data; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        let data = self.receiver.recv().await?;
        let before = self.level.bytes.fetch_sub(data.len(), Ordering::AcqRel);
        if before >= FULL && before - data.len() < FULL {
            self.level.falls.notify_one();
        }
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_full_inbox_slows_down_and_never_stops() {
        let (inbox, mut outlet) = inbox();
        let packet = Bytes::from(vec![0; 32 << 10]);
        let began = Instant::now();
        for _ in 0..31 {
            inbox.put(packet.clone()).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "below the mark at once");
        for _ in 0..10 {
            inbox.put(packet.clone()).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(180));
        assert!(began.elapsed() < Duration::from_millis(300));
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while let Some(data) = outlet.next().await {
                read += data.len();
            }
            read
        });
        for _ in 0..1000 {
            inbox.put(packet.clone()).await;
        }
        drop(inbox);
        assert_eq!(reader.await.unwrap(), 1041 * (32 << 10), "nothing is lost");
    }
}
