//! `kill -9` at every point, then the same command again.

use windlass_machine::lifecycle::Point;
use windlass_machine::{LifecycleError, Remove, State};

use crate::host::{World, name, spec};

/// Points that a create passes.
const CREATE: [Point; 8] = [
    Point::Start,
    Point::Intended,
    Point::Prepared,
    Point::Made,
    Point::Recorded,
    Point::Booted,
    Point::Connected,
    Point::Installed,
];
/// Points that a removal passes.
const REMOVE: [Point; 4] = [
    Point::Start,
    Point::Intended,
    Point::Deleted,
    Point::Forgotten,
];

#[test]
fn every_point_is_tried() {
    for point in Point::ALL {
        assert!(
            CREATE.contains(&point) || REMOVE.contains(&point),
            "{point:?}"
        );
    }
}

#[tokio::test]
async fn a_create_that_was_killed_is_finished_by_the_next() {
    for point in CREATE {
        let world = World::new();
        let crashed = world
            .dying_at(point)
            .create(&world.cloud, spec("a"))
            .await
            .unwrap_err();
        assert!(
            matches!(crashed, LifecycleError::Crashed(at) if at == point),
            "{crashed}"
        );
        world.assert_nothing_forgotten().await;
        let machine = world
            .process()
            .create(&world.cloud, spec("a"))
            .await
            .unwrap();
        assert_eq!(machine.state, State::Ready, "{point:?}");
        let instances = world.cloud.instances();
        assert_eq!(instances.len(), 1, "{point:?}");
        assert_eq!(machine.instance_id.as_ref(), Some(&instances[0].id));
        assert!(world.process().store.intents().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_create_that_was_killed_is_undone_by_a_removal() {
    for point in &CREATE[1..] {
        let world = World::new();
        world
            .dying_at(*point)
            .create(&world.cloud, spec("a"))
            .await
            .unwrap_err();
        world
            .process()
            .remove(&world.cloud, &name("a"), Remove::Host)
            .await
            .unwrap();
        assert!(world.cloud.instances().is_empty(), "{point:?}");
        assert!(world.hosts.keys().is_empty(), "{point:?}");
        let lifecycle = world.process();
        assert!(lifecycle.store.machines().await.unwrap().is_empty());
        assert!(lifecycle.store.intents().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_removal_that_was_killed_is_finished_by_the_next() {
    for point in REMOVE {
        let world = World::new();
        world
            .process()
            .create(&world.cloud, spec("a"))
            .await
            .unwrap();
        let killed = world
            .dying_at(point)
            .remove(&world.cloud, &name("a"), Remove::Host)
            .await;
        assert!(killed.is_err(), "{point:?}");
        world.assert_nothing_forgotten().await;
        let lifecycle = world.process();
        if point != Point::Start {
            let refused = lifecycle.create(&world.cloud, spec("a")).await.unwrap_err();
            assert!(
                matches!(refused, LifecycleError::BeingRemoved { .. }),
                "{refused}"
            );
            assert!(
                lifecycle
                    .resume(&world.cloud, &name("a"))
                    .await
                    .unwrap()
                    .is_none()
            );
        } else {
            lifecycle
                .remove(&world.cloud, &name("a"), Remove::Host)
                .await
                .unwrap();
        }
        assert!(world.cloud.instances().is_empty(), "{point:?}");
        assert!(world.hosts.keys().is_empty(), "{point:?}");
        assert!(lifecycle.store.machines().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_second_create_of_a_finished_machine_is_refused() {
    let world = World::new();
    world
        .process()
        .create(&world.cloud, spec("a"))
        .await
        .unwrap();
    let error = world
        .process()
        .create(&world.cloud, spec("a"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "machine `a` exists already");
    assert!(error.hint().unwrap().contains("windlass rm a"));
    assert_eq!(world.cloud.instances().len(), 1);
}
