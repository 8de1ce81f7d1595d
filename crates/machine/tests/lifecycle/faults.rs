//! A cloud that fails, loses replies or is full, and hosts that refuse.

use std::time::Duration;

use windlass_machine::{PowerAction, Remove, State};
use windlass_provider::ErrorKind;
use windlass_provider::fake::{Call, Fault};

use crate::host::{World, name, spec};

#[tokio::test]
async fn what_passes_is_tried_again_and_makes_one_instance() {
    let faults = [
        Fault::LostReply,
        Fault::After(ErrorKind::Other),
        Fault::Before(ErrorKind::Other),
        Fault::Throttled(Duration::from_millis(2)),
    ];
    for fault in faults {
        let world = World::new();
        world.cloud.inject(Call::Create, fault);
        let machine = world
            .process()
            .create(&world.cloud, spec("a"))
            .await
            .unwrap();
        assert_eq!(machine.state, State::Ready, "{fault:?}");
        assert_eq!(world.cloud.instances().len(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_instance_whose_every_reply_was_lost_is_found_by_its_token() {
    let world = World::new();
    for _ in 0..3 {
        world.cloud.inject(Call::Create, Fault::LostReply);
    }
    let machine = world
        .process()
        .create(&world.cloud, spec("a"))
        .await
        .unwrap();
    assert_eq!(world.cloud.instances().len(), 1);
    assert_eq!(
        machine.instance_id,
        Some(world.cloud.instances()[0].id.clone())
    );
}

#[tokio::test]
async fn a_full_cloud_leaves_nothing_behind() {
    let world = World::new();
    world.cloud.set_limit(0);
    let lifecycle = world.process();
    let error = lifecycle.create(&world.cloud, spec("a")).await.unwrap_err();
    assert_eq!(error.to_string(), "machine `a`: cannot create");
    assert!(lifecycle.store.machines().await.unwrap().is_empty());
    assert!(lifecycle.store.intents().await.unwrap().is_empty());
    assert!(world.hosts.keys().is_empty());
}

#[tokio::test]
async fn a_cloud_that_does_not_even_list_keeps_the_record() {
    let world = World::new();
    for _ in 0..3 {
        world.cloud.inject(Call::Create, Fault::LostReply);
    }
    world
        .cloud
        .inject(Call::List, Fault::Before(ErrorKind::Auth));
    let lifecycle = world.process();
    lifecycle.create(&world.cloud, spec("a")).await.unwrap_err();
    let machines = lifecycle.store.machines().await.unwrap();
    assert!(matches!(machines[0].state, State::Error(_)));
    world.assert_nothing_forgotten().await;
    world
        .process()
        .remove(&world.cloud, &name("a"), Remove::Host)
        .await
        .unwrap();
    assert!(world.cloud.instances().is_empty());
}

#[tokio::test]
async fn a_host_that_refuses_is_noted_and_taken_up_again() {
    for step in ["connect", "install"] {
        let world = World::new();
        *world.hosts.refuse.lock().unwrap() = Some(step);
        let lifecycle = world.process();
        let error = lifecycle.create(&world.cloud, spec("a")).await.unwrap_err();
        assert_eq!(error.to_string(), format!("machine `a`: cannot {step}"));
        let machine = lifecycle.store.machine(&name("a")).await.unwrap().unwrap();
        assert!(
            matches!(&machine.state, State::Error(reason) if reason.contains("is refused")),
            "{step}"
        );
        *world.hosts.refuse.lock().unwrap() = None;
        let machine = world
            .process()
            .create(&world.cloud, spec("a"))
            .await
            .unwrap();
        assert_eq!(machine.state, State::Ready);
        assert_eq!(world.cloud.instances().len(), 1, "{step}");
    }
}

#[tokio::test]
async fn a_failing_delete_keeps_the_record_unless_forced() {
    let world = World::new();
    let lifecycle = world.process();
    lifecycle.create(&world.cloud, spec("a")).await.unwrap();
    world
        .cloud
        .inject(Call::Delete, Fault::Before(ErrorKind::Auth));
    lifecycle
        .remove(&world.cloud, &name("a"), Remove::Host)
        .await
        .unwrap_err();
    assert_eq!(lifecycle.store.machines().await.unwrap().len(), 1);
    world
        .cloud
        .inject(Call::Delete, Fault::Before(ErrorKind::Auth));
    lifecycle
        .remove(&world.cloud, &name("a"), Remove::Record)
        .await
        .unwrap();
    assert!(lifecycle.store.machines().await.unwrap().is_empty());
    // The host is still there, and the comparison with the cloud shows it.
    let orphans = lifecycle.orphans(&world.cloud).await.unwrap();
    assert_eq!(orphans.unknown.len(), 1);
}

#[tokio::test]
async fn power_is_switched_and_what_vanished_is_lost() {
    let world = World::new();
    let lifecycle = world.process();
    lifecycle.create(&world.cloud, spec("a")).await.unwrap();
    for (action, state) in [
        (PowerAction::Stop, State::Stopped),
        (PowerAction::Start, State::Ready),
        (PowerAction::Kill, State::Stopped),
        (PowerAction::Restart, State::Ready),
    ] {
        let machine = lifecycle
            .power(&world.cloud, &name("a"), action)
            .await
            .unwrap();
        assert_eq!(machine.state, state, "{action:?}");
    }
    let id = world.cloud.instances()[0].id.clone();
    windlass_provider::Provider::delete(&world.cloud, &id)
        .await
        .unwrap();
    let orphans = lifecycle.orphans(&world.cloud).await.unwrap();
    assert_eq!(orphans.lost, [name("a")]);
    let (_, seen) = lifecycle.look(&world.cloud, &name("a")).await.unwrap();
    assert_eq!(seen, None);
}

/// A cloud may need a moment until it knows a token, and make two instances for a create that was repeated.
#[tokio::test]
async fn what_was_made_twice_is_deleted_twice() {
    let world = World::new();
    let lifecycle = world.process();
    lifecycle.create(&world.cloud, spec("a")).await.unwrap();
    lifecycle.create(&world.cloud, spec("b")).await.unwrap();
    world.cloud.repeat(&world.cloud.instances()[0]);
    world
        .cloud
        .inject(Call::List, Fault::Before(ErrorKind::Auth));
    lifecycle
        .remove(&world.cloud, &name("a"), Remove::Host)
        .await
        .unwrap_err();
    assert_eq!(
        lifecycle.store.machines().await.unwrap().len(),
        2,
        "the record stays until nothing can be left"
    );
    lifecycle
        .remove(&world.cloud, &name("a"), Remove::Host)
        .await
        .unwrap();
    let left = world.cloud.instances();
    let names: Vec<&str> = left.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["b"]);
}
