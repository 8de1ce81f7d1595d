//! Networks on a real kernel, each test in namespaces of its own: the computer that runs them is not touched. Needs root.

mod stage;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use stage::{HOST, WORLD, ask, connect, inside, play, serve, tcp, udp, wish, within};
use windlass_engine_api::types::{CreateNetwork, EndpointSettings};
use windlassd::container::error::Kind;
use windlassd::container::parts::{Connected, Networks};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn ip(connected: &Connected) -> Ipv4Addr {
    endpoint(connected).ip_address.parse().unwrap()
}

/// Of the only network.
fn endpoint(connected: &Connected) -> &EndpointSettings {
    connected.endpoints.values().next().unwrap()
}

fn network(name: &str) -> CreateNetwork {
    CreateNetwork {
        name: name.to_owned(),
        ..CreateNetwork::default()
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    play(|stage| async move {
        let networks = stage.networks().await;
        networks.adopt(&[]).await.unwrap();
        networks.create(network("other")).await.unwrap();
        let ports = [
            ("80/tcp", "", "8080"),
            ("80/udp", "", "8080"),
            ("80/tcp", "", ""),
        ];
        let web = networks
            .connect(&wish("web", "bridge", &ports))
            .await
            .unwrap();
        let near = networks
            .connect(&wish("near", "bridge", &[]))
            .await
            .unwrap();
        let far = networks.connect(&wish("far", "other", &[])).await.unwrap();
        let (web_ns, near_ns, far_ns) =
            (inside(&web.netns), inside(&near.netns), inside(&far.netns));
        serve(&web_ns, "web", 80);

        let chosen: u16 = web.ports["80/tcp"][1].host_port.parse().unwrap();
        let seen = format!("web {WORLD}");
        for port in [8080, chosen] {
            let answer = tcp(Some(&stage.world), (HOST, port));
            assert_eq!(
                answer.as_deref(),
                Some(&*seen),
                "the client's address is kept"
            );
        }
        assert_eq!(
            udp(Some(&stage.world), (HOST, 8080)).as_deref(),
            Some(&*seen)
        );
        for (what, netns, address) in [
            ("the host", None, HOST),
            ("the host's loopback", None, LOCALHOST),
            ("itself", Some(&web_ns), HOST),
            ("a neighbour", Some(&near_ns), HOST),
            ("another network", Some(&far_ns), HOST),
        ] {
            let answer = tcp(netns, (address, 8080)).unwrap_or_default();
            assert!(answer.starts_with("web "), "tcp from {what}: {answer:?}");
            let answer = udp(netns, (address, 8080)).unwrap_or_default();
            assert!(answer.starts_with("web "), "udp from {what}: {answer:?}");
        }
        assert!(tcp(Some(&near_ns), (ip(&web), 80)).is_some(), "directly");
        serve(&stage.world, "world", 7000);
        let out = tcp(Some(&web_ns), (WORLD, 7000));
        assert_eq!(
            out,
            Some(format!("world {HOST}")),
            "the way out is masqueraded"
        );

        let web = wish("web", "", &[]).container;
        networks.disconnect(&web).await.unwrap();
        // The second time waits for the first.
        networks.disconnect(&web).await.unwrap();
        assert_eq!(tcp(Some(&stage.world), (HOST, 8080)), None);
    });
}

#[test]
fn an_address_and_sources_limit_who_comes_in() {
    play(|stage| async move {
        let networks = stage.networks().await;
        let mut wanted = wish("web", "bridge", &[("80/tcp", "127.0.0.1", "8080")]);
        let web = networks.connect(&wanted).await.unwrap();
        serve(&inside(&web.netns), "web", 80);
        assert_eq!(web.ports["80/tcp"][0].host_ip, "127.0.0.1");
        assert!(tcp(None, (LOCALHOST, 8080)).is_some());
        assert_eq!(tcp(None, (HOST, 8080)), None);
        assert_eq!(tcp(Some(&stage.world), (HOST, 8080)), None);

        wanted = wish("web", "bridge", &[("80/tcp", "", "8080")]);
        for (sources, open) in [("203.0.113.0/24", false), ("198.51.100.2/32", true)] {
            wanted.publish_from = Some(vec!["10.9.9.0/24".to_owned(), sources.to_owned()]);
            let web = networks.connect(&wanted).await.unwrap();
            serve(&inside(&web.netns), "web", 80);
            let answer = tcp(Some(&stage.world), (HOST, 8080));
            assert_eq!(answer.is_some(), open, "{sources}");
            assert!(tcp(None, (HOST, 8080)).is_some(), "the host itself may");
        }
    });
}

#[test]
fn a_taken_port_is_told_as_docker_does() {
    play(|stage| async move {
        let networks = stage.networks().await;
        let _tcp = TcpListener::bind("127.0.0.1:9000").unwrap();
        let _udp = UdpSocket::bind("0.0.0.0:9001").unwrap();
        networks
            .connect(&wish("a", "bridge", &[("80/tcp", "", "8080")]))
            .await
            .unwrap();
        for (port, host, words) in [
            (
                "80/tcp",
                "8080",
                "Bind for 0.0.0.0:8080 failed: port is already allocated",
            ),
            (
                "80/tcp",
                "9000",
                "failed to bind host port 0.0.0.0:9000/tcp: address already in use",
            ),
            (
                "80/udp",
                "9001",
                "failed to bind host port 0.0.0.0:9001/udp: address already in use",
            ),
        ] {
            let wanted = wish("b", "bridge", &[("81/tcp", "", "8090"), (port, "", host)]);
            let error = networks.connect(&wanted).await.unwrap_err();
            assert!(error.message.ends_with(words), "{}", error.message);
        }
        let other = [
            ("81/tcp", "", "8090"),
            ("80/udp", "", "8080"),
            ("80/tcp", "", "9001"),
        ];
        networks
            .connect(&wish("b", "bridge", &other))
            .await
            .unwrap();
        let nowhere = wish("c", "bridge", &[("80/tcp", "192.0.2.77", "8091")]);
        let error = networks.connect(&nowhere).await.unwrap_err();
        assert!(error.message.contains("cannot assign requested address"));
    });
}

#[test]
fn a_client_that_keeps_sending_finds_the_new_container() {
    play(|stage| async move {
        let networks = stage.networks().await;
        let ports = [("80/udp", "", "8080")];
        let client = within(&stage.world, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let ask = || {
            let mut buffer = [0; 64];
            client.send_to(b"?", (HOST, 8080)).unwrap();
            let length = client.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        // Remembered by the kernel as a connection to nobody.
        client.send_to(b"?", (HOST, 8080)).unwrap();
        for name in ["old", "new"] {
            let wanted = wish(name, "bridge", &ports);
            let connected = networks.connect(&wanted).await.unwrap();
            serve(&inside(&connected.netns), name, 80);
            assert_eq!(ask(), Some(format!("{name} {WORLD}")));
            networks.disconnect(&wanted.container).await.unwrap();
        }
    });
}

#[test]
fn networks_are_kept_apart() {
    play(|stage| async move {
        let networks = stage.networks().await;
        for name in ["one", "two"] {
            networks.create(network(name)).await.unwrap();
        }
        let mut closed = network("closed");
        closed.internal = true;
        networks.create(closed).await.unwrap();
        let again = networks.create(network("one")).await.unwrap_err();
        assert_eq!(again.kind, Kind::Conflict);
        let mut places = Vec::new();
        for (name, at) in [
            ("default", "bridge"),
            ("one", "one"),
            ("peer", "one"),
            ("two", "two"),
            ("shut", "closed"),
            ("shut2", "closed"),
        ] {
            let connected = networks.connect(&wish(name, at, &[])).await.unwrap();
            let netns = inside(&connected.netns);
            serve(&netns, name, 80);
            places.push((at, netns, ip(&connected)));
        }
        serve(&stage.world, "world", 7000);
        // Refusals are told by silence: all at once, or the test would wait for each.
        std::thread::scope(|scope| {
            for (from, netns, _) in &places {
                for (to, _, address) in &places {
                    scope.spawn(move || {
                        let reached = tcp(Some(netns), (*address, 80)).is_some();
                        assert_eq!(reached, from == to, "{from} to {to}");
                    });
                }
                scope.spawn(move || {
                    let out = tcp(Some(netns), (WORLD, 7000)).is_some();
                    assert_eq!(out, *from != "closed", "{from} to the world");
                });
            }
            for (at, _, address) in &places {
                let world = &stage.world;
                scope.spawn(move || {
                    let reached = tcp(Some(world), (*address, 80));
                    assert_eq!(reached, None, "{at} by a route through the host");
                });
            }
        });
        let error = networks.remove("one").await.unwrap_err();
        assert!(
            error.message.contains("active endpoints"),
            "{}",
            error.message
        );
    });
}

#[test]
fn the_hosts_loopback_is_the_hosts() {
    play(|stage| async move {
        let networks = stage.networks().await;
        let web = networks
            .connect(&wish("web", "bridge", &[("80/tcp", "", "8080")]))
            .await
            .unwrap();
        let secret = TcpListener::bind("127.0.0.1:9999").unwrap();
        secret.set_nonblocking(true).unwrap();
        let netns = inside(&web.netns);
        // As a hostile container would: 127.0.0.1 by way of the gateway.
        within(&netns, || {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        });
        let gateway = endpoint(&web).gateway.clone();
        let trick = std::thread::spawn(move || {
            nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            output("ip", &["address", "flush", "dev", "lo"]);
            output(
                "ip",
                &[
                    "route",
                    "add",
                    "127.0.0.1/32",
                    "via",
                    &gateway,
                    "dev",
                    "eth0",
                ],
            );
            tcp(None, (LOCALHOST, 9999))
        });
        assert_eq!(trick.join().unwrap(), None);
        let error = secret.accept().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody came");
    });
}

#[test]
fn a_restarted_engine_keeps_what_runs_and_takes_back_the_rest() {
    play(|stage| async move {
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        let kept = wish("kept", "back", &[("80/tcp", "", "8080")]);
        let gone = wish("gone", "bridge", &[("80/tcp", "", "8081")]);
        let keeps = networks.connect(&kept).await.unwrap();
        let goes = networks.connect(&gone).await.unwrap();
        serve(&inside(&keeps.netns), "kept", 80);
        let mut open = connect(Some(&stage.world), (HOST, 8080)).unwrap();
        let listed = networks.find("back").unwrap();
        drop(networks);
        assert!(ask(&mut open).is_some(), "without an engine");

        let networks = stage.networks().await;
        networks
            .adopt(&[(kept.clone(), keeps.clone())])
            .await
            .unwrap();
        assert_eq!(networks.find("back").unwrap(), listed);
        assert!(ask(&mut open).is_some(), "the open connection goes on");
        assert!(tcp(Some(&stage.world), (HOST, 8080)).is_some());
        assert!(!goes.netns.exists());
        let ends = output("ip", &["-brief", "link", "show", "type", "veth"]);
        assert_eq!(ends.matches("wlv").count(), 1, "{ends}");
        let taken = wish("new", "back", &[("80/tcp", "", "8080")]);
        assert!(
            networks.connect(&taken).await.is_err(),
            "the port is remembered"
        );
        let other = networks.connect(&wish("new", "back", &[])).await.unwrap();
        assert_ne!(ip(&other), ip(&keeps), "the address is remembered");

        for container in [
            &kept.container,
            &wish("new", "", &[]).container,
            &gone.container,
        ] {
            networks.disconnect(container).await.unwrap();
            networks.disconnect(container).await.unwrap();
        }
        networks.remove("back").await.unwrap();
        assert_eq!(networks.find("back").unwrap_err().kind, Kind::NotFound);
        assert_eq!(
            output("ip", &["-brief", "link", "show", "type", "veth"])
                .matches("wlv")
                .count(),
            0
        );
        let bridges = output("ip", &["-brief", "link", "show", "type", "bridge"]);
        assert_eq!(
            bridges.matches("wl").count(),
            1,
            "the default one stays: {bridges}"
        );
        let rules = output("nft", &["list", "ruleset"]);
        assert!(!rules.contains("dnat to"), "{rules}");
        networks.rest().await.unwrap();
        let bridges = output("ip", &["-brief", "link", "show", "type", "bridge"]);
        assert!(!bridges.contains("wltest0"), "{bridges}");
        assert!(!output("nft", &["list", "ruleset"]).contains("windlass"));
        assert_eq!(
            std::fs::read_dir(keeps.netns.parent().unwrap())
                .unwrap()
                .count(),
            0
        );
    });
}

#[test]
fn after_a_reboot_everything_is_made_again() {
    play(|stage| async move {
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        let wanted = wish("web", "back", &[("80/tcp", "", "8080")]);
        let web = networks.connect(&wanted).await.unwrap();
        // What a boot leaves: files in the run folder that are no mounts any more, and no interfaces or rules.
        nix::mount::umount(&web.netns).unwrap();
        for line in output("ip", &["-brief", "link", "show", "type", "bridge"]).lines() {
            output(
                "ip",
                &["link", "del", line.split_whitespace().next().unwrap()],
            );
        }
        output("nft", &["flush", "ruleset"]);
        drop(networks);

        let networks = stage.networks().await;
        networks.adopt(&[]).await.unwrap();
        let web = networks.connect(&wanted).await.unwrap();
        serve(&inside(&web.netns), "web", 80);
        assert!(tcp(Some(&stage.world), (HOST, 8080)).is_some());
        assert!(tcp(None, (LOCALHOST, 8080)).is_some());
    });
}

#[test]
fn names_are_found_in_users_networks() {
    play(|stage| async move {
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        networks.create(network("other")).await.unwrap();
        let web = networks.connect(&wish("web", "back", &[])).await.unwrap();
        let asks = networks.connect(&wish("asks", "back", &[])).await.unwrap();
        let far = networks.connect(&wish("far", "other", &[])).await.unwrap();
        let plain = networks
            .connect(&wish("plain", "bridge", &[]))
            .await
            .unwrap();
        assert_eq!(plain.nameserver, None);
        assert_eq!(asks.nameserver.as_deref(), Some("127.0.0.11"));
        // The container may have a name server of its own.
        let netns = inside(&asks.netns);
        let _own = within(&netns, || UdpSocket::bind("0.0.0.0:53").unwrap());
        let lookup = |netns: &std::fs::File, name: &'static str| {
            let socket = within(netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
            question(socket, name)
        };
        assert_eq!(lookup(&netns, "WEB").await, Some(ip(&web)));
        assert_eq!(lookup(&inside(&far.netns), "far").await, Some(ip(&far)));
        drop(networks);

        let networks = stage.networks().await;
        networks
            .adopt(&[
                (wish("web", "back", &[]), web.clone()),
                (wish("asks", "back", &[]), asks.clone()),
            ])
            .await
            .unwrap();
        assert_eq!(
            lookup(&netns, "web").await,
            Some(ip(&web)),
            "after a restart"
        );
    });
}

/// The address in the first answer.
async fn question(socket: UdpSocket, name: &str) -> Option<Ipv4Addr> {
    let mut query = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8];
    query.extend_from_slice(name.as_bytes());
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
    socket.send_to(&query, "127.0.0.11:53").await.unwrap();
    let mut buffer = [0; 512];
    let wait = std::time::Duration::from_secs(3);
    let length = tokio::time::timeout(wait, socket.recv(&mut buffer))
        .await
        .ok()?
        .ok()?;
    let last: [u8; 4] = buffer[length - 4..length].try_into().unwrap();
    (buffer[7] == 1).then(|| last.into())
}

#[test]
fn a_firewall_that_drops_by_policy_lets_our_bridges_through() {
    play(|stage| async move {
        output("nft", &["add table inet filter"]);
        output(
            "nft",
            &[
                "add chain inet filter forward { type filter hook forward priority 0; policy drop; }",
            ],
        );
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        for (name, at, port) in [("web", "bridge", 8080), ("db", "back", 8081)] {
            let text = port.to_string();
            let connected = networks
                .connect(&wish(name, at, &[("80/tcp", "", &text)]))
                .await
                .unwrap();
            serve(&inside(&connected.netns), name, 80);
            assert!(tcp(Some(&stage.world), (HOST, port)).is_some(), "{name}");
        }
        let listed = || {
            output("nft", &["list chain inet filter forward"])
                .matches("windlass")
                .count()
        };
        assert_eq!(listed(), 4, "each rule once");
        networks
            .disconnect(&wish("db", "", &[]).container)
            .await
            .unwrap();
        networks.remove("back").await.unwrap();
        assert_eq!(listed(), 2);
    });
}

#[test]
fn an_older_firewall_that_drops_by_policy_too() {
    play(|stage| async move {
        output("iptables-legacy", &["-P", "FORWARD", "DROP"]);
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        for (name, at, port) in [("web", "bridge", 8080), ("db", "back", 8081)] {
            let text = port.to_string();
            let wanted = wish(name, at, &[("80/tcp", "", &text)]);
            let connected = networks.connect(&wanted).await.unwrap();
            serve(&inside(&connected.netns), name, 80);
            assert!(tcp(Some(&stage.world), (HOST, port)).is_some(), "{name}");
        }
        let listed = || output("iptables-legacy", &["-S", "FORWARD"]);
        assert_eq!(listed().matches("ACCEPT").count(), 4, "{}", listed());
        let db = wish("db", "", &[]).container;
        networks.disconnect(&db).await.unwrap();
        networks.remove("back").await.unwrap();
        assert_eq!(listed().matches("ACCEPT").count(), 2, "{}", listed());
    });
}

#[test]
fn other_names_are_asked_of_the_hosts_name_server() {
    play(|stage| async move {
        let settings = std::env::temp_dir().join(format!("resolv-{}", std::process::id()));
        std::fs::write(&settings, format!("nameserver {WORLD}\n")).unwrap();
        let nothing: Option<&str> = None;
        let bind = nix::mount::MsFlags::MS_BIND;
        // In the test's own mounts only.
        nix::mount::mount(Some(&settings), "/etc/resolv.conf", nothing, bind, nothing).unwrap();
        std::fs::remove_file(&settings).unwrap();
        let upstream = within(&stage.world, || UdpSocket::bind("0.0.0.0:53").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = upstream.recv_from(&mut buffer) {
                let mut reply = buffer[..length].to_vec();
                (reply[2], reply[7]) = (0x81, 1);
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 9, 9, 9, 9]);
                upstream.send_to(&reply, from).unwrap();
            }
        });
        let networks = stage.networks().await;
        networks.create(network("back")).await.unwrap();
        let mut closed = network("closed");
        closed.internal = true;
        networks.create(closed).await.unwrap();
        for (at, answer) in [("back", Some(Ipv4Addr::new(9, 9, 9, 9))), ("closed", None)] {
            let asks = networks.connect(&wish(at, at, &[])).await.unwrap();
            let socket = within(&inside(&asks.netns), || {
                UdpSocket::bind("0.0.0.0:0").unwrap()
            });
            assert_eq!(question(socket, "elsewhere").await, answer, "{at}");
        }
    });
}

