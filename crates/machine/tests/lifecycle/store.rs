//! The store between processes: stale writes, locks, durability without a tidy end.

use std::sync::Arc;
use std::time::Duration;

use windlass_machine::{SqliteStore, Store, StoreError};

use crate::host::{World, name, spec};

#[tokio::test]
async fn a_write_from_an_older_record_is_refused() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    one.create(&world.cloud, spec("a")).await.unwrap();
    let mut seen_by_two = two.store.machine(&name("a")).await.unwrap().unwrap();
    let seen_by_one = one.store.machine(&name("a")).await.unwrap().unwrap();
    one.store.update(&seen_by_one).await.unwrap();
    seen_by_two.ssh_port = 2222;
    let stale = two.store.update(&seen_by_two).await.unwrap_err();
    assert!(matches!(stale, StoreError::Stale(_)), "{stale}");
    // `amend` reads again instead.
    let amended = two.amend(&name("a"), |m| m.ssh_port = 2222).await.unwrap();
    assert_eq!(amended.ssh_port, 2222);
}

#[tokio::test]
async fn one_machine_is_changed_by_one_process_at_a_time() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    let held = one.lock(&name("a")).await.unwrap();
    let error = two.create(&world.cloud, spec("a")).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is in use by another windlass (process"),
        "{error}"
    );
    assert!(world.cloud.instances().is_empty());
    drop(held);
    two.create(&world.cloud, spec("a")).await.unwrap();
}

#[tokio::test]
async fn many_at_once_make_one_machine_of_a_name() {
    let world = Arc::new(World::new());
    let tasks = (0..8).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            let mut lifecycle = world.process();
            lifecycle.patience.lock = Duration::from_secs(10);
            lifecycle.create(&world.cloud, spec("a")).await.is_ok()
        })
    });
    let mut made = 0;
    for task in tasks.collect::<Vec<_>>() {
        made += usize::from(task.await.unwrap());
    }
    assert_eq!(made, 1);
    assert_eq!(world.cloud.instances().len(), 1);
}

#[tokio::test]
async fn releases_count_up_and_come_newest_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let now = time::OffsetDateTime::UNIX_EPOCH;
    for number in 0..3 {
        let declared = serde_json::json!({ "n": number });
        store.add_release("shop", &declared, now).await.unwrap();
    }
    store
        .add_release("other", &serde_json::json!({}), now)
        .await
        .unwrap();
    let newest = store.releases("shop", 2).await.unwrap();
    assert_eq!(newest.len(), 2);
    assert_eq!(newest[0].declared["n"], 2);
    assert!(newest[0].id > newest[1].id);
}

#[tokio::test]
async fn counts_of_fleets_are_there_for_the_next_process() {
    let world = World::new();
    let (one, two) = (world.process(), world.process());
    assert_eq!(one.store.count("shop", "web").await.unwrap(), None);
    one.store.set_count("shop", "web", 3).await.unwrap();
    one.store.set_count("shop", "web", 4).await.unwrap();
    one.store.set_count("blog", "web", 1).await.unwrap();
    assert_eq!(two.store.count("shop", "web").await.unwrap(), Some(4));
    two.store.forget_counts("shop").await.unwrap();
    assert_eq!(one.store.count("shop", "web").await.unwrap(), None);
    assert_eq!(one.store.count("blog", "web").await.unwrap(), Some(1));
}

#[test]
fn a_folder_that_others_use_is_left_as_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mode = |mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.path(), permissions).unwrap();
    };
    let bits = || {
        std::fs::metadata(folder.path())
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    std::fs::write(folder.path().join("somebodys"), "").unwrap();
    mode(0o1777);
    let error = SqliteStore::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::Shared(_)), "{error}");
    assert_eq!(bits(), 0o1777);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    std::fs::remove_file(folder.path().join("somebodys")).unwrap();
    std::fs::create_dir(folder.path().join("locks")).unwrap();
    SqliteStore::open(folder.path()).unwrap();
    assert_eq!(bits(), 0o700);
    // Ours by now, whatever else comes into it.
    std::fs::write(folder.path().join("note"), "").unwrap();
    SqliteStore::open(folder.path()).unwrap();
}
