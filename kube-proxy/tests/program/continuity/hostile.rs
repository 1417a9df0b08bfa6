//! Objects that no API server should have let in, thousands of them: they stop neither the program nor what others get.

use lab::api::Resource;
use serde_json::{Value, json};

use super::{IN_FORCE, Stage};

const OBJECTS: usize = 8000;

/// What stands where something else should.
fn hostile(random: &mut fastrand::Rng) -> Value {
    let choices = [
        json!(null),
        json!(-1),
        json!(0),
        json!(70000),
        json!(9_000_000_000_000_000_000_u64),
        json!(1.5),
        json!(true),
        json!(""),
        json!(" "),
        json!("None"),
        json!("999.1.1.1"),
        // Not an address that a good Service has: who gets that is a question of age and name.
        json!("010.97.0.1"),
        json!("::ffff:10.96.0.7"),
        json!("0.0.0.0"),
        json!("255.255.255.255"),
        json!("224.0.0.1"),
        json!("fe80::1%eth0"),
        json!("0.0.0.0/0"),
        json!("10.0.0.0/33"),
        json!("; flush ruleset"),
        json!("a\u{0}b\nc"),
        json!("\u{1F4A9}".repeat(300)),
        json!([]),
        json!([null]),
        json!([[], {}]),
        json!(["10.96.9.1", "10.96.9.1", "x"]),
        json!({}),
        json!({ "ip": 7 }),
    ];
    choices[random.usize(0..choices.len())].clone()
}

/// Replaces, removes or doubles something somewhere below.
fn spoil(value: &mut Value, random: &mut fastrand::Rng) {
    let deeper = random.u8(0..4) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() && deeper => {
            let at = random.usize(0..fields.len());
            if let Some(field) = fields.values_mut().nth(at) {
                spoil(field, random);
            }
        }
        Value::Array(items) if !items.is_empty() && deeper => {
            let at = random.usize(0..items.len());
            match random.u8(0..6) {
                0 => _ = items.remove(at),
                1 => items.push(items[at].clone()),
                _ => spoil(&mut items[at], random),
            }
        }
        value => *value = hostile(random),
    }
}

fn object(number: usize, random: &mut fastrand::Rng) -> Value {
    let name = format!("hostile-{number}");
    let mut object = match random.bool() {
        true => json!({ "apiVersion": "v1", "kind": "Service", "spec": {
            "type": "LoadBalancer", "clusterIP": format!("10.97.{}.{}", number / 250, number % 250),
            "ipFamilies": ["IPv4"], "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10 } },
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000, "externalIPs": ["198.51.100.9"],
            "loadBalancerSourceRanges": ["10.0.0.0/8"], "trafficDistribution": "PreferClose",
            "ports": [{ "name": "a", "port": 80, "nodePort": 30081, "protocol": "TCP", "targetPort": 8080 }],
        }, "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.9", "ipMode": "VIP" }] } } }),
        false => json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "ports": [{ "name": "a", "port": 8080, "protocol": "TCP" }],
            "endpoints": [{ "addresses": ["10.244.9.9"], "nodeName": "node-1", "zone": "z",
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "hints": { "forZones": [{ "name": "z" }] } }] }),
    };
    for _ in 0..random.u8(1..4) {
        let parts = match object.get("spec") {
            Some(_) => &["spec", "spec", "status"][..],
            None => &["addressType", "ports", "endpoints"],
        };
        if let Some(part) = object.get_mut(parts[random.usize(0..parts.len())]) {
            spoil(part, random);
        }
    }
    let service = format!("hostile-{}", random.usize(0..OBJECTS));
    object["metadata"] = json!({ "name": name, "labels": { "kubernetes.io/service-name": service } });
    object
}

#[test]
fn hostile_objects_stop_neither_the_program_nor_what_others_get() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::new();
    let api = stage.api();
    // As it stands in the object, whatever it is; the other form has no words for much of it.
    api.set_protobuf(false);
    let mut proxy = stage.start_by(&api);
    proxy.says(IN_FORCE);
    let traffic = stage.traffic();
    let mut taken = 0;
    for number in 0..OBJECTS {
        let object = object(number, &mut random);
        taken += usize::from(api.apply(&object.to_string()).is_ok());
    }
    let served = |name: &str, ip: &str| {
        let good = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             ports: [{{name: '', port: 8080}}]\nendpoints: [{{addresses: [10.244.2.77]}}]\n"
        );
        api.apply(&good).unwrap();
        format!("{ip} . tcp . 80 . 0 : 10.244.2.77 . 8080")
    };
    proxy.programs(&served("late", "10.96.3.1"));
    assert!(proxy.process.try_wait().unwrap().is_none());
    // One that meets all of them at its start.
    drop(proxy);
    let successor = stage.start_by(&api);
    successor.says(IN_FORCE);
    successor.programs(&served("later", "10.96.3.2"));
    let answers = traffic.was_never_disturbed();
    let log = successor.log();
    assert!(!log.contains("panicked"), "{log}");
    println!("{taken} of {OBJECTS} were taken in by the API server; {answers} answers");
    assert!(taken > 1000, "the API server let too few in: {taken}");
    for service in api.all(Resource::Services) {
        let name = service["metadata"]["name"].as_str().unwrap();
        if name.starts_with("hostile") {
            api.delete(Resource::Services, "default", name).unwrap();
        }
    }
    successor.until("end of the hostile ones", || {
        let table = stage
            .node()
            .run("nft", &["list", "table", "ip", "kube-proxy"])
            .unwrap();
        match table.contains("10.97.") {
            false => Ok(()),
            true => Err(table),
        }
    });
}
