//! A stage for a test: a host of its own (a network and a mount namespace of the test's thread), a world outside, containers' insides.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use windlass_engine_api::types::PortBinding;
use windlassd::container::parts::{Connect, Join};
use windlassd::network::{LocalNetworks, Settings};

/// The host's address towards the world.
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The world's.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const PATIENCE: Duration = Duration::from_millis(1500);

/// Runs a test in a new host with a world around it.
pub fn play<Fut: Future<Output = ()>>(test: impl FnOnce(Stage) -> Fut + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("needs root");
        let nothing: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            raise(1).await;
            let stage = Stage {
                folder: tempfile::tempdir().unwrap(),
                world: world().await,
            };
            test(stage).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// See [`play`].
pub struct Stage {
    folder: tempfile::TempDir,
    /// The world's namespace.
    pub world: File,
}

impl Stage {
    /// An engine's networks; again is after a restart.
    pub async fn networks(&self) -> LocalNetworks {
        self.engine("wltest0", "10.77.0.0/24").await
    }

    /// One of several engines.
    pub async fn engine(&self, bridge: &str, subnet: &str) -> LocalNetworks {
        let settings = Settings {
            root: self.folder.path().join(bridge).join("root"),
            run: self.folder.path().join(bridge).join("run"),
            bridge: bridge.to_owned(),
            subnet: subnet.to_owned(),
        };
        LocalNetworks::open(settings).await.unwrap()
    }
}

/// A container's wish; ports are `(container port, host address, host port)`.
pub fn wish(container: &str, network: &str, ports: &[(&str, &str, &str)]) -> Connect {
    let mut wish = Connect {
        container: format!("{container:0<20}"),
        joins: vec![place(container, network)],
        ..Connect::default()
    };
    for (port, host_ip, host_port) in ports {
        let bindings = wish.ports.entry((*port).to_owned()).or_default();
        bindings.push(PortBinding {
            host_ip: (*host_ip).to_owned(),
            host_port: (*host_port).to_owned(),
        });
    }
    wish
}

/// A place in a network, by the container's name.
pub fn place(container: &str, network: &str) -> Join {
    Join {
        network: network.to_owned(),
        names: vec![container.to_owned()],
        ..Join::default()
    }
}

async fn raise(index: u32) {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.unwrap();
}

/// Joins the calling thread's namespace with a new one.
async fn world() -> File {
    let home = File::open("/proc/thread-self/ns/net").unwrap();
    let end = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(connect_world(&home));
        File::open("/proc/thread-self/ns/net").unwrap()
    })
    .join()
    .unwrap();
    address("host0", HOST).await;
    end
}

async fn connect_world(home: &File) {
    use std::os::fd::AsRawFd as _;
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let other = LinkUnspec::new_with_name("host0").setns_by_fd(home.as_raw_fd());
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name("world0")
        .set_info_data(InfoData::Veth(InfoVeth::Peer(other.build())));
    handle.link().add(pair.build()).execute().await.unwrap();
    address("world0", WORLD).await;
    // Whatever is not the world's lies behind the host.
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(HOST).build();
    handle.route().add(route).execute().await.unwrap();
}

async fn address(name: &str, address: Ipv4Addr) {
    use futures_util::TryStreamExt as _;
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    let mut links = handle.link().get().match_name(name).execute();
    let index = links.try_next().await.unwrap().unwrap().header.index;
    let add = handle.address().add(index, IpAddr::V4(address), 24);
    add.execute().await.unwrap();
    raise(index).await;
}

/// Does something in a namespace.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A namespace that an engine has pinned.
pub fn inside(netns: &Path) -> File {
    File::open(netns).unwrap()
}

/// Servers (TCP and UDP) in a namespace that tell who they are and who asks, until the test ends.
pub fn serve(netns: &File, name: &'static str, port: u16) {
    let netns = netns.try_clone().unwrap();
    let (ready, waits) = mpsc::channel();
    std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).unwrap();
        let udp = UdpSocket::bind(("0.0.0.0", port)).unwrap();
        let tcp = TcpListener::bind(("0.0.0.0", port)).unwrap();
        ready.send(()).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                udp.send_to(format!("{name} {}", from.ip()).as_bytes(), from)
                    .ok();
            }
        });
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while stream.read(&mut buffer).is_ok_and(|n| n > 0) {
                    let from = stream.peer_addr().unwrap().ip();
                    stream.write_all(format!("{name} {from}").as_bytes()).ok();
                }
            });
        }
    });
    waits.recv().unwrap();
}

/// An open connection.
pub fn connect(netns: Option<&File>, to: (Ipv4Addr, u16)) -> Option<TcpStream> {
    let to = SocketAddr::from(to);
    let dial = || TcpStream::connect_timeout(&to, PATIENCE).ok();
    let stream = match netns {
        Some(netns) => within(netns, dial),
        None => dial(),
    }?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

/// A question on an open connection.
pub fn ask(stream: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 64];
    stream.write_all(b"?").ok()?;
    let length = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Who answers, as seen from a namespace (`None`: the host).
pub fn tcp(netns: Option<&File>, to: (Ipv4Addr, u16)) -> Option<String> {
    ask(&mut connect(netns, to)?)
}

/// [`tcp`], by UDP.
pub fn udp(netns: Option<&File>, to: (Ipv4Addr, u16)) -> Option<String> {
    let question = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        socket.connect(SocketAddr::from(to)).ok()?;
        socket.send(b"?").ok()?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    match netns {
        Some(netns) => within(netns, question),
        None => question(),
    }
}
