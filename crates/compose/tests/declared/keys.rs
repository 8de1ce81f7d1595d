//! Every supported key: what it says arrives in the project. A key without a case here fails the last test.

use serde_json::Value;
use windlass_compose::keys::TABLES;

use crate::support::loaded;

/// The table's place and the key, the file, where to look in the project, what must be there.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const SERVICE: &str = "services.<name>";
const BUILD: &str = "services.<name>.build";
const CHECK: &str = "services.<name>.healthcheck";
const PORT: &str = "services.<name>.ports[]";
const MOUNT: &str = "services.<name>.volumes[]";
const DEPLOY: &str = "services.<name>.deploy";

/// Lines that begin with `web: ` stand for a service with an image and these further keys.
#[rustfmt::skip]
const CASES: &[Case] = &[
    ("the file", "name", "name: other\nservices: {w: {image: i}}", "/name", r#""other""#),
    ("the file", "name", "name: n-${TAG:+24}\nservices: {w: {image: i}}", "/name", r#""n-24""#),
    ("the file", "services", "services: {w: {image: i}}", "/services/w/image", r#""i""#),
    ("the file", "volumes", "web: tty: true\nvolumes: {v: }", "/volumes/v/name", r#""shop_v""#),
    ("the file", "networks", "web: tty: true\nnetworks: {n: {}}", "/networks/n/name", r#""shop_n""#),
    ("the file", "networks", "web: tty: true", "/networks/default/name", r#""shop_default""#),
    ("the file", "x-fleets", "web: tty: true\nx-fleets: {f: }", "/fleets/f/max", "1"),
    (SERVICE, "image", "services: {w: {image: 'r:5000/a/b:1'}}", "/services/w/image", r#""r:5000/a/b:1""#),
    (SERVICE, "build", "services: {w: {build: ../x}}", "/services/w/build/context", r#""../x""#),
    (SERVICE, "build", "services: {w: {build: ../x}}", "/services/w/image", r#""shop-w""#),
    (SERVICE, "cap_add", "web: cap_add: [NET_ADMIN]", "/services/web/cap_add", r#"["NET_ADMIN"]"#),
    (SERVICE, "cap_drop", "web: cap_drop: [ALL]", "/services/web/cap_drop", r#"["ALL"]"#),
    (SERVICE, "command", "web: command: sh -c 'a b'", "/services/web/command", r#"["sh", "-c", "a b"]"#),
    (SERVICE, "command", "web: command: [a, 'b c']", "/services/web/command", r#"["a", "b c"]"#),
    (SERVICE, "command", "web: command: []", "/services/web/command", "[]"),
    (SERVICE, "command", "web: command: ", "/services/web/command", "null"),
    (SERVICE, "entrypoint", "web: entrypoint: /e --x", "/services/web/entrypoint", r#"["/e", "--x"]"#),
    (SERVICE, "cpus", "web: cpus: '1.5'", "/services/web/resources/cpus", "1.5"),
    (SERVICE, "depends_on", "web: depends_on: [b]\n  b: {image: b}", "/services/web/depends_on/b", r#""Started""#),
    (SERVICE, "deploy", "web: deploy: {replicas: 3}", "/services/web/deploy/mode/Replicated", "3"),
    (SERVICE, "dns", "web: dns: 1.1.1.1", "/services/web/dns", r#"["1.1.1.1"]"#),
    (SERVICE, "env_file", "web: env_file: a.env", "/services/web/environment/B", r#""file""#),
    (SERVICE, "environment", "web: environment: [A=1, B=x=y]", "/services/web/environment", r#"{"A": "1", "B": "x=y"}"#),
    (SERVICE, "environment", "web: environment: {A: 1.10, B: true}", "/services/web/environment", r#"{"A": "1.10", "B": "true"}"#),
    (SERVICE, "expose", "web: expose: ['80', 81/udp, 90-91]", "/services/web/expose", r#"["80/tcp", "81/udp", "90/tcp", "91/tcp"]"#),
    (SERVICE, "extra_hosts", "web: extra_hosts: ['a:1.2.3.4', 'b=::1']", "/services/web/extra_hosts", r#"["a:1.2.3.4", "b:::1"]"#),
    (SERVICE, "extra_hosts", "web: extra_hosts: {a: [1.2.3.4, host-gateway]}", "/services/web/extra_hosts", r#"["a:1.2.3.4", "a:host-gateway"]"#),
    (SERVICE, "healthcheck", "web: healthcheck: {test: curl -f x}", "/services/web/healthcheck/test", r#"["CMD-SHELL", "curl -f x"]"#),
    (SERVICE, "hostname", "web: hostname: h.example", "/services/web/hostname", r#""h.example""#),
    (SERVICE, "init", "web: init: true", "/services/web/init", "true"),
    (SERVICE, "labels", "web: labels: [a=b, c]", "/services/web/labels", r#"{"a": "b", "c": ""}"#),
    (SERVICE, "logging", "web: logging: {driver: local}", "/services/web/logging", r#"["local", {}]"#),
    (SERVICE, "mem_limit", "web: mem_limit: 1gb", "/services/web/resources/memory_bytes", "1073741824"),
    (SERVICE, "mem_reservation", "web: mem_reservation: 1k", "/services/web/resources/memory_reservation_bytes", "1024"),
    (SERVICE, "network_mode", "web: network_mode: host", "/services/web/network_mode", r#""host""#),
    (SERVICE, "network_mode", "web: network_mode: host", "/networks", "{}"),
    (SERVICE, "networks", "web: networks: [n]\nnetworks: {n: }", "/services/web/networks", r#"{"n": []}"#),
    (SERVICE, "pids_limit", "web: pids_limit: 10", "/services/web/resources/pids", "10"),
    (SERVICE, "pids_limit", "web: pids_limit: -1", "/services/web/resources/pids", "null"),
    (SERVICE, "ports", "web: ports: [80]", "/services/web/ports/0/target", "80"),
    (SERVICE, "ports", "web: ports: ['127.0.0.1:81-82:80-81/udp']", "/services/web/ports/1", r#"{"target": 81, "published": 82, "host_ip": "127.0.0.1", "protocol": "udp"}"#),
    (SERVICE, "privileged", "web: privileged: true", "/services/web/privileged", "true"),
    (SERVICE, "profiles", "web: tty: true\n  b: {image: b, profiles: [p]}", "/services/b", "absent"),
    (SERVICE, "read_only", "web: read_only: true", "/services/web/read_only", "true"),
    (SERVICE, "restart", "web: tty: true", "/services/web/restart", r#""UnlessStopped""#),
    (SERVICE, "restart", "web: restart: no", "/services/web/restart", r#""No""#),
    (SERVICE, "restart", "web: restart: 'on-failure:3'", "/services/web/restart/OnFailure/maximum", "3"),
    (SERVICE, "restart", "web: depends_on: {b: {condition: service_completed_successfully}}\n  b: {image: b}", "/services/b/restart", r#""No""#),
    (SERVICE, "scale", "web: scale: 2", "/services/web/deploy/mode/Replicated", "2"),
    (SERVICE, "stdin_open", "web: stdin_open: true", "/services/web/stdin_open", "true"),
    (SERVICE, "stop_grace_period", "web: stop_grace_period: 1m30s", "/services/web/stop_grace_period/secs", "90"),
    (SERVICE, "stop_signal", "web: stop_signal: SIGQUIT", "/services/web/stop_signal", r#""SIGQUIT""#),
    (SERVICE, "sysctls", "web: sysctls: {net.core.somaxconn: 1024}", "/services/web/sysctls/net.core.somaxconn", r#""1024""#),
    (SERVICE, "tmpfs", "web: tmpfs: '/run:size=64m'", "/services/web/tmpfs", r#"["/run:size=64m"]"#),
    (SERVICE, "tty", "web: tty: true", "/services/web/tty", "true"),
    (SERVICE, "user", "web: user: '1000:1000'", "/services/web/user", r#""1000:1000""#),
    (SERVICE, "volumes", "web: volumes: [/a]", "/services/web/volumes/0/Volume", r#"{"name": null, "target": "/a", "read_only": false}"#),
    (SERVICE, "volumes", "web: volumes: ['v:/a:ro']\nvolumes: {v: }", "/services/web/volumes/0/Volume", r#"{"name": "v", "target": "/a", "read_only": true}"#),
    (SERVICE, "volumes", "web: volumes: ['/h/x:/a/']", "/services/web/volumes/0/Bind", r#"{"source": "/h/x", "target": "/a", "read_only": false}"#),
    (SERVICE, "working_dir", "web: working_dir: /w", "/services/web/working_dir", r#""/w""#),
    (SERVICE, "x-ingress", "web: x-ingress: {port: 8080}", "/services/web/ingress", r#"{"host": null, "path": "/", "port": 8080, "listen": 80, "health_path": null, "drain": {"secs": 30, "nanos": 0}}"#),
    (BUILD, "args", "web: build: {args: {A: 1, TAG: , NOT_SET: }}", "/services/web/build/args", r#"{"A": "1", "TAG": "2.4"}"#),
    (BUILD, "context", "web: build: {context: c}", "/services/web/build/context", r#""c""#),
    (BUILD, "dockerfile", "web: build: {dockerfile: D}", "/services/web/build/dockerfile", r#""D""#),
    (BUILD, "labels", "web: build: {labels: [a=b]}", "/services/web/build/labels/a", r#""b""#),
    (BUILD, "target", "web: build: {target: t}", "/services/web/build/target", r#""t""#),
    (CHECK, "disable", "web: healthcheck: {disable: true}", "/services/web/healthcheck/test", r#"["NONE"]"#),
    (CHECK, "interval", "web: healthcheck: {interval: 2s}", "/services/web/healthcheck/interval/secs", "2"),
    (CHECK, "retries", "web: healthcheck: {retries: '4'}", "/services/web/healthcheck/retries", "4"),
    (CHECK, "start_interval", "web: healthcheck: {start_interval: 1s}", "/services/web/healthcheck/start_interval/secs", "1"),
    (CHECK, "start_period", "web: healthcheck: {start_period: 9s}", "/services/web/healthcheck/start_period/secs", "9"),
    (CHECK, "test", "web: healthcheck: {test: [CMD, a, b]}", "/services/web/healthcheck/test", r#"["CMD", "a", "b"]"#),
    (CHECK, "timeout", "web: healthcheck: {timeout: 3s}", "/services/web/healthcheck/timeout/secs", "3"),
    (PORT, "host_ip", "web: ports: [{target: 1, host_ip: 127.0.0.1}]", "/services/web/ports/0/host_ip", r#""127.0.0.1""#),
    (PORT, "protocol", "web: ports: [{target: 1, protocol: udp}]", "/services/web/ports/0/protocol", r#""udp""#),
    (PORT, "published", "web: ports: [{target: 1, published: '2'}]", "/services/web/ports/0/published", "2"),
    (PORT, "target", "web: ports: [{target: 1, mode: host}]", "/services/web/ports/0/target", "1"),
    (MOUNT, "type", "web: volumes: [{type: volume, target: /a}]", "/services/web/volumes/0/Volume/target", r#""/a""#),
    (MOUNT, "source", "web: volumes: [{type: bind, source: /h, target: /a}]", "/services/web/volumes/0/Bind/source", r#""/h""#),
    (MOUNT, "target", "web: volumes: [{type: tmpfs, target: /a}]", "/services/web/volumes/0/Tmpfs", r#"{"target": "/a", "size_bytes": null}"#),
    (MOUNT, "read_only", "web: volumes: [{type: volume, target: /a, read_only: true}]", "/services/web/volumes/0/Volume/read_only", "true"),
    (MOUNT, "tmpfs", "web: volumes: [{type: tmpfs, target: /a, tmpfs: {}}]", "/services/web/volumes/0/Tmpfs/target", r#""/a""#),
    ("services.<name>.volumes[].tmpfs", "size", "web: volumes: [{type: tmpfs, target: /a, tmpfs: {size: 2k}}]", "/services/web/volumes/0/Tmpfs/size_bytes", "2048"),
    ("services.<name>.env_file[]", "path", "web: env_file: [{path: a.env}]", "/services/web/environment/A", r#""file""#),
    ("services.<name>.env_file[]", "required", "web: env_file: [{path: none.env, required: false}]", "/services/web/environment", "{}"),
    ("services.<name>.depends_on.<name>", "condition", "web: depends_on: {b: {condition: service_healthy}}\n  b: {image: b}", "/services/web/depends_on/b", r#""Healthy""#),
    ("services.<name>.depends_on.<name>", "required", "web: depends_on: {b: {condition: service_started, required: false}}\n  b: {image: b, profiles: [p]}", "/services/web/depends_on", "{}"),
    ("services.<name>.networks.<name>", "aliases", "web: networks: {default: {aliases: [x]}}", "/services/web/networks/default", r#"["x"]"#),
    ("services.<name>.logging", "driver", "web: logging: {driver: none}", "/services/web/logging/0", r#""none""#),
    ("services.<name>.logging", "options", "web: logging: {options: {max-file: 3}}", "/services/web/logging", r#"["json-file", {"max-file": "3"}]"#),
    (DEPLOY, "mode", "web: deploy: {mode: global}", "/services/web/deploy/mode", r#""Global""#),
    (DEPLOY, "placement", "web: deploy: {placement: {}}", "/services/web/deploy/constraints", "[]"),
    (DEPLOY, "replicas", "web: deploy: {mode: replicated, replicas: 0}", "/services/web/deploy/mode/Replicated", "0"),
    (DEPLOY, "resources", "web: deploy: {resources: {}}", "/services/web/resources/cpus", "null"),
    (DEPLOY, "restart_policy", "web: {restart: always, deploy: {restart_policy: {condition: none}}}", "/services/web/restart", r#""No""#),
    (DEPLOY, "update_config", "web: deploy: {update_config: {}}", "/services/web/deploy/update", r#"{"order": "StopFirst", "parallelism": 1}"#),
    ("services.<name>.deploy.placement", "constraints", "web: deploy: {placement: {constraints: [node.labels.fleet==a, 'node.hostname != b']}}", "/services/web/deploy/constraints", r#"[{"key": "node.labels.fleet", "equal": true, "value": "a"}, {"key": "node.hostname", "equal": false, "value": "b"}]"#),
    ("services.<name>.deploy.resources", "limits", "web: deploy: {resources: {limits: }}", "/services/web/resources/cpus", "null"),
    ("services.<name>.deploy.resources", "reservations", "web: deploy: {resources: {reservations: {}}}", "/services/web/resources/cpus", "null"),
    ("services.<name>.deploy.resources.limits", "cpus", "web: {cpus: 0.5, deploy: {resources: {limits: {cpus: '0.50'}}}}", "/services/web/resources/cpus", "0.5"),
    ("services.<name>.deploy.resources.limits", "memory", "web: deploy: {resources: {limits: {memory: 50M}}}", "/services/web/resources/memory_bytes", "52428800"),
    ("services.<name>.deploy.resources.limits", "pids", "web: deploy: {resources: {limits: {pids: 5}}}", "/services/web/resources/pids", "5"),
    ("services.<name>.deploy.resources.reservations", "memory", "web: deploy: {resources: {reservations: {memory: 1m}}}", "/services/web/resources/memory_reservation_bytes", "1048576"),
    ("services.<name>.deploy.restart_policy", "condition", "web: deploy: {restart_policy: {condition: any}}", "/services/web/restart", r#""Always""#),
    ("services.<name>.deploy.restart_policy", "max_attempts", "web: deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}", "/services/web/restart/OnFailure/maximum", "2"),
    ("services.<name>.deploy.update_config", "failure_action", "web: deploy: {update_config: {failure_action: pause}}", "/services/web/deploy/update/parallelism", "1"),
    ("services.<name>.deploy.update_config", "order", "web: deploy: {update_config: {order: start-first}}", "/services/web/deploy/update/order", r#""StartFirst""#),
    ("services.<name>.deploy.update_config", "parallelism", "web: deploy: {update_config: {parallelism: 2}}", "/services/web/deploy/update/parallelism", "2"),
    ("services.<name>.x-ingress", "drain", "web: x-ingress: {port: 1, drain: 5s}", "/services/web/ingress/drain/secs", "5"),
    ("services.<name>.x-ingress", "health_path", "web: x-ingress: {port: 1, health_path: /h}", "/services/web/ingress/health_path", r#""/h""#),
    ("services.<name>.x-ingress", "host", "web: x-ingress: {port: 1, host: a.example}", "/services/web/ingress/host", r#""a.example""#),
    ("services.<name>.x-ingress", "listen", "web: x-ingress: {port: 1, listen: 8000}", "/services/web/ingress/listen", "8000"),
    ("services.<name>.x-ingress", "path", "web: x-ingress: {port: 1, path: /p}", "/services/web/ingress/path", r#""/p""#),
    ("services.<name>.x-ingress", "port", "web: x-ingress: {port: '1'}", "/services/web/ingress/port", "1"),
    ("volumes.<name>", "driver", "web: tty: true\nvolumes: {v: {driver: local}}", "/volumes/v/external", "false"),
    ("volumes.<name>", "driver_opts", "web: tty: true\nvolumes: {v: {driver_opts: {type: nfs}}}", "/volumes/v/options/type", r#""nfs""#),
    ("volumes.<name>", "external", "web: tty: true\nvolumes: {v: {external: true}}", "/volumes/v", r#"{"name": "v", "external": true, "options": {}, "labels": {}}"#),
    ("volumes.<name>", "external", "web: tty: true\nvolumes: {v: {external: {name: o}}}", "/volumes/v/name", r#""o""#),
    ("volumes.<name>", "labels", "web: tty: true\nvolumes: {v: {labels: {a: b}}}", "/volumes/v/labels/a", r#""b""#),
    ("volumes.<name>", "name", "web: tty: true\nvolumes: {v: {name: x}}", "/volumes/v/name", r#""x""#),
    ("networks.<name>", "driver", "web: tty: true\nnetworks: {n: {driver: bridge}}", "/networks/n/internal", "false"),
    ("networks.<name>", "external", "web: tty: true\nnetworks: {n: {external: true, name: x}}", "/networks/n/name", r#""x""#),
    ("networks.<name>", "internal", "web: tty: true\nnetworks: {n: {internal: true}}", "/networks/n/internal", "true"),
    ("networks.<name>", "labels", "web: tty: true\nnetworks: {n: {labels: [a=b]}}", "/networks/n/labels/a", r#""b""#),
    ("networks.<name>", "name", "web: tty: true\nnetworks: {default: {name: x}}", "/networks/default/name", r#""x""#),
    ("x-fleets.<name>", "count", "web: tty: true\nx-fleets: {f: {count: 3}}", "/fleets/f", r#"{"provider": null, "options": {}, "min": 3, "max": 3, "scaling": null, "labels": {}}"#),
    ("x-fleets.<name>", "interval", "fleet: interval: 2s", "/fleets/f/scaling/interval/secs", "2"),
    ("x-fleets.<name>", "labels", "fleet: labels: {a: b}", "/fleets/f/labels/a", r#""b""#),
    ("x-fleets.<name>", "max", "fleet: labels: {}", "/fleets/f/max", "5"),
    ("x-fleets.<name>", "min", "fleet: labels: {}", "/fleets/f/min", "2"),
    ("x-fleets.<name>", "options", "fleet: options: {region: eu, spot: true, size: 2, tags: [a, b]}", "/fleets/f/options", r#"{"region": "eu", "spot": "true", "size": "2", "tags": "a,b"}"#),
    ("x-fleets.<name>", "provider", "fleet: provider: local", "/fleets/f/provider", r#""local""#),
    ("x-fleets.<name>", "scale_in_cooldown", "fleet: scale_in_cooldown: 2m", "/fleets/f/scaling/scale_in_cooldown/secs", "120"),
    ("x-fleets.<name>", "scale_out_cooldown", "fleet: scale_out_cooldown: 1m", "/fleets/f/scaling/scale_out_cooldown/secs", "60"),
    ("x-fleets.<name>", "stabilisation_window", "fleet: stabilisation_window: 5m", "/fleets/f/scaling/stabilisation_window/secs", "300"),
    ("x-fleets.<name>", "target", "fleet: labels: {}", "/fleets/f/scaling/target_cpu_percent", "60.0"),
    ("x-fleets.<name>", "warm_up", "fleet: warm_up: 30s", "/fleets/f/scaling/warm_up/secs", "30"),
    ("x-fleets.<name>.target", "cpu", "fleet: labels: {}", "/fleets/f/scaling/target_cpu_percent", "60.0"),
];

/// The whole file of a case.
fn expand(text: &str) -> String {
    if let Some(rest) = text.strip_prefix("fleet: ") {
        return format!(
            "services: {{web: {{image: i}}}}\nx-fleets: {{f: {{min: 2, max: 5, target: {{cpu: 60}}, {rest}}}}}\n"
        );
    }
    let Some(rest) = text.strip_prefix("web: ") else {
        return format!("{text}\n");
    };
    let (own, more) = rest.split_once('\n').unwrap_or((rest, ""));
    let own = own
        .strip_prefix('{')
        .and_then(|own| own.strip_suffix('}'))
        .unwrap_or(own);
    format!("services:\n  web: {{image: i, {own}}}\n{more}\n")
}

#[test]
fn what_a_key_says_arrives_in_the_project() {
    for (place, key, text, pointer, expected) in CASES {
        let text = expand(text);
        let project = serde_json::to_value(loaded(&text).project).unwrap();
        let expected =
            (*expected != "absent").then(|| serde_json::from_str::<Value>(expected).unwrap());
        assert_eq!(
            project.pointer(pointer),
            expected.as_ref(),
            "{place} {key}\n{text}"
        );
    }
}

#[test]
fn every_supported_key_has_a_case() {
    for table in TABLES {
        for (key, _) in table.supported {
            let found = CASES
                .iter()
                .any(|case| case.0 == table.place && case.1 == *key);
            assert!(found, "no case for `{key}` of {}", table.place);
        }
    }
}

#[test]
fn keys_without_effect_are_accepted_and_those_of_the_future_refused() {
    let ignored = "version: '3'\nx-mine: {a: 1}\nservices: {w: {image: i, x-y: 1, attach: false, develop: {watch: []}}}\n";
    assert_eq!(
        loaded(ignored).project,
        loaded("services: {w: {image: i}}\n").project
    );
    for table in TABLES.iter().filter(|table| table.place == SERVICE) {
        for key in table.later {
            let errors =
                crate::support::errors(&format!("services: {{w: {{image: i, {key}: x}}}}\n"));
            let expected = format!(
                "f.yaml:1:26: `services.w.{key}` is Compose's, but windlass does not have it yet"
            );
            assert_eq!(errors, expected);
        }
    }
}
