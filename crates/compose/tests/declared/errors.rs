//! What is wrong is said with its place, what was expected, and what to do.

use crate::support::{errors, try_load};

/// Each file with its errors. Lines without `services:` are further keys of a service.
fn report(cases: &[&str]) -> String {
    let mut lines = Vec::new();
    for case in cases {
        let text = match case.contains("services:") {
            true => format!("{case}\n"),
            false => format!("services:\n  web:\n    image: i\n    {case}\n"),
        };
        lines.push(
            format!("{case}\n{}", errors(&text).replace('\n', "\n  "))
                .replace("\nf.yaml", "\n  f.yaml"),
        );
    }
    lines.join("\n")
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(report(&[
        "enviroment: {A: 1}",
        "imagee: x",
        "zzz: 1",
        "build: {context: ., dockerfil: D}",
        "deploy: {replica: 2}",
        "deploy: {update_config: {monitor: 3s}}",
        "extends: {service: x}",
        "secrets: [a]",
        "x-ingres: {port: 1}",
        "x-fleets: {}",
        "services: {w: {image: i}}\nservice: {}",
        "services: {w: {image: i}}\nx-fleet: {}",
        "services: {w: {image: i}}\nx-ingress: {port: 1}",
        "services: {w: {image: i}}\nsecrets: {a: {file: b}}",
        "services: {w: {image: i}}\nx-fleets: {f: {min: 1, max: 2, target: {cpu: 5, mem: 3}}}",
    ]), @r"
    enviroment: {A: 1}
      f.yaml:4:5: `services.web.enviroment` is not a known key
        hint: did you mean `environment`?
    imagee: x
      f.yaml:4:5: `services.web.imagee` is not a known key
        hint: did you mean `image`?
    zzz: 1
      f.yaml:4:5: `services.web.zzz` is not a known key
    build: {context: ., dockerfil: D}
      f.yaml:4:25: `services.web.build.dockerfil` is not a known key
        hint: did you mean `dockerfile`?
    deploy: {replica: 2}
      f.yaml:4:14: `services.web.deploy.replica` is not a known key
        hint: did you mean `replicas`?
    deploy: {update_config: {monitor: 3s}}
      f.yaml:4:30: `services.web.deploy.update_config.monitor` is Compose's, but windlass does not have it yet
    extends: {service: x}
      f.yaml:4:5: `services.web.extends` is Compose's, but windlass does not have it yet
    secrets: [a]
      f.yaml:4:5: `services.web.secrets` is Compose's, but windlass does not have it yet
    x-ingres: {port: 1}
      f.yaml:4:5: `services.web.x-ingres` looks misspelt
        hint: did you mean `x-ingress`?
    x-fleets: {}
      f.yaml:4:5: `services.web.x-fleets` has no effect here
        hint: `x-fleets` belongs to the file
    services: {w: {image: i}}
    service: {}
      f.yaml:2:1: `service` is not a known key
        hint: did you mean `services`?
    services: {w: {image: i}}
    x-fleet: {}
      f.yaml:2:1: `x-fleet` looks misspelt
        hint: did you mean `x-fleets`?
    services: {w: {image: i}}
    x-ingress: {port: 1}
      f.yaml:2:1: `x-ingress` has no effect here
        hint: `x-ingress` belongs to services.<name>
    services: {w: {image: i}}
    secrets: {a: {file: b}}
      f.yaml:2:1: `secrets` is Compose's, but windlass does not have it yet
    services: {w: {image: i}}
    x-fleets: {f: {min: 1, max: 2, target: {cpu: 5, mem: 3}}}
      f.yaml:2:49: `x-fleets.f.target.mem` is not a known key
    ");
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(report(&[
        "ports: 80",
        "ports: [[80]]",
        "hostname: 5",
        "user: 1000",
        "tty: maybe",
        "command: [a, 1]",
        "command: sh -c 'x",
        "environment: [[a]]",
        "environment: {A: [1]}",
        "environment: ['=x']",
        "labels: x",
        "deploy: []",
        "scale: -1",
        "scale: 1.5",
        "stop_grace_period: 5",
        "mem_limit: lots",
        "cpus: 0",
        "restart: sometimes",
        "healthcheck: {test: [echo, x]}",
        "healthcheck: {test: [CMD]}",
        "networks: 3",
        "services: [a]",
        "services: {w: x}",
        "services: {w: }",
        "services: {}\nname: 3",
    ]), @r#"
    ports: 80
      f.yaml:4:12: `services.web.ports` must be a list, but is the number `80`
    ports: [[80]]
      f.yaml:4:13: `services.web.ports[0]` must be a string or a number, but is a list
    hostname: 5
      f.yaml:4:15: `services.web.hostname` must be a string, but is the number `5`
        hint: put it in quotes: "5"
    user: 1000
      f.yaml:4:11: `services.web.user` must be a string, but is the number `1000`
        hint: put it in quotes: "1000"
    tty: maybe
      f.yaml:4:10: `services.web.tty` must be `true` or `false`, but is the string `maybe`
    command: [a, 1]
      f.yaml:4:18: `services.web.command[1]` must be a string, but is the number `1`
        hint: put it in quotes: "1"
    command: sh -c 'x
      f.yaml:4:14: `services.web.command` cannot be split into words: the quote ' is not closed
    environment: [[a]]
      f.yaml:4:19: `services.web.environment[0]` must be a string, but is a list
    environment: {A: [1]}
      f.yaml:4:22: `services.web.environment.A` must be a string or a number, but is a list
    environment: ['=x']
      f.yaml:4:19: `services.web.environment[0]` has no name before the `=`
    labels: x
      f.yaml:4:13: `services.web.labels` must be a mapping, but is the string `x`
    deploy: []
      f.yaml:4:13: `services.web.deploy` must be a mapping, but is a list
    scale: -1
      f.yaml:4:12: `services.web.scale` must be a whole number, but is the number `-1`
    scale: 1.5
      f.yaml:4:12: `services.web.scale` must be a whole number, but is the number `1.5`
    stop_grace_period: 5
      f.yaml:4:24: `services.web.stop_grace_period` must be a duration like `1m30s`, but is the number `5`
    mem_limit: lots
      f.yaml:4:16: `services.web.mem_limit` must be a size like `512m`, but is the string `lots`
    cpus: 0
      f.yaml:4:11: `services.web.cpus` must be a number of processors like `0.5`, but is 0
    restart: sometimes
      f.yaml:4:14: `services.web.restart` must be `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`, but is `sometimes`
    healthcheck: {test: [echo, x]}
      f.yaml:4:25: `services.web.healthcheck.test` must begin with `CMD`, `CMD-SHELL` or `NONE`
    healthcheck: {test: [CMD]}
      f.yaml:4:25: `services.web.healthcheck.test` begins with `CMD`, so it needs a command after it
    networks: 3
      f.yaml:4:15: `services.web.networks` must be a mapping, but is the number `3`
    services: [a]
      f.yaml:1:11: `services` must be a mapping, but is a list
    services: {w: x}
      f.yaml:1:15: `services.w` must be a mapping, but is the string `x`
    services: {w: }
      f.yaml:1:13: `services.w` must be a mapping, but is nothing
    services: {}
    name: 3
      f.yaml:2:7: `name` must be a string, but is the number `3`
    "#);
}

#[test]
fn values_that_make_no_sense() {
    insta::assert_snapshot!(report(&[
        "volumes: ['./html:/srv']",
        "volumes: ['~/html:/srv']",
        r#"volumes: ['C:\html:/srv']"#,
        "volumes: ['v:srv']",
        "volumes: ['/a:/b:zz']",
        "volumes: ['/a:/b:z']",
        "volumes: [{type: bind, source: html, target: /srv}]",
        "volumes: [{type: bind, target: /srv}]",
        "volumes: [{type: npipe, target: /srv}]",
        "volumes: [{target: /srv}]",
        "ports: ['8000-9000:80']",
        "ports: ['x:80']",
        "ports: [{published: 80}]",
        "ports: [{target: 80, published: 8000-8010}]",
        "expose: ['80:80']",
        "network_mode: 'service:db'",
        "network_mode: wifi",
        "build: https://example.com/x.git",
        "labels: {windlass.project: x}",
        "extra_hosts: ['a']",
        "deploy: {mode: global, replicas: 2}",
        "deploy: {mode: global-job}",
        "deploy: {replicas: 2}\n    scale: 3",
        "deploy: {update_config: {parallelism: 0}}",
        "deploy: {update_config: {failure_action: rollback}}",
        "deploy: {placement: {constraints: [node.role == manager]}}",
        "deploy: {placement: {constraints: [node.hostname]}}",
        "deploy: {resources: {limits: {memory: 1g}}}\n    mem_limit: 2g",
        "deploy: {restart_policy: {condition: any, max_attempts: 2}}",
        "x-ingress: {host: a.example}",
        "x-ingress: {port: 0}",
        "x-ingress: {port: 70000}",
        "x-ingress: {port: 80, path: api}",
        "x-ingress: {port: 80, host: 'http://a'}",
        "services: {w: {command: x}}",
        "services: {w: {image: 'a b'}}",
        "services: {'a/b': {image: i}}",
        "services: {w: {image: i}}\nname: My Shop",
        "services: {w: {image: i}}\nvolumes: {v: {driver: nfs}}",
        "services: {w: {image: i}}\nnetworks: {n: {driver: overlay}}",
        "name: x\n# no services:",
    ]), @r"
    volumes: ['./html:/srv']
      f.yaml:4:15: `services.web.volumes[0]` names `./html`, which lies on this computer, but the container runs on a machine
        hint: put the files into the image with `build`, keep data in a named volume, or name an absolute path of the machine
    volumes: ['~/html:/srv']
      f.yaml:4:15: `services.web.volumes[0]` names `~/html`, which lies on this computer, but the container runs on a machine
        hint: put the files into the image with `build`, keep data in a named volume, or name an absolute path of the machine
    volumes: ['C:\html:/srv']
      f.yaml:4:15: `services.web.volumes[0]` lies on this computer, but the container runs on a machine
        hint: put the files into the image with `build`, keep data in a named volume, or name an absolute path of the machine
    volumes: ['v:srv']
      f.yaml:4:15: `services.web.volumes[0]` has `srv` where an absolute path in the container belongs
    volumes: ['/a:/b:zz']
      f.yaml:4:15: `services.web.volumes[0]` has the unknown option `zz`
    volumes: ['/a:/b:z']
      f.yaml:4:15: `services.web.volumes[0]` asks for `z`, which windlass does not have yet
    volumes: [{type: bind, source: html, target: /srv}]
      f.yaml:4:15: `services.web.volumes[0]` names `html`, which lies on this computer, but the container runs on a machine
        hint: put the files into the image with `build`, keep data in a named volume, or name an absolute path of the machine
    volumes: [{type: bind, target: /srv}]
      f.yaml:4:15: `services.web.volumes[0]` needs `source`, an absolute path of the machine
    volumes: [{type: npipe, target: /srv}]
      f.yaml:4:22: `services.web.volumes[0].type` must be `volume` or `bind` or `tmpfs`, but is the string `npipe`
    volumes: [{target: /srv}]
      f.yaml:4:15: `services.web.volumes[0]` needs `type`: `volume`, `bind` or `tmpfs`
    ports: ['8000-9000:80']
      f.yaml:4:13: `services.web.ports[0]` is a range to choose from, which windlass does not have yet
        hint: write `container`, `host:container` or `address:host:container`, with `/udp` where it is not TCP
    ports: ['x:80']
      f.yaml:4:13: `services.web.ports[0]` has `x` where a port from 1 to 65535 belongs
        hint: write `container`, `host:container` or `address:host:container`, with `/udp` where it is not TCP
    ports: [{published: 80}]
      f.yaml:4:13: `services.web.ports[0]` needs `target`, the port in the container
    ports: [{target: 80, published: 8000-8010}]
      f.yaml:4:37: `services.web.ports[0].published` is a range to choose from, which windlass does not have yet
    expose: ['80:80']
      f.yaml:4:14: `services.web.expose[0]` names a port of the host; that is what `ports` is for
    network_mode: 'service:db'
      f.yaml:4:19: `services.web.network_mode` is `service:db`, which windlass does not have yet
    network_mode: wifi
      f.yaml:4:19: `services.web.network_mode` must be `host`, `none` or `bridge`, but is `wifi`
    build: https://example.com/x.git
      f.yaml:4:12: `services.web.build` is an address; windlass builds folders of this computer only
        hint: clone it and give the folder
    labels: {windlass.project: x}
      f.yaml:4:13: `services.web.labels` has the label `windlass.project`, whose beginning is reserved
    extra_hosts: ['a']
      f.yaml:4:19: `services.web.extra_hosts[0]` must be `name:address`, but is `a`
    deploy: {mode: global, replicas: 2}
      f.yaml:4:38: `services.web.deploy.replicas` makes no sense with `mode: global`, which has one on each machine
    deploy: {mode: global-job}
      f.yaml:4:20: `services.web.deploy.mode` is Compose's, but windlass does not have jobs yet
    deploy: {replicas: 2}
        scale: 3
      f.yaml:4:24: `services.web.deploy.replicas` differs from `scale`; give one of them
    deploy: {update_config: {parallelism: 0}}
      f.yaml:4:43: `services.web.deploy.update_config.parallelism` must be at least 1, but is 0
        hint: for all at once give the number of replicas
    deploy: {update_config: {failure_action: rollback}}
      f.yaml:4:46: `services.web.deploy.update_config.failure_action` is `rollback`, which windlass does not have yet
        hint: leave it out or say `pause`: a rollout stops at the first replica that does not become healthy
    deploy: {placement: {constraints: [node.role == manager]}}
      f.yaml:4:40: `services.web.deploy.placement.constraints[0]` asks for `node.role`, which windlass does not have
        hint: write it like `node.labels.fleet == web` or `node.hostname != web-1`
    deploy: {placement: {constraints: [node.hostname]}}
      f.yaml:4:40: `services.web.deploy.placement.constraints[0]` must compare with `==` or `!=`, but is `node.hostname`
        hint: write it like `node.labels.fleet == web` or `node.hostname != web-1`
    deploy: {resources: {limits: {memory: 1g}}}
        mem_limit: 2g
      f.yaml:5:16: `services.web.mem_limit` differs from what `deploy.resources` says; give one of them
    deploy: {restart_policy: {condition: any, max_attempts: 2}}
      f.yaml:4:61: `services.web.deploy.restart_policy.max_attempts` is there for `condition: on-failure` only
    x-ingress: {host: a.example}
      f.yaml:4:16: `services.web.x-ingress` needs `port`, the port in the container
    x-ingress: {port: 0}
      f.yaml:4:23: `services.web.x-ingress.port` must be a port from 1 to 65535, but is 0
    x-ingress: {port: 70000}
      f.yaml:4:23: `services.web.x-ingress.port` must be a port from 1 to 65535, but is the number `70000`
    x-ingress: {port: 80, path: api}
      f.yaml:4:33: `services.web.x-ingress.path` must be a path that begins with `/`, but is `api`
    x-ingress: {port: 80, host: 'http://a'}
      f.yaml:4:33: `services.web.x-ingress.host` must be a host name, but is `http://a`
    services: {w: {command: x}}
      f.yaml:1:15: `services.w` has neither `image` nor `build`
    services: {w: {image: 'a b'}}
      f.yaml:1:23: `services.w.image` must be the name of an image, but is `a b`
    services: {'a/b': {image: i}}
      f.yaml:1:19: `services.a/b` is not a valid name: it takes letters, digits, `.`, `_` and `-`, a letter or digit first
    services: {w: {image: i}}
    name: My Shop
      f.yaml:2:7: `My Shop` cannot name a project
        hint: it takes lower-case letters, digits, `-` and `_`, a letter or digit first, at most 63
    services: {w: {image: i}}
    volumes: {v: {driver: nfs}}
      f.yaml:2:23: `volumes.v.driver` is `nfs`, but windlass has `local` only
    services: {w: {image: i}}
    networks: {n: {driver: overlay}}
      f.yaml:2:24: `networks.n.driver` is `overlay`, but windlass has `bridge` only
    name: x
    # no services:
      f.yaml:1:1: the file declares no services
        hint: add `services:` with at least one service that has an `image` or a `build`
    ");
}

#[test]
fn fleets() {
    let fleet = |keys: &str| format!("services: {{w: {{image: i}}}}\nx-fleets: {{f: {{{keys}}}}}");
    let cases = [
        "min: 3, max: 2, target: {cpu: 60}",
        "min: 2, max: 3",
        "min: 0, max: 3, target: {cpu: 60}",
        "min: 2",
        "count: 2, max: 3",
        "count: 2, target: {cpu: 60}",
        "count: 2, interval: 3s",
        "min: 1, max: 2, target: {}",
        "min: 1, max: 2, target: {cpu: 0}",
        "min: 1, max: 2, target: {cpu: high}",
        "options: {a: {b: c}}",
        "count: -1",
        "warmup: 3s",
    ]
    .map(fleet);
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(report(&cases), @r"
    services: {w: {image: i}}
    x-fleets: {f: {min: 3, max: 2, target: {cpu: 60}}}
      f.yaml:2:21: `x-fleets.f.min` must not be more than `max`, but 3 is more than 2
    services: {w: {image: i}}
    x-fleets: {f: {min: 2, max: 3}}
      f.yaml:2:21: `x-fleets.f.min` differs from `max`, but nothing says when to scale
        hint: add `target: { cpu: 60 }`, or give `count`
    services: {w: {image: i}}
    x-fleets: {f: {min: 0, max: 3, target: {cpu: 60}}}
      f.yaml:2:21: `x-fleets.f.min` must be at least 1: the ingress runs on these machines
    services: {w: {image: i}}
    x-fleets: {f: {min: 2}}
      f.yaml:2:21: `x-fleets.f.min` needs the other one of `min` and `max`
        hint: for a fixed number give `count`
    services: {w: {image: i}}
    x-fleets: {f: {count: 2, max: 3}}
      f.yaml:2:23: `x-fleets.f.count` makes no sense together with `min` and `max`
    services: {w: {image: i}}
    x-fleets: {f: {count: 2, target: {cpu: 60}}}
      f.yaml:2:23: `x-fleets.f.count` makes no sense together with `target`
        hint: give `min` and `max` instead
    services: {w: {image: i}}
    x-fleets: {f: {count: 2, interval: 3s}}
      f.yaml:2:15: `x-fleets.f` says how to scale, but not at what load
        hint: add `target: { cpu: 60 }`
    services: {w: {image: i}}
    x-fleets: {f: {min: 1, max: 2, target: {}}}
      f.yaml:2:40: `x-fleets.f.target` needs `cpu`, in per cent
    services: {w: {image: i}}
    x-fleets: {f: {min: 1, max: 2, target: {cpu: 0}}}
      f.yaml:2:46: `x-fleets.f.target.cpu` must be a number of per cent from 1 to 100, but is 0
    services: {w: {image: i}}
    x-fleets: {f: {min: 1, max: 2, target: {cpu: high}}}
      f.yaml:2:46: `x-fleets.f.target.cpu` must be a number of per cent from 1 to 100, but is the string `high`
    services: {w: {image: i}}
    x-fleets: {f: {options: {a: {b: c}}}}
      f.yaml:2:29: `x-fleets.f.options.a` must be a string or a number, but is a mapping
    services: {w: {image: i}}
    x-fleets: {f: {count: -1}}
      f.yaml:2:23: `x-fleets.f.count` must be a whole number, but is the number `-1`
    services: {w: {image: i}}
    x-fleets: {f: {warmup: 3s}}
      f.yaml:2:16: `x-fleets.f.warmup` is not a known key
        hint: did you mean `warm_up`?
    ");
    insta::assert_snapshot!(report(&["services: {w: {image: i}}\nx-fleets: {Web_1: {count: 1}}"]), @r"
    services: {w: {image: i}}
    x-fleets: {Web_1: {count: 1}}
      f.yaml:2:19: `x-fleets.Web_1` is not a valid name: machines are named by it, so it takes lower-case letters, digits and `-`, at most 50
    ");
}

#[test]
fn what_only_the_whole_shows() {
    insta::assert_snapshot!(report(&[
        "depends_on: [wep]",
        "depends_on: {db: {condition: service_started, required: false}}",
        "depends_on: {db: {required: false}}",
        "services:\n  web: {image: i, depends_on: [dbb]}\n  db: {image: i}",
        "services:\n  web: {image: i, depends_on: [db]}\n  db: {image: i, profiles: [p]}",
        "services:\n  a: {image: i, depends_on: [b]}\n  b: {image: i, depends_on: [c]}\n  c: {image: i, depends_on: [b]}",
        "services: {a: {image: i, depends_on: [a]}}",
        "services:\n  a: {image: i, depends_on: {b: {condition: service_completed_successfully}}}\n  b: {image: i, restart: always}",
        "networks: [front]",
        "volumes: ['data:/data']",
        "services: {w: {image: i, volumes: ['date:/d']}}\nvolumes: {data: }",
        "services: {w: {image: i, deploy: {placement: {constraints: [node.labels.fleet == wep]}}}}\nx-fleets: {web: }",
        "ports: ['80:80', '80:81']",
        "ports: ['127.0.0.1:80:80', '80:81']",
        "volumes: [/a, /a]",
        "network_mode: host\n    networks: [default]\n    ports: ['80']",
        "ports: ['80:80']\n    deploy: {update_config: {order: start-first}}",
        "ports: ['80:80']\n    x-ingress: {port: 80}",
        "services:\n  a: {image: i, x-ingress: {port: 1}}\n  b: {image: i, x-ingress: {port: 2}}",
    ]), @r"
    depends_on: [wep]
      f.yaml:4:5: `services.web.depends_on` names the service `wep`, which is not declared
        hint: did you mean `web`?
    depends_on: {db: {condition: service_started, required: false}}
      f.yaml:4:5: `services.web.depends_on` names the service `db`, which is not declared
    depends_on: {db: {required: false}}
      f.yaml:4:22: `services.web.depends_on.db` needs `condition`
    services:
      web: {image: i, depends_on: [dbb]}
      db: {image: i}
      f.yaml:2:19: `services.web.depends_on` names the service `dbb`, which is not declared
        hint: did you mean `db`?
    services:
      web: {image: i, depends_on: [db]}
      db: {image: i, profiles: [p]}
      f.yaml:2:19: `services.web.depends_on` names the service `db`, which is left out by its profiles
        hint: ask for a profile of `db`, or say `required: false`
    services:
      a: {image: i, depends_on: [b]}
      b: {image: i, depends_on: [c]}
      c: {image: i, depends_on: [b]}
      f.yaml:3:17: `depends_on` has a cycle: `b` → `c` → `b`
    services: {a: {image: i, depends_on: [a]}}
      f.yaml:1:26: `depends_on` has a cycle: `a` → `a`
    services:
      a: {image: i, depends_on: {b: {condition: service_completed_successfully}}}
      b: {image: i, restart: always}
      f.yaml:2:17: `b` must complete, but its `restart` starts it again whenever it ends
        hint: say `restart: no` or `restart: on-failure` in `services.b`
    networks: [front]
      f.yaml:4:5: `services.web.networks` names the network `front`, which is not declared
    volumes: ['data:/data']
      f.yaml:4:5: `services.web.volumes` names the volume `data`, which is not declared
    services: {w: {image: i, volumes: ['date:/d']}}
    volumes: {data: }
      f.yaml:1:26: `services.w.volumes` names the volume `date`, which is not declared
        hint: did you mean `data`?
    services: {w: {image: i, deploy: {placement: {constraints: [node.labels.fleet == wep]}}}}
    x-fleets: {web: }
      f.yaml:1:47: `services.w.deploy.placement.constraints` names the fleet `wep`, which is not declared
        hint: did you mean `web`?
    ports: ['80:80', '80:81']
      f.yaml:4:5: `services.web.ports` publishes port 80 of the machine twice
    ports: ['127.0.0.1:80:80', '80:81']
      f.yaml:4:5: `services.web.ports` publishes port 80 of the machine twice
    volumes: [/a, /a]
      f.yaml:4:5: `services.web.volumes` mounts `/a` twice
    network_mode: host
        networks: [default]
        ports: ['80']
      f.yaml:4:5: `services.web.network_mode` is `host`, which cannot be combined with `networks`
      f.yaml:4:5: `services.web.network_mode` is `host`, which cannot be combined with `ports`
    ports: ['80:80']
        deploy: {update_config: {order: start-first}}
      f.yaml:5:30: `services.web.deploy.update_config.order` cannot be `start-first`: the new replica and the old one would both need port 80 of the machine
        hint: publish no fixed port (use `x-ingress`), or say `stop-first`
    ports: ['80:80']
        x-ingress: {port: 80}
      f.yaml:4:5: `services.web.ports` publishes port 80, on which the ingress listens
        hint: with `x-ingress` no port need be published; or give another `listen`
    services:
      a: {image: i, x-ingress: {port: 1}}
      b: {image: i, x-ingress: {port: 2}}
      f.yaml:3:17: `services.b.x-ingress` has the same host, path and port as that of `a`
    ");
}

#[test]
fn interpolation_and_yaml() {
    insta::assert_snapshot!(report(&[
        "command: echo ${",
        "command: ${A=b}",
        "command: ${NO:?say what}",
        "user: a\n    user: b",
        "command: [a",
        "command: \"a",
        "services: {w: {image: i}}\n---\na: 1",
        "services:\n\tw: {image: i}",
    ]), @r#"
    command: echo ${
      f.yaml:4:14: `${` is not a variable; a `$` that is meant literally is written `$$`
    command: ${A=b}
      f.yaml:4:14: `${A=b}` is not a variable; a `$` that is meant literally is written `$$`
    command: ${NO:?say what}
      f.yaml:4:14: the variable `NO` is required: say what
    user: a
        user: b
      f.yaml:5:5: the key `user` is given twice
        hint: it is first given in line 4
    command: [a
      f.yaml:4:14: not valid YAML: unclosed bracket '['
    command: "a
      f.yaml:4:14: not valid YAML: unclosed quote
    services: {w: {image: i}}
    ---
    a: 1
      f.yaml:2:1: a second document begins here; a declared file is one document
    services:
    	w: {image: i}
      f.yaml:2:2: not valid YAML: tabs disallowed within this context (block indentation)
    "#);
}

#[test]
fn several_ports_on_one_address_are_fine() {
    let text =
        "services: {w: {image: i, ports: ['127.0.0.1:80:80', '127.0.0.2:80:80', '80:80/udp']}}\n";
    assert!(try_load(text).is_ok());
}

#[test]
fn at_most_ten_errors_are_told() {
    let keys: Vec<String> = (0..14).map(|n| format!("bad{n}: 1")).collect();
    let text = format!("services: {{w: {{image: i, {}}}}}\n", keys.join(", "));
    let errors = try_load(&text).unwrap_err();
    assert_eq!((errors.findings.len(), errors.more), (10, 4));
    assert!(errors.to_string().ends_with("\nand 4 more"));
}
