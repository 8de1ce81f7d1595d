//! One file over another, by Compose's rules.

use serde_json::{Value, json};
use windlass_compose::{Source, load};

use crate::support::context;

/// What the service `web` becomes with the second file's keys over the first's.
fn merged(first: &str, second: &str) -> Value {
    let file = |name: &str, keys: &str| {
        let text = format!(
            "services: {{web: {{image: i, {keys}}}}}\nnetworks: {{n: , m: }}\nvolumes: {{v: , w: }}\n"
        );
        Source::new(name, text)
    };
    let sources = [file("a.yaml", first), file("b.yaml", second)];
    let loaded = load(&sources, &context()).unwrap_or_else(|e| panic!("{e}\n{first}\n{second}"));
    serde_json::to_value(&loaded.project.services["web"]).unwrap()
}

#[test]
fn values_of_a_service_are_merged() {
    let cases = [
        ("command: a b", "command: c", "/command", json!(["c"])),
        ("command: a b", "tty: true", "/command", json!(["a", "b"])),
        ("command: a", "command: ", "/command", json!(null)),
        ("hostname: x", "hostname: ", "/hostname", json!("x")),
        (
            "environment: {A: 1}",
            "environment: ",
            "/environment/A",
            json!("1"),
        ),
        (
            "environment: {A: 1}",
            "environment: [A]",
            "/environment",
            json!({}),
        ),
        (
            "dns: 1.1.1.1",
            "dns: [2.2.2.2]",
            "/dns",
            json!(["1.1.1.1", "2.2.2.2"]),
        ),
        (
            "logging: {options: {a: 1}}",
            "logging: {driver: none}",
            "/logging",
            json!(["none", {"a": "1"}]),
        ),
        (
            "entrypoint: [a, b]",
            "entrypoint: [c]",
            "/entrypoint",
            json!(["c"]),
        ),
        (
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: x}",
            "/healthcheck/test",
            json!(["CMD-SHELL", "x"]),
        ),
        (
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: x}",
            "/healthcheck/retries",
            json!(2),
        ),
        (
            "environment: [A=1, B=1]",
            "environment: {B: 2, C: 2}",
            "/environment",
            json!({"A": "1", "B": "2", "C": "2"}),
        ),
        (
            "labels: {a: 1}",
            "labels: [b=2]",
            "/labels",
            json!({"a": "1", "b": "2"}),
        ),
        (
            "depends_on: []",
            "networks: [m]",
            "/networks",
            json!({"m": []}),
        ),
        (
            "networks: [n]",
            "networks: {m: {aliases: [x]}}",
            "/networks",
            json!({"n": [], "m": ["x"]}),
        ),
        (
            "dns: [1.1.1.1]",
            "dns: [8.8.8.8, 1.1.1.1]",
            "/dns",
            json!(["1.1.1.1", "8.8.8.8"]),
        ),
        (
            "cap_add: [A]",
            "cap_add: !override [B]",
            "/cap_add",
            json!(["B"]),
        ),
        ("cap_add: [A]", "cap_add: !reset []", "/cap_add", json!([])),
        (
            "extra_hosts: {a: 1.1.1.1}",
            "extra_hosts: ['b=2.2.2.2']",
            "/extra_hosts",
            json!(["a:1.1.1.1", "b:2.2.2.2"]),
        ),
        (
            "build: a",
            "build: {args: {X: 1}}",
            "/build/context",
            json!("a"),
        ),
        (
            "build: a",
            "build: {args: {X: 1}}",
            "/build/args",
            json!({"X": "1"}),
        ),
        (
            "logging: {driver: local, options: {a: 1}}",
            "logging: {options: {b: 2}}",
            "/logging",
            json!(["local", {"a": "1", "b": "2"}]),
        ),
        (
            "logging: {driver: local, options: {a: 1}}",
            "logging: {driver: none}",
            "/logging",
            json!(["none", {}]),
        ),
        (
            "deploy: {replicas: 2, mode: replicated}",
            "deploy: {replicas: 3}",
            "/deploy/mode",
            json!({"Replicated": 3}),
        ),
        (
            "x-ingress: {port: 1, path: /a}",
            "x-ingress: {port: 2}",
            "/ingress/path",
            json!("/a"),
        ),
    ];
    for (first, second, pointer, expected) in cases {
        assert_eq!(
            merged(first, second).pointer(pointer),
            Some(&expected),
            "{first} + {second}"
        );
    }
}

#[test]
fn ports_are_appended_without_repeats() {
    let web = merged(
        "ports: ['80:80', '81:81']",
        "ports: [{target: 81, published: 81}, '82:82']",
    );
    let published: Vec<&Value> = web["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["published"])
        .collect();
    assert_eq!(published, [80, 81, 82]);
}

#[test]
fn mounts_go_by_their_target() {
    let web = merged(
        "volumes: ['v:/a', 'w:/b']",
        "volumes: ['w:/a/:ro', {type: tmpfs, target: /c}]",
    );
    let expected = json!([
        {"Volume": {"name": "w", "target": "/a", "read_only": true}},
        {"Volume": {"name": "w", "target": "/b", "read_only": false}},
        {"Tmpfs": {"target": "/c", "size_bytes": null}},
    ]);
    assert_eq!(web["volumes"], expected);
}

#[test]
fn errors_name_the_file_that_said_it() {
    let sources = [
        Source::new("a.yaml", "services: {web: {image: i, tty: 3}}\n"),
        Source::new("b.yaml", "services:\n  web:\n    tty: maybe\n    imag: x\n"),
    ];
    let errors = load(&sources, &context()).unwrap_err().to_string();
    insta::assert_snapshot!(errors, @r"
    b.yaml:3:10: `services.web.tty` must be `true` or `false`, but is the string `maybe`
    b.yaml:4:5: `services.web.imag` is not a known key
      hint: did you mean `image`?
    ");
}
