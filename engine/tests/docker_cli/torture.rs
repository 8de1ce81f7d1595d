//! `kill -9` of the engine at random moments: whatever was acknowledged is there afterwards, and `windlassd check` finds nothing.
//!
//! `WINDLASS_KILLS` says how often, `WINDLASS_SEED` which moments; the seed is printed. Needs docker-registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::bench::{Bench, text, with_engine};

const REGISTRY: &str = "127.0.0.1:5077";

/// Numbers that a seed determines.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What was acknowledged about an object. What is not listed may be or not be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    Absent,
    Present,
    /// With this first process.
    Runs(String),
}

type Facts = Arc<Mutex<BTreeMap<String, Fact>>>;

/// The docker command, for a thread of its own.
#[derive(Clone)]
struct Client {
    socket: PathBuf,
    home: PathBuf,
    facts: Facts,
}

impl Client {
    fn docker(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new("docker")
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = text(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    }

    /// Does it; until it is acknowledged nothing is known about the object.
    fn change(&self, object: &str, arguments: &[&str], then: Fact) -> Option<String> {
        self.facts.lock().unwrap().remove(object);
        let said = self.docker(arguments)?;
        self.facts.lock().unwrap().insert(object.to_owned(), then);
        Some(said)
    }

    fn known(&self, kind: &str, wanted: impl Fn(&Fact) -> bool) -> Vec<String> {
        let facts = self.facts.lock().unwrap();
        let of = facts
            .iter()
            .filter(|(object, fact)| object.starts_with(kind) && wanted(fact));
        of.map(|(object, _)| object[kind.len() + 1..].to_owned())
            .collect()
    }

    /// One step of the work; the number makes names.
    fn step(&self, random: &mut Random, number: u64) {
        let name = format!("n{number}");
        let running = self.known("container", |f| matches!(f, Fact::Runs(_)));
        let any = |all: &[String], random: &mut Random| -> Option<String> {
            (!all.is_empty()).then(|| all[random.below(all.len() as u64) as usize].clone())
        };
        match random.below(12) {
            0 => drop(self.change("image big:1", &["pull", &big()], Fact::Present)),
            1 => drop(self.change("image big:1", &["rmi", &big()], Fact::Absent)),
            2 => {
                let (tag, context) = (format!("built:{name}"), self.home.join("context"));
                let argument = format!("N={number}");
                let words = ["build", "-q", "--build-arg", &argument, "-t", &tag];
                let words = [&words[..], &[context.to_str().unwrap()]].concat();
                self.change(&format!("image {tag}"), &words, Fact::Present);
            }
            3 | 4 if running.len() < 4 => self.run(&name),
            5 => {
                let object = format!("container {name}");
                let words = ["run", "--rm", "--name", &name, "-v", "/own", "box", "true"];
                self.change(&object, &words, Fact::Absent);
            }
            6 => {
                let Some(of) = any(&running, random) else {
                    return;
                };
                let image = format!("image made:{name}");
                self.change(&image, &["commit", &of, &image[6..]], Fact::Present);
            }
            7 => {
                let Some(of) = any(&running, random) else {
                    return;
                };
                let object = format!("container {of}");
                self.change(&object, &["rm", "-f", "-v", &of], Fact::Absent);
            }
            8 => {
                let object = format!("container {name}");
                let words = ["create", "--name", &name, "-v", "/own", "box", "true"];
                self.change(&object, &words, Fact::Present);
            }
            9 => self.prune(),
            10 => {
                let images = self.known("image", |f| *f == Fact::Present);
                let Some(of) = any(&images, random).filter(|i| !i.starts_with("big")) else {
                    return;
                };
                self.change(&format!("image {of}"), &["rmi", "-f", &of], Fact::Absent);
            }
            _ => {
                if let Some(of) = any(&running, random) {
                    self.docker(&["exec", &of, "true"]);
                }
                let object = format!("volume {name}");
                self.change(&object, &["volume", "create", &name], Fact::Present);
            }
        }
    }

    fn run(&self, name: &str) {
        let object = format!("container {name}");
        let volume = format!("{name}-v:/bin");
        let words = ["run", "-d", "--name", name, "-v", &volume, "-p", "80"];
        let words = [&words[..], &["box", "sleep", "1000"]].concat();
        self.facts.lock().unwrap().remove(&object);
        let pid = self
            .docker(&words)
            .and_then(|_| self.docker(&["inspect", "-f", "{{.State.Pid}}", name]));
        if let Some(pid) = pid {
            let mut facts = self.facts.lock().unwrap();
            facts.insert(object, Fact::Runs(pid));
            facts.insert(format!("volume {name}-v"), Fact::Present);
        }
    }

    fn prune(&self) {
        let gone = self.known("container", |f| *f == Fact::Present);
        let objects = gone.iter().map(|name| format!("container {name}"));
        let objects: Vec<String> = objects.collect();
        let mut facts = self.facts.lock().unwrap();
        objects.iter().for_each(|object| drop(facts.remove(object)));
        drop(facts);
        if self.docker(&["container", "prune", "-f"]).is_some() {
            let mut facts = self.facts.lock().unwrap();
            facts.extend(objects.into_iter().map(|object| (object, Fact::Absent)));
        }
        self.docker(&["image", "prune", "-f"]);
        self.docker(&["volume", "prune", "-f"]);
    }

    /// What contradicts the facts.
    fn contradictions(&self) -> Vec<String> {
        let all = |words: &[&str]| -> BTreeSet<String> {
            let said = self.docker(words).expect("it lists");
            said.lines().map(str::to_owned).collect()
        };
        let containers = all(&["ps", "-a", "--format", "{{.Names}}"]);
        let images = all(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let volumes = all(&["volume", "ls", "-q"]);
        let mut wrong = Vec::new();
        for (object, fact) in self.facts.lock().unwrap().iter() {
            let (kind, name) = object.split_once(' ').unwrap();
            let there = match kind {
                "container" => containers.contains(name),
                "image" if name == "big:1" => images.contains(&big()),
                "image" => images.contains(name),
                _ => volumes.contains(name),
            };
            let right = match fact {
                Fact::Absent => !there,
                Fact::Present => there,
                Fact::Runs(pid) => {
                    let seen = ["inspect", "-f", "{{.State.Status}} {{.State.Pid}}", name];
                    there && self.docker(&seen) == Some(format!("running {pid}"))
                }
            };
            if !right {
                wrong.push(format!("{object} was acknowledged as {fact:?}"));
            }
        }
        wrong
    }
}

/// The image in it.
pub fn big() -> String {
    format!("{REGISTRY}/big:1")
}

/// A registry at a port of the test's own.
pub struct Registry(Child);

impl Registry {
    pub fn start(folder: &Path) -> Self {
        let config = folder.join("registry.yml");
        let data = folder.join("registry");
        let lines = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {REGISTRY}\nlog:\n  level: error\n",
            data.display()
        );
        std::fs::write(&config, lines).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("docker-registry is needed"))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// An image of some layers in the registry, and a build that starts from `box`.
pub fn prepare(b: &Bench) {
    let folder = b.path("context");
    std::fs::create_dir(&folder).unwrap();
    let mut lines = "FROM box\n".to_owned();
    for layer in 0..5u32 {
        let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n * (layer + 7)) as u8).collect();
        std::fs::write(folder.join(format!("f{layer}")), bytes).unwrap();
        lines.push_str(&format!("COPY f{layer} /f{layer}\n"));
    }
    std::fs::write(folder.join("Dockerfile"), lines).unwrap();
    b.ok(&["build", "-q", "-t", &big(), folder.to_str().unwrap()]);
    b.until("the registry listens", |_| {
        std::net::TcpStream::connect(REGISTRY).is_ok()
    });
    b.until("the registry takes it", |b| {
        b.docker(&["push", &big()]).status.success()
    });
    b.ok(&["rmi", &big()]);
    let lines = "FROM box\nARG N\nCOPY f0 /f\nRUN echo $N > /n\nVOLUME /etc\n";
    std::fs::write(folder.join("Dockerfile"), lines).unwrap();
}

