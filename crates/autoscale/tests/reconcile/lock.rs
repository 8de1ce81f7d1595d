//! One autoscaler a fleet.

use windlass_autoscale::{FileLeader, LeaderError};

#[test]
fn one_leads_and_the_next_follows_when_it_has_gone() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("locks/web.lock");
    let first = FileLeader::acquire(&path).expect("free");
    match FileLeader::acquire(&path) {
        Err(LeaderError::Taken { holder }) => assert_eq!(holder, std::process::id().to_string()),
        other => panic!("{other:?}"),
    }
    drop(first);
    FileLeader::acquire(&path).expect("free again");
}

#[test]
fn an_unusable_file_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let error = FileLeader::acquire(folder.path()).expect_err("a folder is no file");
    assert!(
        error
            .to_string()
            .contains(&folder.path().display().to_string()),
        "{error}"
    );
}
