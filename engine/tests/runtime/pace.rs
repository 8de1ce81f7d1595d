//! How long the shortest container takes; prints it, asserts only what no machine misses.

use std::time::{Duration, Instant};

use windlassd::container::parts::Runtime as _;

use crate::lab::Lab;

#[tokio::test]
async fn shortest_container() {
    let lab = Lab::new();
    let mut times = Vec::new();
    for _ in 0..12 {
        let spec = lab.spec(&["true"]);
        let begin = Instant::now();
        lab.runtime.create(&spec).await.unwrap();
        let created = begin.elapsed();
        lab.runtime.start(&spec.id).await.unwrap();
        let started = begin.elapsed();
        lab.wait(&spec.id).await;
        let ended = begin.elapsed();
        lab.runtime.delete(&spec.id).await.unwrap();
        times.push((begin.elapsed(), created, started, ended));
    }
    times.sort();
    let (all, created, started, ended) = times[times.len() / 2];
    println!("median {all:?}: created {created:?}, started {started:?}, ended {ended:?}");
    assert!(all < Duration::from_secs(2), "{times:?}");
}