#[test]
fn two_engines_share_a_host() {
    play(|stage| async move {
        let one = stage.engine("wlone0", "10.71.0.0/24").await;
        let two = stage.engine("wltwo0", "10.72.0.0/24").await;
        let first = one
            .connect(&wish("a", "bridge", &[("80/tcp", "", "8081")]))
            .await
            .unwrap();
        let second = two
            .connect(&wish("b", "bridge", &[("80/tcp", "", "8082")]))
            .await
            .unwrap();
        serve(&inside(&first.netns), "a", 80);
        serve(&inside(&second.netns), "b", 80);
        one.adopt(&[]).await.unwrap();
        assert_eq!(tcp(Some(&stage.world), (HOST, 8081)), None);
        let answer = tcp(Some(&stage.world), (HOST, 8082)).unwrap_or_default();
        assert!(answer.starts_with("b "), "the other is not touched");
    });
}

#[test]
fn a_host_that_forwards_for_containers_forwards_for_nobody_else() {
    play(|stage| async move {
        let forwards = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let networks = stage.networks().await;
        let web = wish("web", "bridge", &[("80/tcp", "", "8080")]);
        let connected = networks.connect(&web).await.unwrap();
        serve(&inside(&connected.netns), "web", 80);
        let policy = || output("nft", &["list chain ip filter FORWARD"]);
        assert!(policy().contains("policy drop"), "{}", policy());
        assert!(tcp(Some(&stage.world), (HOST, 8080)).is_some());
        serve(&stage.world, "world", 7000);
        assert!(tcp(Some(&inside(&connected.netns)), (WORLD, 7000)).is_some());
        // Again: it stays as it is.
        drop(networks);
        let networks = stage.networks().await;
        networks.adopt(&[(web.clone(), connected)]).await.unwrap();
        assert!(policy().contains("policy drop") && forwards().trim() == "1");
        networks.disconnect(&web.container).await.unwrap();
        drop(networks);
        windlassd::network::clear("wltest0").await.unwrap();
        assert!(policy().contains("policy accept"), "{}", policy());
        assert!(!policy().contains("windlass"), "{}", policy());
        assert_eq!(forwards().trim(), "0", "nobody needs it any more");
    });
}

