//! What the server adds to an object before it is kept: defaults, cluster IPs and node ports. The checks are
//! few: a test bench has to take in objects that a real server would refuse, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Map, Value, json};

use super::resource::Resource;
use super::status::Status;
use super::store::Objects;

/// Hands out cluster IPs (10.96.0.0/16 and fd00:10:96::/112) and node ports (from 31000).
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    addresses: u16,
    ports: u16,
}

impl Allocator {
    /// A cluster IP of each of the families, `IPv4` or `IPv6`.
    fn cluster_ips(&mut self, families: &[&str], services: &Objects) -> Vec<String> {
        loop {
            // The first addresses are reserved, as upstream reserves them for what users choose by hand.
            self.addresses = self.addresses.wrapping_add(1);
            let host = self.addresses.max(0x0100);
            self.addresses = host;
            let address = |family: &&str| match *family {
                "IPv6" => IpAddr::from(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, host)).to_string(),
                _ => {
                    let [high, low] = host.to_be_bytes();
                    IpAddr::from(Ipv4Addr::new(10, 96, high, low)).to_string()
                }
            };
            let ips: Vec<String> = families.iter().map(address).collect();
            let taken = services
                .values()
                .any(|service| service.fields.first().is_some_and(|ip| ips.contains(ip)));
            if !taken {
                return ips;
            }
        }
    }

    fn node_port(&mut self) -> u16 {
        let port = 31_000 + self.ports % 1_768;
        self.ports = self.ports.wrapping_add(1);
        port
    }
}

/// Completes an object that is to be kept. `before` is the version that it replaces.
///
/// # Errors
/// 422 when a required field is missing or an address is taken.
pub(crate) fn complete(
    resource: Resource,
    object: &mut Value,
    before: Option<&Value>,
    allocator: &mut Allocator,
    objects: &Objects,
) -> Result<(), Status> {
    drop_nulls(object);
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|_, value| value.as_object().is_none_or(|map| !map.is_empty()));
    }
    match resource {
        Resource::Services => service(object, before, allocator, objects)?,
        Resource::EndpointSlices => endpoint_slice(object)?,
        Resource::Nodes => {
            fill(object, &resource.empty());
            let spec = &mut object["spec"];
            if spec["podCIDRs"].is_null() && !spec["podCIDR"].is_null() {
                spec["podCIDRs"] = json!([spec["podCIDR"]]);
            }
        }
        Resource::Namespaces => fill(
            object,
            &json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        ),
        Resource::Pods => fill(
            object,
            &json!({
                "spec": {
                    "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                    "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {},
                },
                "status": {"phase": "Pending", "qosClass": "BestEffort"},
            }),
        ),
        Resource::Endpoints | Resource::ServiceCidrs => fill(object, &resource.empty()),
        Resource::Events => {}
    }
    Ok(())
}

/// Removes unset entries, which Go does not tell from absent ones.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Adds what `defaults` has and `object` lacks.
fn fill(object: &mut Value, defaults: &Value) {
    let (Some(object), Some(defaults)) = (object.as_object_mut(), defaults.as_object()) else {
        return;
    };
    for (key, default) in defaults {
        match object.get_mut(key) {
            Some(value) => fill(value, default),
            None => {
                object.insert(key.clone(), default.clone());
            }
        }
    }
}

fn endpoint_slice(slice: &mut Value) -> Result<(), Status> {
    let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if slice["addressType"].as_str().is_none_or(str::is_empty) {
        let why = "Required value";
        return Err(Status::invalid(
            "discovery.k8s.io",
            "EndpointSlice",
            &name,
            "FieldValueRequired",
            "addressType",
            why,
        ));
    }
    // Go cannot leave these two out.
    fill(slice, &json!({"endpoints": null, "ports": null}));
    for port in slice["ports"].as_array_mut().into_iter().flatten() {
        fill(port, &json!({"name": "", "protocol": "TCP"}));
    }
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten() {
        fill(endpoint, &json!({"conditions": {}}));
    }
    Ok(())
}

fn service(
    service: &mut Value,
    before: Option<&Value>,
    allocator: &mut Allocator,
    objects: &Objects,
) -> Result<(), Status> {
    fill(
        service,
        &json!({
            "spec": {"type": "ClusterIP", "sessionAffinity": "None"},
            "status": {"loadBalancer": {}},
        }),
    );
    let name = service["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let Some(spec) = service["spec"].as_object_mut() else {
        return Err(Status::bad_request(
            "Service in version \"v1\" cannot be handled as a Service: spec is no object",
        ));
    };
    if let Some(before) = before {
        keep_allocated(spec, &before["spec"]);
    }
    for port in array(spec, "ports") {
        let target = port["port"].clone();
        fill(port, &json!({"protocol": "TCP", "targetPort": target}));
    }
    if text(spec, "type") == "ExternalName" {
        return Ok(());
    }
    default_spec(spec);
    families_and_addresses(spec, &name, before, allocator, objects)?;
    node_ports(spec, allocator);
    if text(spec, "type") == "LoadBalancer" {
        let ingress = service.pointer_mut("/status/loadBalancer/ingress");
        for ingress in ingress.and_then(Value::as_array_mut).into_iter().flatten() {
            if ingress["ip"].is_string() {
                fill(ingress, &json!({"ipMode": "VIP"}));
            }
        }
    }
    Ok(())
}

