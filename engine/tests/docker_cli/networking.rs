//! Networks as their users see them.

use std::net::TcpStream;
use std::process::Command;

use crate::bench::{Bench, get, with_engine};

const SERVE: &str = "mkdir -p /www; echo $NAME > /www/index.html; exec httpd -f -p 80 -h /www";

fn sleeper(b: &Bench, name: &str, options: &[&str]) {
    let run = ["run", "-d", "--name", name];
    b.ok(&[&run, options, &["box", "sleep", "300"]].concat());
}

/// Whether a container reaches a name or address.
fn reaches(b: &Bench, from: &str, to: &str) -> bool {
    let ping = ["exec", from, "ping", "-c1", "-W2", to];
    b.docker(&ping).status.success()
}

#[test]
fn a_container_in_several_networks() {
    with_engine(|b| {
        for (name, subnet) in [("a", "10.81.0.0/24"), ("b", "10.82.0.0/24")] {
            b.ok(&["network", "create", "--subnet", subnet, name]);
        }
        sleeper(
            b,
            "one",
            &["--network", "a", "--ip", "10.81.0.50", "-h", "boat"],
        );
        sleeper(b, "near", &["--network", "b"]);
        assert!(!reaches(b, "near", "one"), "not there yet");
        b.ok(&[
            "network",
            "connect",
            "--alias",
            "y",
            "--ip",
            "10.82.0.60",
            "b",
            "one",
        ]);
        let addresses = b.ok(&["exec", "one", "ip", "-4", "-o", "addr"]);
        for part in ["eth0    inet 10.81.0.50/24", "eth1    inet 10.82.0.60/24"] {
            assert!(addresses.contains(part), "{addresses}");
        }
        let hosts = b.ok(&["exec", "one", "cat", "/etc/hosts"]);
        assert!(
            hosts.ends_with("10.81.0.50\tboat\n10.82.0.60\tboat"),
            "{hosts}"
        );
        for name in ["y", "one", "one.b", "boat", "10.82.0.60"] {
            assert!(reaches(b, "near", name), "{name}");
        }
        let way = |b: &Bench| b.ok(&["exec", "one", "ip", "route", "show", "default"]);
        assert!(way(b).contains("via 10.81.0.1"), "{}", way(b));
        let (_, words) = b.fails(&["network", "connect", "b", "one"]);
        assert!(
            words.contains("endpoint with name one already exists in network b"),
            "{words}"
        );
        let (_, words) = b.fails(&["network", "rm", "a"]);
        assert!(
            words.contains("network a has active endpoints (name:\"one\""),
            "{words}"
        );

        b.kill_engine();
        b.start();
        assert!(reaches(b, "near", "y"), "after a crash");
        b.ok(&["network", "disconnect", "a", "one"]);
        assert!(way(b).contains("via 10.82.0.1"), "{}", way(b));
        let hosts = b.ok(&["exec", "one", "cat", "/etc/hosts"]);
        assert!(!hosts.contains("10.81.0.50"), "{hosts}");
        let (_, words) = b.fails(&["network", "disconnect", "a", "one"]);
        assert!(words.contains("is not connected to network a"), "{words}");
        b.ok(&["network", "rm", "a"]);
        b.ok(&["network", "create", "--subnet", "10.83.0.0/24", "c"]);
        b.ok(&["stop", "-t", "0", "one"]);
        b.ok(&["network", "connect", "--gw-priority", "3", "c", "one"]);
        b.ok(&["start", "one"]);
        assert!(way(b).contains("via 10.83.0.1"), "{}", way(b));
        let networks = b.inspect(
            "one",
            "{{range $n, $e := .NetworkSettings.Networks}}{{$n}}={{$e.IPAddress}} {{end}}",
        );
        assert_eq!(networks, "b=10.82.0.60 c=10.83.0.2");
        let inside = b.ok(&[
            "network",
            "inspect",
            "-f",
            "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}",
            "c",
        ]);
        assert_eq!(inside, "one 10.83.0.2/24");

        let two = [
            "--network",
            "name=b,alias=z",
            "--network",
            "name=c,gw-priority=9,ip=10.83.0.9",
        ];
        sleeper(b, "two", &two);
        assert!(reaches(b, "near", "z") && reaches(b, "two", "one"));
        let route = b.ok(&["exec", "two", "ip", "route", "show", "default"]);
        assert!(route.contains("via 10.83.0.1"), "{route}");
        b.ok(&["rm", "-f", "one", "two", "near"]);
        b.ok(&["network", "rm", "b", "c"]);
    });
}

