//! Texts of files, and the objects and complaints that come of them.

use std::path::Path;

use super::super::decode::{Broken, decode};
use super::super::documents::split;
use super::super::store::Store;
use super::Listener;

/// A source of texts instead of files.
pub(super) struct Source {
    store: Store,
    listener: Listener,
}

impl Source {
    pub(super) fn new() -> Self {
        let ranges = vec![
            "10.96.0.0/16".parse().unwrap(),
            "fd00:10:96::/112".parse().unwrap(),
        ];
        Self {
            store: Store::new("/m".into(), "node-1".into(), ranges),
            listener: Listener::default(),
        }
    }

    /// Gives a file this text; the changes that come of it.
    pub(super) fn write(&mut self, file: &str, text: &str) -> usize {
        self.store.load(Path::new(file), Ok(text.to_owned()));
        self.told()
    }

    fn told(&mut self) -> usize {
        self.listener.changes = 0;
        for change in self.store.changes() {
            self.listener.take(change);
        }
        self.listener.changes
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.listener.lines()
    }
}

pub(super) fn lines(text: &str) -> Vec<String> {
    let mut source = Source::new();
    source.write("a.yaml", text);
    source.lines()
}

pub(super) fn complaints(file: &str, text: &str) -> Vec<String> {
    let documents = split(text, file.ends_with("json"));
    let broken = documents.iter().flat_map(|document| decode(document).broken);
    broken
        .map(
            |Broken {
                 key,
                 place,
                 field,
                 reason,
             }| {
                let key = key.map_or("?".to_owned(), |key| key.to_string());
                format!("{place}: {key}: {field}: {reason}")
            },
        )
        .collect()
}

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}\n";
const API: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {clusterIP: 10.96.0.11, ports: [{port: 81}]}\n";
const WEB_LINE: &str = "service default/web: 10.96.0.10 80/TCP";
const API_LINE: &str = "service default/api: 10.96.0.11 81/TCP";

fn documents(parts: &[&str]) -> String {
    parts.join("---\n")
}

#[test]
fn a_service_and_its_pods_pasted_from_a_tutorial_work_as_they_are() {
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: nginx
  labels:
    app.kubernetes.io/name: proxy
spec:
  containers:
  - name: nginx
    image: nginx:stable
    ports:
      - containerPort: 80
        name: http-web-svc
status:
  podIP: 10.244.1.7
---
apiVersion: v1
kind: Service
metadata:
  name: nginx-service
spec:
  type: NodePort
  selector:
    app.kubernetes.io/name: proxy
  ports:
  - name: name-of-service-port
    protocol: TCP
    port: 80
    targetPort: http-web-svc
";
    assert_eq!(
        lines(text),
        [
            "service default/nginx-service: 10.96.117.227 80/TCP@30641",
            "slice default/nginx-service/pods/IPv4/80: nginx-service name-of-service-port=80 10.244.1.7",
        ]
    );
}