/// An update that does not name an address or a port keeps the ones that the Service has.
fn keep_allocated(spec: &mut Map<String, Value>, before: &Value) {
    let named = text(spec, "clusterIP");
    if (named.is_empty() || before["clusterIP"] == named) && before["type"] != "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if !before[key].is_null() {
                spec.entry(key).or_insert_with(|| before[key].clone());
            }
        }
    }
    if text(spec, "type") == "ClusterIP" {
        return;
    }
    let old_ports = before["ports"].as_array().into_iter().flatten();
    let of = |port: &Value| {
        (
            port["port"].clone(),
            port["protocol"].as_str().unwrap_or("TCP").to_owned(),
        )
    };
    let old_ports: Vec<_> = old_ports
        .map(|port| (of(port), port["nodePort"].clone()))
        .collect();
    for port in array(spec, "ports") {
        let key = of(port);
        let old = old_ports.iter().find(|(old, _)| *old == key);
        if let (Some((_, node_port)), true) = (old, port["nodePort"].is_null())
            && !node_port.is_null()
        {
            port["nodePort"] = node_port.clone();
        }
    }
    if !before["healthCheckNodePort"].is_null() && text(spec, "externalTrafficPolicy") == "Local" {
        spec.entry("healthCheckNodePort")
            .or_insert_with(|| before["healthCheckNodePort"].clone());
    }
}

fn default_spec(spec: &mut Map<String, Value>) {
    let service_type = text(spec, "type").to_owned();
    let external = service_type != "ClusterIP" || spec.get("externalIPs").is_some_and(Value::is_array);
    let mut defaults = json!({"internalTrafficPolicy": "Cluster"});
    if external {
        defaults["externalTrafficPolicy"] = "Cluster".into();
    }
    if service_type == "LoadBalancer" {
        defaults["allocateLoadBalancerNodePorts"] = true.into();
    }
    if text(spec, "sessionAffinity") == "ClientIP" {
        defaults["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    }
    for (key, value) in defaults.as_object().into_iter().flatten() {
        spec.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn families_and_addresses(
    spec: &mut Map<String, Value>,
    name: &str,
    before: Option<&Value>,
    allocator: &mut Allocator,
    objects: &Objects,
) -> Result<(), Status> {
    let mut ips: Vec<String> = strings(spec, "clusterIPs");
    let first = text(spec, "clusterIP").to_owned();
    if ips.is_empty() && !first.is_empty() {
        ips.push(first);
    }
    let headless = ips.first().is_some_and(|ip| ip == "None");
    let families = families(spec, if headless { &[] } else { &ips });
    if !headless && ips.len() < families.len() {
        let wanted: Vec<&str> = families[ips.len()..].iter().map(String::as_str).collect();
        ips.extend(allocator.cluster_ips(&wanted, objects));
    } else if let (Some(ip), None, false) = (ips.first(), before, headless)
        && objects.values().any(|service| service.fields.first() == Some(ip))
    {
        let why = format!(
            "Invalid value: [\"{ip}\"]: failed to allocate IP {ip}: provided IP is already allocated"
        );
        let (reason, field) = ("FieldValueInvalid", "spec.clusterIPs");
        return Err(Status::invalid("", "Service", name, reason, field, &why));
    }
    spec.insert("clusterIP".to_owned(), ips[0].clone().into());
    spec.insert("clusterIPs".to_owned(), ips.into());
    spec.insert("ipFamilies".to_owned(), families.into());
    Ok(())
}

/// The families of a Service: as it says, or as its addresses are, or IPv4; and as its policy wants, which is
/// set if it is not.
fn families(spec: &mut Map<String, Value>, ips: &[String]) -> Vec<String> {
    let mut families: Vec<String> = strings(spec, "ipFamilies");
    if families.is_empty() {
        let family = |ip: &String| if ip.contains(':') { "IPv6" } else { "IPv4" }.to_owned();
        families = ips.iter().map(family).collect();
    }
    if families.is_empty() {
        families.push("IPv4".to_owned());
    }
    // Endpoints of a headless Service without selector may be of any family.
    let open = text(spec, "clusterIP") == "None" && !spec.contains_key("selector");
    let dual = families.len() > 1 || open;
    let default_policy = if dual { "RequireDualStack" } else { "SingleStack" };
    let policy = spec
        .entry("ipFamilyPolicy")
        .or_insert_with(|| default_policy.into());
    if *policy != "SingleStack" && families.len() == 1 {
        let other = if families[0] == "IPv4" { "IPv6" } else { "IPv4" };
        families.push(other.to_owned());
    }
    families
}

fn node_ports(spec: &mut Map<String, Value>, allocator: &mut Allocator) {
    let service_type = text(spec, "type").to_owned();
    let wants = spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let wants_node_ports = service_type == "NodePort" || (service_type == "LoadBalancer" && wants);
    for port in array(spec, "ports") {
        if wants_node_ports && port["nodePort"].as_u64().is_none_or(|port| port == 0) {
            port["nodePort"] = allocator.node_port().into();
        }
    }
    if service_type == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local" {
        spec.entry("healthCheckNodePort")
            .or_insert_with(|| allocator.node_port().into());
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn strings(map: &Map<String, Value>, key: &str) -> Vec<String> {
    let values = map.get(key).and_then(Value::as_array).into_iter().flatten();
    values
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

fn array<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Value> {
    map.get_mut(key)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        // Anything else is kept as it is: some tests want to see what a proxy makes of it.
        .filter(|item| item.is_object())
}