/// What `windlassd check` says.
pub fn check(b: &Bench) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_windlassd"))
        .arg("check")
        .arg("--root")
        .arg(b.path("root"))
        .arg("--run")
        .arg(b.path("run"))
        .output()
        .unwrap();
    text(&output.stdout) + &text(&output.stderr)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn killed_again_and_again() {
    with_engine(|b| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let seed = variable("WINDLASS_SEED").unwrap_or(now).max(1);
        let kills = variable("WINDLASS_KILLS").unwrap_or(20);
        println!("WINDLASS_SEED={seed} WINDLASS_KILLS={kills}");
        let _registry = Registry::start(&b.path(""));
        prepare(b);
        let client = Client {
            socket: b.path("socket"),
            home: b.path(""),
            facts: Facts::default(),
        };
        let mut random = Random(seed);
        let mut number = 0;
        for kill in 1..=kills {
            let stop = Arc::new(AtomicBool::new(false));
            let (worker, stopped) = (client.clone(), stop.clone());
            let mut own = Random(random.below(u64::MAX).max(1));
            number += 1000;
            let work = std::thread::spawn(move || {
                let mut number = number;
                while !stopped.load(Ordering::Acquire) {
                    worker.step(&mut own, number);
                    number += 1;
                }
            });
            // This is the moment, not a wait for something.
            std::thread::sleep(Duration::from_millis(random.below(800)));
            stop.store(true, Ordering::Release);
            b.kill_engine();
            work.join().unwrap();
            b.start();
            let found = check(b);
            assert_eq!(found, "", "seed {seed}, kill {kill}: {}", b.log());
            let wrong = client.contradictions();
            assert!(wrong.is_empty(), "seed {seed}, kill {kill}: {wrong:#?}");
        }
        println!("{:#?}", client.facts.lock().unwrap());
        for name in client.known("container", |f| *f != Fact::Absent) {
            b.ok(&["rm", "-f", "-v", &name]);
        }
        b.until("nothing is left", |b| check(b).is_empty());
    });
}

#[test]
fn check_finds_what_a_killed_engine_left() {
    with_engine(|b| {
        let all = [
            "run", "-d", "--name", "web", "-v", "data:/d", "-p", "80", "box", "sleep", "99",
        ];
        b.ok(&all);
        assert_eq!(check(b), "");
        b.kill_engine();
        assert_eq!(check(b), "", "it runs on");
        let folder = b.path("root/tmp/half");
        std::fs::create_dir_all(&folder).unwrap();
        let found = check(b);
        assert!(
            found.contains("is left of an unfinished download"),
            "{found}"
        );
        let pid = processes_of_shim(b);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).unwrap();
        b.until("its keeper is gone", |b| check(b).lines().count() > 2);
        let found = check(b);
        assert!(found.contains("is mounted, but"), "{found}");
        b.start();
        b.until("the start has repaired", |b| check(b).is_empty());
    });
}

fn processes_of_shim(b: &Bench) -> i32 {
    let wanted = b.path("run/shim").display().to_string();
    let mut all: Vec<i32> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| text(&line).contains(&wanted))
        })
        .collect();
    all.sort_unstable();
    all[0]
}
