//! What is called in which order, and what happens when something fails.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use windlass_autoscale::{
    Autoscaler, BoxError, Clock, Config, Cpu, Decision, Failure, Metrics, Reporter, Sample, Target,
};

/// A fleet that does as told, or fails as told, and remembers what was asked of it.
#[derive(Default)]
struct Fleet {
    desired: Mutex<u32>,
    real: Mutex<u32>,
    cpu: Mutex<f64>,
    seconds: AtomicU64,
    metrics_fail: AtomicBool,
    store_fails: AtomicBool,
    apply_fails: AtomicBool,
    apply_hangs: AtomicBool,
    log: Mutex<Vec<String>>,
}

impl Fleet {
    fn new(count: u32, cpu: f64) -> Self {
        Self {
            desired: Mutex::new(count),
            real: Mutex::new(count),
            cpu: Mutex::new(cpu),
            ..Self::default()
        }
    }

    fn note(&self, line: impl Into<String>) {
        self.log.lock().expect("log").push(line.into());
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().expect("log"))
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for Fleet {
    fn now(&self) -> Duration {
        Duration::from_secs(10_000 + self.seconds.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Metrics for Fleet {
    async fn sample(&self, now: Duration) -> Result<Vec<Sample>, BoxError> {
        if self.metrics_fail.load(Ordering::SeqCst) {
            return Err("no roster".into());
        }
        let value = *self.cpu.lock().expect("cpu");
        Ok((0..*self.real.lock().expect("real"))
            .map(|i| Sample {
                machine: format!("m{i}"),
                ready_at: Some(Duration::ZERO),
                cpu: Cpu::Percent { value, at: now },
            })
            .collect())
    }
}

#[async_trait]
impl Target for Fleet {
    async fn desired(&self) -> Result<u32, BoxError> {
        Ok(*self.desired.lock().expect("desired"))
    }

    async fn set_desired(&self, count: u32, _: &Decision) -> Result<(), BoxError> {
        if self.store_fails.load(Ordering::SeqCst) {
            return Err("disk full".into());
        }
        self.note(format!("store {count}"));
        *self.desired.lock().expect("desired") = count;
        Ok(())
    }

    async fn apply(&self) -> Result<(), BoxError> {
        let desired = *self.desired.lock().expect("desired");
        self.note(format!("apply {desired}"));
        if self.apply_hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.apply_fails.load(Ordering::SeqCst) {
            return Err("quota".into());
        }
        *self.real.lock().expect("real") = desired;
        Ok(())
    }
}

impl Reporter for Fleet {
    fn decided(&self, decision: &Decision) {
        self.note(format!("decided {}", decision.desired));
    }
    fn applied(&self, decision: &Decision, _: Duration) {
        self.note(format!("applied {}", decision.desired));
    }
    fn failed(&self, failure: &Failure) {
        self.note(format!("failed: {failure}"));
    }
}

fn autoscaler(fleet: &Fleet) -> Autoscaler<'_> {
    let config = Config::new(1, 5, 60.0).expect("config");
    Autoscaler::new(config, fleet, fleet, fleet, fleet).expect("autoscaler")
}

#[tokio::test]
async fn stored_then_applied_then_quiet() {
    let fleet = Fleet::new(2, 60.0);
    let mut scaler = autoscaler(&fleet);
    scaler.tick().await.expect("tick");
    assert_eq!(
        fleet.take_log(),
        ["decided 2", "apply 2", "applied 2"],
        "what a former run left is applied first"
    );
    fleet.pass(15);
    scaler.tick().await.expect("tick");
    assert_eq!(fleet.take_log(), ["decided 2"]);
    *fleet.cpu.lock().expect("cpu") = 90.0;
    fleet.pass(15);
    scaler.tick().await.expect("tick");
    assert_eq!(
        fleet.take_log(),
        ["decided 3", "store 3", "apply 3", "applied 3"]
    );
    *fleet.cpu.lock().expect("cpu") = 5.0;
    for _ in 0..40 {
        fleet.pass(15);
        scaler.tick().await.expect("tick");
    }
    let log = fleet.take_log();
    let steps: Vec<_> = log.iter().filter(|l| l.starts_with("store")).collect();
    assert_eq!(steps, ["store 2", "store 1"]);
}

#[tokio::test]
async fn a_failed_apply_is_tried_again() {
    let fleet = Fleet::new(2, 90.0);
    fleet.apply_fails.store(true, Ordering::SeqCst);
    let mut scaler = autoscaler(&fleet);
    assert!(matches!(
        scaler.tick().await,
        Err(Failure::Apply { count: 3, .. })
    ));
    assert_eq!(
        *fleet.desired.lock().expect("desired"),
        3,
        "what is declared stays declared"
    );
    fleet.apply_fails.store(false, Ordering::SeqCst);
    fleet.take_log();
    fleet.pass(15);
    scaler.tick().await.expect("tick");
    assert_eq!(fleet.take_log(), ["decided 3", "apply 3", "applied 3"]);
}

#[tokio::test]
async fn nothing_is_done_without_metrics_or_store() {
    let fleet = Fleet::new(2, 90.0);
    fleet.metrics_fail.store(true, Ordering::SeqCst);
    let mut scaler = autoscaler(&fleet);
    assert!(matches!(scaler.tick().await, Err(Failure::Metrics(_))));
    assert!(fleet.take_log().is_empty());
    fleet.metrics_fail.store(false, Ordering::SeqCst);
    fleet.store_fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        scaler.tick().await,
        Err(Failure::Store { count: 3, .. })
    ));
    assert_eq!(
        fleet.take_log(),
        ["decided 3"],
        "not applied, because it is not durable"
    );
    // The step that did not happen starts no cool-down.
    fleet.store_fails.store(false, Ordering::SeqCst);
    fleet.pass(1);
    assert_eq!(scaler.tick().await.expect("tick").desired, 3);
}

#[tokio::test(start_paused = true)]
async fn stopping_does_not_wait_for_an_apply() {
    let fleet = Fleet::new(2, 90.0);
    fleet.apply_hangs.store(true, Ordering::SeqCst);
    let mut scaler = autoscaler(&fleet);
    scaler
        .run(
            Duration::from_secs(15),
            tokio::time::sleep(Duration::from_secs(100)),
        )
        .await;
    assert_eq!(fleet.take_log(), ["decided 3", "store 3", "apply 3"]);
    // Another run resumes what is declared.
    fleet.apply_hangs.store(false, Ordering::SeqCst);
    *fleet.cpu.lock().expect("cpu") = 60.0;
    autoscaler(&fleet).tick().await.expect("tick");
    assert_eq!(*fleet.real.lock().expect("real"), 3);
}

#[tokio::test(start_paused = true)]
async fn the_loop_goes_on_after_failures() {
    let fleet = Fleet::new(2, 60.0);
    fleet.metrics_fail.store(true, Ordering::SeqCst);
    autoscaler(&fleet)
        .run(
            Duration::from_secs(15),
            tokio::time::sleep(Duration::from_secs(50)),
        )
        .await;
    assert_eq!(fleet.take_log(), ["failed: cannot measure the fleet"; 4]);
}