#[test]
fn names_are_resolved_as_in_docker() {
    with_engine(|b| {
        b.ok(&["network", "create", "back"]);
        for name in ["w1", "w2"] {
            sleeper(b, name, &["--network", "back", "--network-alias", "web"]);
        }
        sleeper(
            b,
            "asks",
            &[
                "--network",
                "back",
                "--dns-search",
                "sea",
                "--dns",
                "192.0.2.1",
            ],
        );
        let settings = b.ok(&["exec", "asks", "cat", "/etc/resolv.conf"]);
        assert_eq!(
            settings,
            "nameserver 127.0.0.11\nsearch sea\noptions ndots:0"
        );
        let found = b.ok(&["exec", "asks", "nslookup", "web", "127.0.0.11"]);
        for name in ["w1", "w2"] {
            let ip = b.inspect(name, "{{.NetworkSettings.Networks.back.IPAddress}}");
            assert!(found.contains(&ip), "{found}");
            let turned = b.ok(&["exec", "asks", "nslookup", &ip, "127.0.0.11"]);
            assert!(turned.contains(&format!("{name}.back")), "{turned}");
            let id = b.inspect(name, "{{.Id}}");
            assert!(reaches(b, "asks", &id[..12]));
        }
        b.ok(&["rename", "w1", "other"]);
        assert!(reaches(b, "asks", "other") && !reaches(b, "asks", "w1"));
        b.ok(&["stop", "-t", "0", "w2"]);
        let found = b.ok(&["exec", "asks", "nslookup", "-type=a", "web", "127.0.0.11"]);
        let gone = b.inspect("other", "{{.NetworkSettings.Networks.back.IPAddress}}");
        assert!(found.contains(&gone), "{found}");
        let names = b.inspect("asks", "{{.NetworkSettings.Networks.back.DNSNames}}");
        assert!(names.starts_with("[asks "), "{names}");
        sleeper(b, "plain", &[]);
        assert!(
            !reaches(b, "plain", "asks"),
            "the default network has no names"
        );
    });
}

#[test]
fn ipv6_networks() {
    with_engine(|b| {
        b.ok(&[
            "network",
            "create",
            "--ipv6",
            "--subnet",
            "fd00:9::/64",
            "six",
        ]);
        let options = [
            "--network",
            "six",
            "--ip6",
            "fd00:9::9",
            "-p",
            "8085:80",
            "-e",
            "NAME=six",
        ];
        b.ok(&[
            &["run", "-d", "--name", "web"],
            &options[..],
            &["box", "sh", "-c", SERVE],
        ]
        .concat());
        assert_eq!(
            b.ok(&["port", "web"]),
            "80/tcp -> 0.0.0.0:8085\n80/tcp -> [::]:8085"
        );
        let shown = b.inspect("web", "{{with .NetworkSettings.Networks.six}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}");
        assert_eq!(shown, "fd00:9::9/64 fd00:9::1");
        sleeper(b, "near", &["--network", "six"]);
        assert!(reaches(b, "near", "fd00:9::9"));
        let found = b.ok(&["exec", "near", "nslookup", "web", "127.0.0.11"]);
        assert!(found.contains("fd00:9::9"), "{found}");
        b.until("it answers by IPv4", |_| {
            get(8085).as_deref() == Some("six")
        });
        let by_six = TcpStream::connect("[fd00:9::1]:8085");
        assert!(by_six.is_ok(), "{by_six:?}");
        assert!(
            TcpStream::connect("[::1]:8085").is_err(),
            "refused, not lost"
        );
        let inspected = b.ok(&[
            "network",
            "inspect",
            "-f",
            "{{.EnableIPv6}} {{range .Containers}}{{.IPv6Address}} {{end}}",
            "six",
        ]);
        assert!(
            inspected.contains("true") && inspected.contains("fd00:9::9/64"),
            "{inspected}"
        );
        b.ok(&["network", "create", "--ipv6", "chosen"]);
        let subnets = b.ok(&[
            "network",
            "inspect",
            "-f",
            "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
            "chosen",
        ]);
        assert!(subnets.contains(" fd"), "{subnets}");
    });
}