#[test]
fn every_way_to_write_a_file_gives_the_same_objects() {
    let json = |name: &str, ip: u8, port: u16| {
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {{\"name\": \"{name}\"}}, \
             \"spec\": {{\"clusterIP\": \"10.96.0.{ip}\", \"ports\": [{{\"port\": {port}}}]}}}}"
        )
    };
    let (web, api) = (json("web", 10, 80), json("api", 11, 81));
    let list = |kind: &str, items: &str| {
        format!("{{\"apiVersion\": \"v1\", \"kind\": \"{kind}\", \"items\": [{items}]}}")
    };
    let bare = |json: &str| json.replace("\"apiVersion\": \"v1\", \"kind\": \"Service\", ", "");
    let indented = |text: &str| format!("- {}", text.trim_end().replace('\n', "\n  "));
    let table = [
        ("a.yaml", documents(&[WEB, API])),
        ("a.yml", format!("\u{feff}---\r\n{}", documents(&[API, WEB]).replace('\n', "\r\n"))),
        ("a.yaml", format!("%YAML 1.2\n---\n{WEB}...\n---\n# nothing\n---\n---\n{API}---\n")),
        ("a.yaml", format!("apiVersion: v1\nkind: List\nitems:\n{}\n{}\n", indented(WEB), indented(API))),
        ("a.yaml", format!("items:\n{}\n{}\nkind: ServiceList\napiVersion: v1\n", indented(WEB), indented(API))),
        ("a.json", format!("{web}\n{api}")),
        ("a.yaml", format!("{web}\n---\n{API}")),
        ("a.json", list("List", &format!("{web}, {api}"))),
        ("a.json", list("ServiceList", &format!("{}, {}", bare(&web), bare(&api)))),
        ("a.yaml", list("List", &format!("\t{web}, {api}"))),
        (
            "a.yaml",
            "apiVersion: &v v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIP: 10.96.0.10, ports: &p [{port: 80}]}\n---\n".to_owned() + API,
        ),
    ];
    for (file, text) in table {
        let mut source = Source::new();
        source.write(file, &text);
        assert_eq!(source.lines(), [API_LINE, WEB_LINE], "{text}");
        assert_eq!(source.store.broken(), 0, "{text}");
    }
}

#[test]
fn a_broken_document_is_reported_with_its_place_and_field_and_affects_only_itself() {
    let service =
        |spec: &str| format!("apiVersion: v1\nkind: Service\nmetadata: {{name: bad}}\nspec:\n  {spec}\n");
    let table = [
        (service("ports: [{port: http}]"), "document 2 (line 10): Service default/bad: spec.ports[0].port: invalid i32".to_owned()),
        (service("ports: 80"), "document 2 (line 10): Service default/bad: spec.ports: ".to_owned()),
        (service("clusterIP: [10.0.0.1]"), "document 2 (line 10): Service default/bad: spec.clusterIP: expected string".to_owned()),
        (service("selector: {version: 1}"), "document 2 (line 10): Service default/bad: spec.selector.version: The string value [1] must be quoted".to_owned()),
        (service("type: NodePort\n  type: ClusterIP"), "document 2 (line 11): Service default/bad: ".to_owned()),
        ("kind: [\n".to_owned(), "document 2 (line 6): ?: ".to_owned()),
        ("a:\n\tb\n".to_owned(), "document 2 (line ".to_owned()),
        ("just words\n".to_owned(), "document 2 (line 6): ?: : expected mapping start".to_owned()),
        ("kind: Service\nmetadata: {name: bad}\n".to_owned(), "document 2 (line 5): ?: apiVersion: is missing".to_owned()),
        ("apiVersion: v1\nmetadata: {name: bad}\n".to_owned(), "document 2 (line 5): ?: kind: is missing".to_owned()),
        ("apiVersion: v1\nkind: Service\nmetadata: {}\n".to_owned(), "document 2 (line 5): ?: metadata.name: is missing".to_owned()),
        (
            "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: x}\n".to_owned(),
            "document 2 (line 5): ?: apiVersion: EndpointSlice must be of discovery.k8s.io/v1".to_owned(),
        ),
    ];
    for (bad, complaint) in table {
        let text = documents(&[WEB, &bad, API]);
        let mut source = Source::new();
        source.write("a.yaml", &text);
        assert_eq!(source.lines(), [API_LINE, WEB_LINE], "{bad}");
        assert_eq!(source.store.broken(), 1, "{bad}");
        let complaints = complaints("a.yaml", &text);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(
            complaints[0].starts_with(&complaint),
            "{}\nis not\n{complaint}",
            complaints[0]
        );
    }
}

#[test]
fn a_broken_item_of_a_list_affects_only_itself() {
    let text = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}}\n\
        - {apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {ports: [{port: x}]}}\n\
        - {apiVersion: v1, kind: Pod, metadata: {name: bad}, status: {podIP: [1]}}\n\
        - {kind: Service, metadata: {name: bad}}\n\
        - {apiVersion: apps/v1, kind: Deployment, metadata: {name: ignored}}\n\
        - {apiVersion: v1, kind: Service, metadata: {name: api}, spec: {clusterIP: 10.96.0.11, ports: [{port: 81}]}}\n";
    assert_eq!(lines(text), [API_LINE, WEB_LINE]);
    let complaints = complaints("a.yaml", text);
    let expected = [
        "document 1 (line 1): ?: items[3].apiVersion: is missing",
        "document 1 (line 5): Service default/bad: items[1].spec.ports[0].port: invalid i32",
        "document 1 (line 6): Pod default/bad: items[2].status.podIP: expected string",
    ];
    assert_eq!(complaints.len(), 3, "{complaints:?}");
    for (complaint, expected) in complaints.iter().zip(expected) {
        assert!(complaint.starts_with(expected), "{complaint}\nis not\n{expected}");
    }
}

