//! Through other hosts.

use windlass_ssh::{ClientConfig, Command, Error, FirstUse, Session};

use crate::harness::Sshd;

#[tokio::test]
async fn proxy_jump_through_two_servers_and_the_config() {
    let (first, second, third) = (Sshd::start(), Sshd::start(), Sshd::start());
    let text = format!(
        "Host target\n HostName 127.0.0.1\n Port {}\n User root\n IdentityFile {}\n ProxyJump one,two\n\
         Host one\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\n\
         Host two\n HostName 127.0.0.1\n Port {}\n IdentityFile {}\nHost *\n User root\n IdentitiesOnly yes\n",
        third.port,
        third.key.display(),
        first.port,
        first.key.display(),
        second.port,
        second.key.display(),
    );
    let mut destination = third.destination();
    destination.host = "target".to_owned();
    destination.port = None;
    destination.keys.clear();
    destination.config = ClientConfig::parse(&text, third.folder.path(), "ann").unwrap();
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |first: &FirstUse| seen.lock().unwrap().push(first.address.clone());
    let session = Session::connect(&destination, &note).await.unwrap();
    let addresses = [first.port, second.port, third.port].map(|p| format!("127.0.0.1:{p}"));
    assert_eq!(seen.into_inner().unwrap(), addresses);
    let client = session
        .run(&Command::new([
            "sh",
            "-c",
            "echo $SSH_CLIENT $SSH_CONNECTION",
        ]))
        .await
        .unwrap();
    assert!(client.contains(&third.port.to_string()), "{client}");

    // All three are pinned, and a jump host's changed key stops everything too.
    Session::connect(&destination, &|f| panic!("{f:?}"))
        .await
        .unwrap();
    let pins = fs_err::read_to_string(third.pins()).unwrap();
    assert_eq!(pins.lines().count(), 3, "{pins}");
    let other = windlass_ssh::keys::KeyPair::generate("").unwrap().public;
    let changed: Vec<String> = pins
        .lines()
        .map(
            |line| match line.strip_prefix(&format!("[127.0.0.1]:{} ", second.port)) {
                Some(_) => format!("[127.0.0.1]:{} {other}", second.port),
                None => line.to_owned(),
            },
        )
        .collect();
    fs_err::write(third.pins(), changed.join("\n")).unwrap();
    let error = Session::connect(&destination, &|_| {}).await.unwrap_err();
    let Error::HostKeyChanged(change) = &error else {
        panic!("{error}");
    };
    assert_eq!(change.address, addresses[1]);
}