#[test]
fn refusals_in_dockers_words() {
    with_engine(|b| {
        b.ok(&["network", "create", "--subnet", "10.81.0.0/24", "there"]);
        let create = ["network", "create"];
        for (arguments, words) in [
            (&["there"][..], "network with name there already exists"),
            (
                &["bridge"],
                "operation is not permitted on predefined bridge network",
            ),
            (
                &["--subnet", "10.81.0.128/25", "x"],
                "Pool overlaps with other one on this address space",
            ),
            (
                &["--subnet", "10.82.0.1/24", "x"],
                "invalid subnet 10.82.0.1/24: it should be 10.82.0.0/24",
            ),
            (&["-d", "overlay", "x"], "This node is not a swarm manager"),
            (&["-d", "nosuch", "x"], "plugin \"nosuch\" not found"),
            (
                &["-d", "host", "x"],
                "only one instance of \"host\" network is allowed",
            ),
        ] {
            let (_, said) = b.fails(&[&create, arguments].concat());
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        sleeper(b, "plain", &[]);
        sleeper(b, "none", &["--network", "none"]);
        for (arguments, words) in [
            (
                &["network", "rm", "bridge"][..],
                "bridge is a pre-defined network and cannot be removed",
            ),
            (
                &["network", "connect", "host", "plain"],
                "container cannot be disconnected from host network or connected to host network",
            ),
            (
                &["network", "connect", "none", "plain"],
                "in private (none) mode",
            ),
            (
                &["network", "connect", "there", "none"],
                "in private (none) mode",
            ),
            (
                &["network", "connect", "there", "nosuch"],
                "No such container: nosuch",
            ),
            (
                &["network", "connect", "nosuch", "plain"],
                "network nosuch not found",
            ),
            (
                &["network", "connect", "--ip", "10.99.0.1", "there", "plain"],
                "no configured subnet",
            ),
            (
                &["run", "--rm", "--ip", "10.78.0.9", "box", "true"],
                "user specified IP address is supported on user defined networks only",
            ),
            (
                &["run", "--rm", "--network", "nosuch", "box", "true"],
                "network nosuch not found",
            ),
        ] {
            let (_, said) = b.fails(arguments);
            assert!(said.contains(words), "{arguments:?}: {said}");
        }
        let addresses = b.inspect("plain", "{{len .NetworkSettings.Networks}}");
        assert_eq!(addresses, "1", "nothing half made");
        let names = |filter: &str| b.ok(&["network", "ls", "-f", filter, "--format", "{{.Name}}"]);
        assert_eq!(names("type=custom"), "there");
        assert_eq!(names("dangling=true"), "there");
        let both = ["-f", "dangling=true", "-f", "dangling=0"];
        let (_, words) = b.fails(&[&["network", "ls"], &both[..]].concat());
        assert!(words.contains("got more than one value"), "{words}");
        assert_eq!(names("driver=host"), "host");
        assert_eq!(names("name=ther"), "there");
        b.ok(&["network", "create", "--label", "keep", "kept"]);
        assert_eq!(
            b.ok(&["network", "prune", "-f", "--filter", "label!=keep"]),
            "Deleted Networks:\nthere"
        );
        assert_eq!(names("type=custom"), "kept");
    });
}

#[test]
fn linked_containers() {
    with_engine(|b| {
        sleeper(b, "db", &["-e", "A=b", "--expose", "5432"]);
        let ip = b.inspect("db", "{{.NetworkSettings.IPAddress}}");
        let seen = b.ok(&[
            "run",
            "--rm",
            "--name",
            "web",
            "--link",
            "db:store",
            "box",
            "sh",
            "-c",
            "cat /etc/hosts; env",
        ]);
        assert!(seen.contains(&format!("{ip}\tstore ")), "{seen}");
        for line in [
            format!("STORE_PORT=tcp://{ip}:5432"),
            format!("STORE_PORT_5432_TCP_ADDR={ip}"),
            "STORE_NAME=/web/store".to_owned(),
            "STORE_ENV_A=b".to_owned(),
        ] {
            assert!(seen.contains(&line), "{line}: {seen}");
        }
        b.ok(&[
            "create", "--name", "made", "--link", "db:store", "box", "true",
        ]);
        assert_eq!(
            b.inspect("made", "{{.HostConfig.Links}}"),
            "[/db:/made/store]"
        );
        b.ok(&["rm", "--link", "made/store"]);
        assert_eq!(b.inspect("made", "{{len .HostConfig.Links}}"), "0");
        let (_, words) = b.fails(&["run", "--link", "nosuch:x", "box", "true"]);
        assert!(
            words.contains("could not get container for nosuch"),
            "{words}"
        );
        b.ok(&["network", "create", "back"]);
        b.ok(&["network", "connect", "back", "db"]);
        let linked = [
            "run",
            "--rm",
            "--network",
            "back",
            "--link",
            "db:short",
            "box",
            "ping",
            "-c1",
            "short",
        ];
        assert!(b.ok(&linked).contains("1 packets received"));
    });
}

#[test]
fn options_of_networks() {
    with_engine(|b| {
        let options = [
            "com.docker.network.bridge.name=wlcliopt",
            "com.docker.network.bridge.enable_icc=false",
            "com.docker.network.driver.mtu=1400",
            "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
            "com.docker.network.container_iface_prefix=net",
        ];
        let flags: Vec<&str> = options.iter().flat_map(|o| ["-o", o]).collect();
        b.ok(&[&["network", "create"], &flags[..], &["apart"]].concat());
        sleeper(b, "one", &["--network", "apart"]);
        b.ok(&[
            "run",
            "-d",
            "--name",
            "two",
            "--network",
            "apart",
            "-p",
            "8086:80",
            "-e",
            "NAME=two",
            "box",
            "sh",
            "-c",
            SERVE,
        ]);
        assert_eq!(b.ok(&["port", "two"]), "80/tcp -> 127.0.0.1:8086");
        let own = b.ok(&["exec", "one", "ip", "-o", "link", "show", "net0"]);
        assert!(own.contains("mtu 1400"), "{own}");
        assert!(!reaches(b, "one", "two"), "they are kept apart");
        let gateway = b.inspect("one", "{{.NetworkSettings.Networks.apart.Gateway}}");
        assert!(reaches(b, "one", &gateway));
        b.until("it answers", |_| get(8086).as_deref() == Some("two"));
        let bridge = Command::new("ip")
            .args(["link", "show", "wlcliopt"])
            .output()
            .unwrap();
        assert!(bridge.status.success());

        let ip = |line: &str| {
            let done = Command::new("ip").args(line.split(' ')).status();
            assert!(done.unwrap().success(), "ip {line}");
        };
        ip("link add dm0 type veth peer name dm1");
        ip("link set dm0 up");
        ip("link set dm1 up");
        b.ok(&[
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet",
            "10.90.0.0/24",
            "-o",
            "parent=dm0",
            "beside",
        ]);
        sleeper(b, "m1", &["--network", "beside"]);
        sleeper(b, "m2", &["--network", "beside"]);
        assert!(reaches(b, "m1", "m2"));
        b.ok(&["network", "disconnect", "beside", "m2"]);
        assert!(!b.ok(&["exec", "m2", "ip", "-o", "link"]).contains("eth0"));
        b.ok(&["rm", "-f", "m1", "m2", "one", "two"]);
        b.ok(&["network", "rm", "beside", "apart"]);
        let bridge = Command::new("ip")
            .args(["link", "show", "wlcliopt"])
            .output()
            .unwrap();
        assert!(!bridge.status.success(), "it goes with its network");
    });
}