#[test]
fn broken_json_says_where() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}}\n{\n\"kind\": \n]\n{}";
    let complaints = complaints("a.json", text);
    assert_eq!(complaints, ["document 2 (line 4): ?: kind: expected value"]);
}

#[test]
fn what_was_good_stays_while_its_document_is_broken() {
    let bad_web = WEB.replace("80", "eighty");
    let table = [
        ("the document names itself", documents(&[API, &bad_web])),
        ("the document does not parse", documents(&[API, "kind: [\n"])),
        ("nothing parses", "{".to_owned()),
    ];
    for (what, text) in table {
        let mut source = Source::new();
        source.write("a.yaml", &documents(&[WEB, API]));
        assert_eq!(source.write("a.yaml", &text), 0, "{what}");
        assert_eq!(source.lines(), [API_LINE, WEB_LINE], "{what}");
        assert_eq!(source.write("a.yaml", API), 1, "{what}: right again, without web");
        assert_eq!(source.lines(), [API_LINE], "{what}");
    }
    let mut source = Source::new();
    source.write("a.yaml", WEB);
    source
        .store
        .load(Path::new("a.yaml"), Err("cannot be read".to_owned()));
    assert_eq!((source.told(), source.store.broken()), (0, 1));
    source.write("b.yaml", &documents(&[API, &bad_web]));
    assert_eq!(
        source.lines(),
        [API_LINE, WEB_LINE],
        "another file's broken document takes nothing away"
    );
}

#[test]
fn the_last_definition_of_an_object_counts() {
    let other = WEB.replace("10.96.0.10", "10.96.0.99");
    let mut source = Source::new();
    source.write("b.yaml", &documents(&[&other, WEB]));
    assert_eq!(source.lines(), [WEB_LINE]);
    assert_eq!(
        source.write("a.yaml", &other),
        0,
        "an earlier file does not count"
    );
    source.write("c.yaml", &other);
    assert_eq!(source.lines(), ["service default/web: 10.96.0.99 80/TCP"]);
    source.write("c.yaml", "");
    assert_eq!(source.lines(), [WEB_LINE]);
}