#[test]
fn several_networks_and_ipv6() {
    play(|stage| async move {
        let networks = stage.networks().await;
        let mut six = network("six");
        six.enable_ipv6 = Some(true);
        networks.create(six).await.unwrap();
        networks.create(network("back")).await.unwrap();
        let web = wish("web", "back", &[("80/tcp", "", "8080")]);
        let first = networks.connect(&web).await.unwrap();
        assert_eq!(first.ports["80/tcp"].len(), 1);
        let netns = inside(&first.netns);
        serve(&netns, "web", 80);
        let mut more = web.clone();
        more.joins = vec![stage::place("web", "six")];
        more.joins[0].priority = 7;
        let both = networks.join(&more).await.unwrap();
        assert_eq!(both.endpoints.len(), 2);
        let again = networks.join(&more).await.unwrap_err();
        assert!(again.message.contains("already exists in network six"));
        let routes = |family: &str| {
            within(&netns, || {
                output("ip", &[family, "route", "show", "default"])
            })
        };
        let six = &both.endpoints["six"];
        assert!(routes("-4").contains(&six.gateway), "{}", routes("-4"));
        assert!(routes("-6").contains(&six.ipv6_gateway), "{}", routes("-6"));
        assert!(
            tcp(Some(&stage.world), (HOST, 8080)).is_some(),
            "by the new way"
        );
        let near = networks.connect(&wish("near", "six", &[])).await.unwrap();
        let _listener = within(&netns, || TcpListener::bind("[::]:81").unwrap());
        let reach = |address: &str| {
            within(&inside(&near.netns), || {
                let to = SocketAddr::new(address.parse().unwrap(), 81);
                TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok()
            })
        };
        assert!(reach(&six.ip_address) && reach(&six.global_ipv6_address));
        assert!(!reach(&both.endpoints["back"].ip_address));

        // The engine goes away and comes back, and finds both.
        drop(networks);
        let networks = stage.networks().await;
        more.joins.insert(0, web.joins[0].clone());
        networks
            .adopt(&[(more.clone(), both.clone())])
            .await
            .unwrap();
        let left = networks.leave(&web.container, "six").await.unwrap();
        assert_eq!(left.endpoints.len(), 1);
        assert!(routes("-4").contains(&left.endpoints["back"].gateway));
        assert_eq!(routes("-6"), "");
        assert!(
            tcp(Some(&stage.world), (HOST, 8080)).is_some(),
            "by the old way"
        );
        let none = networks.leave(&web.container, "six").await.unwrap_err();
        assert!(none.message.contains("is not connected to network six"));
        networks.disconnect(&web.container).await.unwrap();
        networks.remove("six").await.unwrap();
        networks.remove("back").await.unwrap();
        networks.rest().await.unwrap();
        let pairs = output("ip", &["-brief", "link", "show", "type", "veth"]);
        assert!(!pairs.contains("wlv"), "{pairs}");
    });
}
