//! The bytes of each ServicePort among the metrics, from the kernel's accounting: known amounts, through real packets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lab::net::{Family, Lab, Namespace, Topology};

use super::exposition::read;
use super::machine::{Manifests, service};
use super::running::Proxy;

pub(crate) const IN_FORCE: &str = "SyncProxyRules complete for the first time";
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const TCP: u16 = 8080;
pub(crate) const UDP: u16 = 5353;
/// What an UDP server gets and sends at a time.
pub(crate) const QUESTION: [u8; 1000] = [0; 1000];
const ANSWER: [u8; 500] = [0; 500];
pub(crate) const ASKED: u64 = QUESTION.len() as u64;
const ANSWERED: u64 = ANSWER.len() as u64;

/// Serves both ports of a pod until it is dropped.
pub(crate) struct Pod {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Pod {
    pub(crate) fn start(pod: &Namespace) -> Self {
        let open = || {
            let listener = TcpListener::bind(("::", TCP)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let socket = UdpSocket::bind(("::", UDP)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            (listener, socket)
        };
        let (listener, socket) = pod.enter(open).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let (tcp_ends, udp_ends) = (Arc::clone(&ends), Arc::clone(&ends));
        let tcp = std::thread::spawn(move || {
            while !tcp_ends.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => _ = std::thread::spawn(move || answer(stream)),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        let udp = std::thread::spawn(move || {
            let mut buffer = QUESTION;
            while !udp_ends.load(Ordering::Relaxed) {
                if let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&ANSWER, client);
                }
            }
        });
        Self {
            ends,
            threads: vec![tcp, udp],
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Takes as many bytes as it is told, sends as many as it is told, again and again.
fn answer(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    let mut numbers = [0; 16];
    while stream.read_exact(&mut numbers).is_ok() {
        let number = |at: usize| u64::from_be_bytes(*numbers[at..].first_chunk().unwrap());
        let mut rest = vec![0; usize::try_from(number(0)).unwrap() - numbers.len()];
        if stream.read_exact(&mut rest).is_err() {
            return;
        }
        let answer = vec![0; usize::try_from(number(8)).unwrap()];
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

pub(crate) fn connect(from: &Namespace, to: SocketAddr) -> TcpStream {
    let stream = from.enter(|| TcpStream::connect(to)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends so many bytes, at least 16, and gets so many.
pub(crate) fn exchange(stream: &mut TcpStream, to: u64, from: u64) {
    let mut sent = vec![0; usize::try_from(to).unwrap()];
    sent[..8].copy_from_slice(&to.to_be_bytes());
    sent[8..16].copy_from_slice(&from.to_be_bytes());
    stream.write_all(&sent).unwrap();
    stream
        .read_exact(&mut vec![0; usize::try_from(from).unwrap()])
        .unwrap();
}

pub(crate) fn open_udp(from: &Namespace, to: SocketAddr) -> UdpSocket {
    let open = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    from.enter(open).unwrap()
}

pub(crate) fn ask(socket: &UdpSocket, times: u64) {
    for _ in 0..times {
        socket.send(&QUESTION).unwrap();
        socket.recv(&mut [0; ANSWER.len()]).unwrap();
    }
}

/// A Service for UDP; a slice of [`service`] is for TCP.
pub(crate) fn dns(endpoint: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: dns}}\n\
         spec: {{type: NodePort, clusterIP: 10.96.0.53, ports: [{{port: 53, nodePort: 30053, protocol: UDP}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: dns-1, labels: {{kubernetes.io/service-name: dns}}}}\n\
         ports: [{{name: '', port: {UDP}, protocol: UDP}}]\nendpoints: [{{addresses: ['{endpoint}']}}]\n"
    )
}

/// What the metrics say of a Service: to its endpoints, and from them.
pub(crate) fn counted(proxy: &Proxy, name: &str, protocol: &str, family: &str) -> [u64; 2] {
    const NAME: &str = "kubeproxy_service_bytes_total";
    let answer = proxy.get(10249, "/metrics");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let families = read(body);
    let series = &families.get(NAME).unwrap_or_else(|| panic!("{body}")).series;
    ["to_endpoint", "from_endpoint"].map(|direction| {
        let labels = format!(
            "{NAME}{{direction=\"{direction}\",ip_family=\"{family}\",namespace=\"default\",port=\"\",protocol=\"{protocol}\",\
             service=\"{name}\"}}"
        );
        let value = series.get(&labels).unwrap_or_else(|| panic!("{labels} in {series:?}"));
        format!("{value}").parse().unwrap()
    })
}

/// What went through a Service is counted: no less than was carried, and no more than that with its headers and
/// acknowledgements.
fn counts(proxy: &Proxy, name: &str, protocol: &str, family: &str, carried: [u64; 2]) {
    let counted = counted(proxy, name, protocol, family);
    // Segments have some 1,400 bytes or more; each may be acknowledged by itself.
    let most = carried.iter().sum::<u64>() / 1000 + 200;
    for (counted, carried) in counted.into_iter().zip(carried) {
        let headers = if carried == 0 { 0 } else { 100 * most };
        assert!(
            (carried..=carried + headers).contains(&counted),
            "{name}: {counted} for {carried}"
        );
    }
}

pub(crate) fn setting(node: &Namespace, name: &str) -> String {
    let read = || fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
    node.enter(read).unwrap().unwrap().trim().to_owned()
}

/// Waits until the node tracks no connection any more.
fn all_end(node: &Namespace) {
    let start = Instant::now();
    loop {
        // Who reads it makes the kernel drop what is over.
        let listed = node.enter(|| fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
        let count = setting(node, "count");
        if count == "0" {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{count} are left: {listed:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Connections end a few seconds after they were closed, and UDP's after their last packet.
pub(crate) fn forget_soon(node: &Namespace) {
    let settings = [
        "tcp_timeout_time_wait",
        "tcp_timeout_close",
        "tcp_timeout_last_ack",
        "udp_timeout",
        "udp_timeout_stream",
    ]
    .map(|name| format!("net/netfilter/nf_conntrack_{name}"));
    let settings = settings.each_ref().map(|name| (name.as_str(), "3"));
    node.sysctls(&settings).unwrap();
}

/// What carries bytes: connections of TCP, and flows of UDP.
struct Carriers {
    streams: Vec<TcpStream>,
    sockets: Vec<UdpSocket>,
}

impl Carriers {
    fn exchange(&mut self, to: u64, from: u64, questions: u64) {
        for stream in &mut self.streams {
            exchange(stream, to, from);
        }
        self.sockets.iter().for_each(|socket| ask(socket, questions));
    }
}

/// Nothing was counted.
fn none(proxy: &Proxy) {
    counts(proxy, "web", "TCP", "IPv4", [0, 0]);
    counts(proxy, "web-6", "TCP", "IPv6", [0, 0]);
    counts(proxy, "dns", "UDP", "IPv4", [0, 0]);
}

/// Without the flag there is no metric, and the kernel does not count.
fn is_off_by_default(node: &Namespace, arguments: &[&str]) {
    let off = Proxy::start(node, arguments);
    off.says(IN_FORCE);
    assert!(!off.get(10249, "/metrics").contains("service_bytes"));
    assert_eq!(setting(node, "acct"), "0");
}

/// Plays it all in a mode, on a machine that has it.
pub(crate) fn are_counted(mode: &str) {
    let lab = Lab::build(&Topology::with_pods(&[("a", 1), ("b", 1)])).unwrap();
    let member = |name: &str| lab.member(name).unwrap();
    let (node, a, b) = (member("node-1"), &member("a").namespace, member("b"));
    let host = &node.namespace;
    let _pod = Pod::start(&b.namespace);
    forget_soon(host);
    let endpoint = b.ip(Family::V4);
    let manifests = Manifests::new(&[
        service("web", "10.96.0.10", 30080, &[&endpoint.to_string()]),
        service("web-6", "fd00:96::10", 0, &[&b.ip(Family::V6).to_string()]),
        dns(&endpoint.to_string()),
    ]);
    let mode = format!("--proxy-mode={mode}");
    let arguments = [&mode, &manifests.argument, "--conntrack-count-bytes"];
    is_off_by_default(host, &arguments[..2]);
    let proxy = Proxy::start(host, &arguments);
    proxy.says(IN_FORCE);
    assert_eq!(setting(host, "acct"), "1");
    none(&proxy);
    // What goes past every Service, from the pod and from the host.
    let mut past = Carriers {
        streams: [a, host]
            .map(|from| connect(from, SocketAddr::new(endpoint, TCP)))
            .into(),
        sockets: [a, host]
            .map(|from| open_udp(from, SocketAddr::new(endpoint, UDP)))
            .into(),
    };
    past.exchange(200_000, 200_000, 10);
    none(&proxy);
    drop(past);
    let node_port = |port: u16| SocketAddr::new(node.ip(Family::V4), port);
    let living = Carriers {
        streams: vec![
            connect(a, at("10.96.0.10:80")),
            connect(a, node_port(30080)),
            connect(host, at("10.96.0.10:80")),
        ],
        sockets: vec![open_udp(a, at("10.96.0.53:53")), open_udp(a, node_port(30053))],
    };
    let living = count_as_they_go(&proxy, living);
    drop(proxy);
    let proxy = Proxy::start(host, &arguments);
    proxy.says(IN_FORCE);
    count_to_their_end(&proxy, a, living);
    let log = proxy.log();
    assert!(!log.contains("not counted"), "{log}");
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Connections that live, and are asked about more than once.
fn count_as_they_go(proxy: &Proxy, mut living: Carriers) -> Carriers {
    for round in 1..=2 {
        living.exchange(300_000, 100_000, 20);
        for _ in 0..2 {
            let web = [900_000 * round, 300_000 * round];
            counts(proxy, "web", "TCP", "IPv4", web);
            let dns = [40 * ASKED * round, 40 * ANSWERED * round];
            counts(proxy, "dns", "UDP", "IPv4", dns);
        }
    }
    living
}

/// A successor begins with nothing, whatever others carried before it was there. Then they carry more and end, as do others
/// that nobody ever saw alive.
fn count_to_their_end(proxy: &Proxy, a: &Namespace, mut living: Carriers) {
    none(proxy);
    living.exchange(30_000, 60_000, 3);
    counts(proxy, "web", "TCP", "IPv4", [90_000, 180_000]);
    counts(proxy, "dns", "UDP", "IPv4", [6 * ASKED, 6 * ANSWERED]);
    living.exchange(30_000, 60_000, 0);
    drop(living);
    for _ in 0..5 {
        exchange(&mut connect(a, at("10.96.0.10:80")), 10_000, 20_000);
        exchange(&mut connect(a, at("[fd00:96::10]:80")), 40_000, 70_000);
        ask(&open_udp(a, at("10.96.0.53:53")), 2);
    }
    all_end(&proxy.namespace);
    for _ in 0..2 {
        counts(proxy, "web", "TCP", "IPv4", [230_000, 460_000]);
        counts(proxy, "web-6", "TCP", "IPv6", [200_000, 350_000]);
        counts(proxy, "dns", "UDP", "IPv4", [16 * ASKED, 16 * ANSWERED]);
    }
}

#[test]
fn bytes_are_counted_by_service_port_where_that_is_asked_for() {
    for mode in ["nftables", "iptables"] {
        are_counted(mode);
    }
}