#[test]
fn only_what_an_edit_touches_is_told() {
    let slice = |ip: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints: [{{addresses: [{ip}]}}]\n"
        )
    };
    let pod = |name: &str, ip: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: api}}}}\nstatus: {{podIP: {ip}}}\n"
        )
    };
    let api = API.replace("spec: {", "spec: {selector: {app: api}, ");
    let all = |web_ip: &str, pod_ip: &str| {
        documents(&[
            WEB,
            &slice(web_ip),
            &api,
            &pod("a", "10.1.0.1"),
            &pod("b", pod_ip),
        ])
    };
    let mut source = Source::new();
    assert_eq!(source.write("a.yaml", &all("10.1.1.1", "10.1.0.2")), 4);
    assert_eq!(
        source.write("a.yaml", &all("10.1.1.1", "10.1.0.2")),
        0,
        "nothing changed"
    );
    assert_eq!(
        source.write("a.yaml", &all("10.1.1.2", "10.1.0.2")),
        1,
        "one slice"
    );
    assert_eq!(
        source.write("a.yaml", &all("10.1.1.2", "10.1.0.3")),
        1,
        "the slice of the Pods"
    );
    assert_eq!(
        source.lines(),
        [
            API_LINE,
            WEB_LINE,
            "slice default/api/pods/IPv4/81: api =81 10.1.0.1 10.1.0.3",
            "slice default/web-1: web =8080 10.1.1.2",
        ]
    );
    assert_eq!(source.write("a.yaml", WEB), 3, "two slices and a Service gone");
    assert_eq!(source.lines(), [WEB_LINE]);
}

#[test]
fn slices_come_before_endpoints_and_endpoints_before_pods() {
    let web = WEB.replace("spec: {", "spec: {selector: {app: web}, ");
    let pod =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: web}}\nstatus: {podIP: 10.1.0.1}\n";
    let endpoints = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: web}\nsubsets: [{addresses: [{ip: 10.1.0.2}], ports: [{port: 8080}]}]\n";
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: s, labels: {kubernetes.io/service-name: web}}\nports: [{name: '', port: 1}]\nendpoints: [{addresses: [10.1.0.3]}]\n";
    let of_pod = "slice default/web/pods/IPv4/80: web =80 10.1.0.1";
    let of_endpoints = "slice default/web/endpoints/0/IPv4: web =8080 10.1.0.2";
    let own = "slice default/s: web =1 10.1.0.3";
    let mut source = Source::new();
    for (parts, expected) in [
        (vec![web.as_str(), pod], of_pod),
        (vec![web.as_str(), pod, endpoints], of_endpoints),
        (vec![web.as_str(), pod, endpoints, slice], own),
        (vec![web.as_str(), pod, slice], own),
        (vec![web.as_str(), pod, endpoints], of_endpoints),
        (vec![web.as_str(), pod], of_pod),
    ] {
        source.write("a.yaml", &documents(&parts));
        assert_eq!(source.lines(), [WEB_LINE, expected]);
    }
}

#[test]
fn what_is_not_for_this_proxy_is_not_told() {
    let ours = "apiVersion: v1\nkind: Node\nmetadata: {name: node-1, labels: {topology.kubernetes.io/zone: a}}\nstatus: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";
    let table = [
        WEB.replace("{name: web}", "{name: web, labels: {service.kubernetes.io/service-proxy-name: x}}"),
        WEB.replace("10.96.0.10", "None"),
        ours.replace("node-1", "node-2"),
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: FQDN\nmetadata: {name: s}\n".to_owned(),
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: s, labels: {service.kubernetes.io/headless: ''}}\n".to_owned(),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 3}\n".to_owned(),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n".to_owned(),
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\n".to_owned(),
    ];
    for text in &table {
        assert_eq!(lines(text), [""; 0], "{text}");
        assert_eq!(complaints("a.yaml", text), [""; 0], "{text}");
    }
    assert_eq!(lines(ours), ["node node-1: [10.0.0.1] Some(\"a\")"]);
    let mut source = Source::new();
    source.write("a.yaml", WEB);
    source.write("a.yaml", &table[0]);
    assert_eq!(
        source.lines(),
        [""; 0],
        "a Service handed to another proxy is gone"
    );
}

#[test]
fn parsers_protect_themselves() {
    let deep = format!(
        "apiVersion: v1\nkind: X\na: {}{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let mut bomb = "a0: &a0 x\n".to_owned();
    for level in 1..40 {
        bomb += &format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}, *a{0}]\n", level - 1);
    }
    for text in [deep, bomb] {
        assert_eq!(complaints("a.yaml", &text).len(), 1);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(complaints("a.json", &deep).len(), 1);
}
