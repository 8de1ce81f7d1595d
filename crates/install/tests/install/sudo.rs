//! A login user who is not root: with sudo, and without.

use std::path::PathBuf;
use std::process::Command;

use windlass_engine_api::Client;
use windlass_install::{Error, RootAccess, probe_at};
use windlass_ssh::{FirstUse, Session};

use crate::{Host, engine};

/// A user of this computer for the length of a test.
struct User {
    name: String,
    sudoers: PathBuf,
}

impl User {
    fn add() -> Self {
        let name = format!("wltest{}", std::process::id());
        let user = Self {
            sudoers: format!("/etc/sudoers.d/{name}").into(),
            name,
        };
        let added = Command::new("useradd")
            .args(["-M", "-d", "/", "-s", "/bin/sh", "-p", "*", &user.name])
            .status()
            .unwrap();
        assert!(added.success());
        let line = format!("{} ALL=(ALL) NOPASSWD: ALL\n", user.name);
        fs_err::write(&user.sudoers, line).unwrap();
        user
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.sudoers);
        // By force: what served its connection may not have ended yet.
        let _ = Command::new("userdel").args(["-f", &self.name]).output();
    }
}

#[tokio::test]
async fn sudo_installs_and_reaches_a_socket_that_only_root_may() {
    let host = Host::start();
    let user = User::add();
    let mut destination = host.server.destination();
    destination.user = Some(user.name.clone());
    let session = Session::connect(&destination, &|_: &FirstUse| {})
        .await
        .unwrap();
    let probe = probe_at(&session, &host.layout()).await.unwrap();
    assert_eq!(probe.root_access, RootAccess::Sudo);
    let first = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    assert_eq!(first.version, "1.0");
    let owner = fs_err::metadata(host.prefix.join("usr/local/lib/windlass/windlassd")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    let again = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap();
    assert!(!again.changed);

    // The server's own forwarding may not, so this goes through the bridge.
    let socket = host.layout().socket();
    assert!(session.dial_unix(&socket).await.is_err());
    let client = Client::new(session.unix_socket_with(&socket, host.layout().bridge()));
    assert_eq!(client.version().await.unwrap().version, "1.0");

    fs_err::remove_file(&user.sudoers).unwrap();
    let error = host
        .install(&session, &engine::working("1.0"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoRoot { .. }), "{error}");
    assert!(error.hint().unwrap().contains(&user.name));
}
