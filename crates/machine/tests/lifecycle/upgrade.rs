//! Upgrades: what the record says afterwards, and which machines are left alone.

use windlass_machine::lifecycle::Point;
use windlass_machine::{Machine, PowerAction, State};
use windlass_provider::Power as _;

use crate::host::{World, name, spec};

async fn record(world: &World) -> Machine {
    let lifecycle = world.process();
    lifecycle.store.machine(&name("a")).await.unwrap().unwrap()
}

/// A ready machine with the engine `old`; `new` is installed from now on.
async fn world() -> World {
    let world = World::new();
    let set = |digest| *world.hosts.engine.lock().unwrap() = Some(digest);
    set("old");
    world
        .process()
        .create(&world.cloud, spec("a"))
        .await
        .unwrap();
    set("new");
    world
}

#[tokio::test]
async fn another_engine_is_noted_and_the_same_one_is_unchanged() {
    let world = world().await;
    let lifecycle = world.process();
    let done = lifecycle.upgrade(&world.cloud, &name("a")).await.unwrap();
    assert!(done.is_another());
    assert_eq!(done.before.unwrap().digest.as_deref(), Some("old"));
    assert_eq!(done.after.digest.as_deref(), Some("new"));
    let noted = record(&world).await;
    assert_eq!(noted.engine, Some(done.after));
    assert_eq!(noted.state, State::Ready);
    let again = lifecycle.upgrade(&world.cloud, &name("a")).await.unwrap();
    assert!(!again.is_another());
}

#[tokio::test]
async fn a_failed_upgrade_leaves_the_record_and_can_be_given_again() {
    let world = world().await;
    let before = record(&world).await;
    *world.hosts.refuse.lock().unwrap() = Some("install");
    let lifecycle = world.process();
    let error = lifecycle.upgrade(&world.cloud, &name("a")).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "machine `a`: cannot install"
    );
    assert_eq!(record(&world).await, before);
    *world.hosts.refuse.lock().unwrap() = None;
    lifecycle.upgrade(&world.cloud, &name("a")).await.unwrap();
    assert_eq!(
        record(&world).await.engine.unwrap().digest.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn a_machine_that_is_off_is_not_reached_for() {
    let world = world().await;
    *world.hosts.refuse.lock().unwrap() = Some("install");
    let lifecycle = world.process();
    lifecycle
        .power(&world.cloud, &name("a"), PowerAction::Stop)
        .await
        .unwrap();
    let error = lifecycle.upgrade(&world.cloud, &name("a")).await;
    let error = error.unwrap_err();
    assert_eq!(error.to_string(), "machine `a` is stopped");
    assert!(error.hint().unwrap().contains("windlass start a"));

    // Switched off behind our back: the provider knows.
    lifecycle
        .power(&world.cloud, &name("a"), PowerAction::Start)
        .await
        .unwrap();
    let id = world.cloud.instances()[0].id.clone();
    world.cloud.stop(&id).await.unwrap();
    assert_eq!(record(&world).await.state, State::Ready);
    let error = lifecycle.upgrade(&world.cloud, &name("a")).await;
    assert_eq!(error.unwrap_err().to_string(), "machine `a` is stopped");
}

#[tokio::test]
async fn what_is_not_finished_or_in_use_is_left_alone() {
    let world = World::new();
    let dying = world.dying_at(Point::Connected);
    dying.create(&world.cloud, spec("a")).await.unwrap_err();
    let lifecycle = world.process();
    let error = lifecycle.upgrade(&world.cloud, &name("a")).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "machine `a` is not finished"
    );
    lifecycle.create(&world.cloud, spec("a")).await.unwrap();
    let _lock = lifecycle.lock(&name("a")).await.unwrap();
    let error = world.process().upgrade(&world.cloud, &name("a")).await;
    assert!(error.unwrap_err().to_string().contains("machine.a"));
}
