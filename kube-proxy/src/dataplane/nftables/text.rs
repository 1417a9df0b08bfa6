//! Elements and rules as text, much as nft prints them. Both are read from the bytes that travel to and from the
//! kernel, so that what is planned and what is held become the same text if they are the same. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::{IpNet, ipv4_mask_to_prefix, ipv6_mask_to_prefix};

use super::element::NFTA_DATA_VALUE;
use super::encode::attributes;
use super::layout::{Field, Layout};
use super::listed::{Element, comment, find, string, verdict};
use super::object::{Carries, Object};
use crate::netlink::ip;

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
/// How many registers of 32 bits there are.
const REGISTERS: u32 = 16;
/// The longest text of what a register holds, in bytes.
const LONGEST: usize = 1024;
/// The type of a route to an address of this host.
const RTN_LOCAL: u32 = 2;

/// An element; `last` is the last key of the interval that it begins, and empty if it begins none.
pub(super) fn element(object: Object, layout: &Layout, element: &Element, last: &[u8]) -> String {
    let mut text = fields(object.key(), layout, &element.key, last);
    if !element.comment.is_empty() {
        let _ = write!(text, " comment \"{}\"", element.comment);
    }
    match object.carries() {
        Carries::Nothing => {}
        Carries::Verdict => {
            let _ = write!(text, " : {}", element.verdict);
        }
        Carries::Endpoint | Carries::EndpointId => {
            let _ = write!(text, " : {}", fields(object.value(), layout, &element.value, &[]));
        }
    }
    text
}

fn fields(all: &[Field], layout: &Layout, bytes: &[u8], last: &[u8]) -> String {
    let mut at = 0;
    let texts = all.iter().map(|field| {
        let from = at;
        at += field.registers(layout) as usize * 4;
        let part = |bytes: &[u8]| bytes.get(from..at).unwrap_or_default().to_vec();
        match (part(bytes), part(last)) {
            (first, last) if last.is_empty() || first == last => value(*field, &first),
            (first, last) => interval(*field, &first, &last),
        }
    });
    texts.collect::<Vec<_>>().join(" . ")
}

fn value(field: Field, bytes: &[u8]) -> String {
    let number = || bytes.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    match field {
        Field::Source | Field::Destination => ip(bytes).map_or_else(|| hex(bytes), |ip| ip.to_string()),
        Field::Protocol | Field::ProtocolOfInterval => match bytes.first() {
            Some(6) => "tcp".to_owned(),
            Some(17) => "udp".to_owned(),
            Some(132) => "sctp".to_owned(),
            other => other.map_or_else(String::new, u8::to_string),
        },
        Field::Port => bytes
            .first_chunk()
            .map_or(0, |bytes| u16::from_be_bytes(*bytes))
            .to_string(),
        Field::EndpointId | Field::AffinityGroup => format!("{:x}:{:x}", number() >> 16, number() & 0xffff),
        Field::Slot { .. } => number().to_string(),
    }
}

/// A network where it is one.
fn interval(field: Field, first: &[u8], last: &[u8]) -> String {
    let mask = first.iter().zip(last).map(|(first, last)| !(first ^ last));
    let mask = ip(&mask.collect::<Vec<u8>>());
    let prefix = mask.and_then(|mask| match mask {
        IpAddr::V4(mask) => ipv4_mask_to_prefix(mask).ok(),
        IpAddr::V6(mask) => ipv6_mask_to_prefix(mask).ok(),
    });
    let network = ip(first).and_then(|ip| IpNet::new(ip, prefix?).ok());
    match network.filter(|network| ip(last) == Some(network.broadcast())) {
        Some(network) => network.to_string(),
        None => format!("{}-{}", value(field, first), value(field, last)),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("0x{}", digits.collect::<String>())
}

/// A rule: its list of expressions, and what nft keeps with it.
pub(super) fn rule(expressions: &[u8], user_data: &[u8]) -> String {
    let mut steps = Steps::default();
    for (_, expression) in attributes(expressions) {
        let name = find(expression, NFTA_EXPR_NAME).map_or_else(String::new, string);
        let data = find(expression, NFTA_EXPR_DATA).unwrap_or_default();
        steps.step(&name, &Data(data));
    }
    let mut text = steps.said.join(" ");
    let comment = comment(user_data);
    if !comment.is_empty() {
        let _ = write!(text, " comment \"{comment}\"");
    }
    text
}

/// The attributes of an expression.
struct Data<'a>(&'a [u8]);

impl<'a> Data<'a> {
    fn bytes(&self, kind: u16) -> Option<&'a [u8]> {
        find(self.0, kind)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.bytes(kind)?
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A register as rules count them from 0; the kernel has other numbers for those that begin 128 bits.
    fn register(&self, kind: u16) -> Option<u32> {
        match self.number(kind)? {
            0 => None,
            wide @ 1..FIRST_REGISTER => Some((wide - 1) * 4),
            narrow => Some(narrow - FIRST_REGISTER).filter(|register| *register < REGISTERS),
        }
    }

    fn constant(&self, kind: u16) -> &'a [u8] {
        let constant = self.bytes(kind).and_then(|data| find(data, NFTA_DATA_VALUE));
        constant.unwrap_or_default()
    }

    fn name(&self, kind: u16) -> String {
        self.bytes(kind).map_or_else(String::new, string)
    }
}

/// A rule as it is read: what the registers hold, and what it does.
#[derive(Default)]
struct Steps {
    registers: BTreeMap<u32, String>,
    /// The constant that was loaded last.
    constant: Vec<u8>,
    said: Vec<String>,
}

impl Steps {
    /// A register is loaded. Keys are built from the first field to the last one, so those behind it are free. No rule of
    /// ours has a text that is cut, but one whose keys are looked up by keys could double it with each register.
    fn load(&mut self, register: Option<u32>, mut text: String) {
        if let Some(register) = register {
            if text.len() > LONGEST {
                let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end));
                text.truncate(end.unwrap_or_default());
            }
            self.registers.retain(|other, _| *other < register);
            self.registers.insert(register, text);
        }
    }

    fn at(&self, register: Option<u32>) -> String {
        let text = register.and_then(|register| self.registers.get(&register));
        text.cloned().unwrap_or_default()
    }

    /// The fields from a register on, up to another one if that comes behind it.
    fn key(&self, from: Option<u32>, to: Option<u32>) -> String {
        let from = from.unwrap_or_default();
        let end = to.filter(|to| *to > from).unwrap_or(u32::MAX);
        let fields = self.registers.range(from..end).map(|(_, text)| text.as_str());
        fields.collect::<Vec<_>>().join(" . ")
    }

    fn step(&mut self, name: &str, data: &Data<'_>) {
        match name {
            "payload" => match data.register(5) {
                Some(_) => {
                    let what = payload(data);
                    let value = constant(&what, &self.constant);
                    self.said.push(format!("{what} set {value}"));
                }
                None => self.load(data.register(1), payload(data)),
            },
            "meta" => self.meta(data),
            "ct" => {
                let what = ["state", "direction", "status"];
                let what = data.number(2).and_then(|key| what.get(key as usize));
                self.load(data.register(1), format!("ct {}", what.unwrap_or(&"?")));
            }
            "fib" => {
                let of = if data.number(3) == Some(1) {
                    "saddr"
                } else {
                    "daddr"
                };
                self.load(data.register(1), format!("fib {of} type"));
            }
            "bitwise" => {
                let (what, mask, flip) = (self.at(data.register(1)), data.constant(4), data.constant(5));
                let mut text = format!("{what} & {}", constant(&what, mask));
                if flip.iter().any(|&byte| byte != 0) {
                    let _ = write!(text, " ^ {}", constant(&what, flip));
                }
                self.load(data.register(2), text);
            }
            // It changes nothing in one byte.
            "byteorder" => {}
            "immediate" => match data.register(1) {
                Some(register) => {
                    self.constant = data.constant(2).to_vec();
                    self.load(Some(register), constant("", &self.constant));
                }
                None => self.said.push(verdict(data.bytes(2).unwrap_or_default())),
            },
            "cmp" => {
                let what = self.at(data.register(1));
                let sign = if data.number(2) == Some(0) { "==" } else { "!=" };
                let value = constant(&what, data.constant(3));
                self.said.push(format!("{what} {sign} {value}"));
            }
            "lookup" => self.lookup(data),
            "dynset" => self.remember(data),
            "numgen" => {
                let [modulus, offset] = [2, 4].map(|kind| data.number(kind).unwrap_or_default());
                let text = format!("numgen random mod {modulus} offset {offset}");
                self.load(data.register(1), text);
            }
            "nat" => self.said.push(format!("dnat to {}", self.at(data.register(3)))),
            "masq" => {
                let flags = data.number(1).unwrap_or_default();
                let how = if flags == 1 << 4 { " fully-random" } else { "" };
                self.said.push(format!("masquerade{how}"));
            }
            "reject" => self.said.push("reject".to_owned()),
            other => self.said.push(format!("[{other}]")),
        }
    }

    fn meta(&mut self, data: &Data<'_>) {
        let what = match data.number(2) {
            Some(2) => "priority".to_owned(),
            Some(3) => "mark".to_owned(),
            Some(6) => "iifname".to_owned(),
            Some(16) => "l4proto".to_owned(),
            other => format!("{other:?}"),
        };
        match data.register(3) {
            Some(from) => self.said.push(format!("meta {what} set {}", self.at(Some(from)))),
            None => self.load(data.register(1), format!("meta {what}")),
        }
    }

    fn lookup(&mut self, data: &Data<'_>) {
        let (key, set) = (self.key(data.register(2), None), data.name(1));
        match (data.register(3), data.bytes(3).is_some(), data.number(5)) {
            (Some(register), ..) => self.load(Some(register), format!("{key} map @{set}")),
            (None, true, _) => self.said.push(format!("{key} vmap @{set}")),
            (None, false, Some(1)) => self.said.push(format!("{key} != @{set}")),
            (None, false, _) => self.said.push(format!("{key} @{set}")),
        }
    }

    fn remember(&mut self, data: &Data<'_>) {
        let (from, value) = (data.register(4), data.register(5));
        let doing = if data.number(3) == Some(2) {
            "delete"
        } else {
            "update"
        };
        let milliseconds = data.bytes(6).and_then(|bytes| bytes.first_chunk());
        let timeout = match milliseconds.map_or(0, |bytes| u64::from_be_bytes(*bytes)) {
            0 => String::new(),
            some => format!(" timeout {}s", some / 1000),
        };
        let (key, value) = (self.key(from, value), self.at(value));
        self.said.push(format!(
            "{doing} @{} {{ {key}{timeout} : {value} }}",
            data.name(1)
        ));
    }
}

fn payload(data: &Data<'_>) -> String {
    let [base, offset, length] = [2, 3, 4].map(|kind| data.number(kind).unwrap_or_default());
    match (base, offset, length) {
        (1, 12, 4) => "ip saddr".to_owned(),
        (1, 16, 4) => "ip daddr".to_owned(),
        (1, 8, 16) => "ip6 saddr".to_owned(),
        (1, 24, 16) => "ip6 daddr".to_owned(),
        (2, 2, 2) => "th dport".to_owned(),
        _ => format!("@{base},{},{}", u64::from(offset) * 8, u64::from(length) * 8),
    }
}

/// A constant, by what it belongs to: addresses and names as such, else a number in the host's byte order.
fn constant(with: &str, bytes: &[u8]) -> String {
    let number = bytes.first_chunk().map(|number| u32::from_ne_bytes(*number));
    match (ip(bytes), number) {
        _ if with.contains("iifname") => format!("{:?}", string(bytes)),
        (Some(ip), _) if with.starts_with("ip") || bytes.len() == 16 => ip.to_string(),
        (_, Some(RTN_LOCAL)) if with.ends_with(" type") => "local".to_owned(),
        (_, Some(number)) if bytes.len() == 4 => format!("{number:#x}"),
        _ => hex(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;

    /// A list of expressions, each with attributes of 32 bits.
    fn rule_of(expressions: &[(&str, &[(u16, u32)])]) -> String {
        let mut bytes = Vec::new();
        for (name, numbers) in expressions {
            Attributes::at_end(&mut bytes).nested(1, |expression| {
                expression.string(NFTA_EXPR_NAME, name);
                expression.nested(NFTA_EXPR_DATA, |data| {
                    numbers
                        .iter()
                        .for_each(|(kind, number)| data.be32(*kind, *number));
                });
            });
        }
        rule(&bytes, &[])
    }

    #[test]
    fn a_part_of_a_packet_is_told_wherever_it_is() {
        let load = |offset, length| {
            let load: &[(u16, u32)] = &[(1, 8), (2, 1), (3, offset), (4, length)];
            rule_of(&[("payload", load), ("cmp", &[(1, 8), (2, 0)])])
        };
        assert_eq!(load(1, 2), "@1,8,16 == 0x");
        assert_eq!(load(u32::MAX, u32::MAX), "@1,34359738360,34359738360 == 0x");
    }

    #[test]
    fn a_rule_whose_value_stands_before_its_key_is_told() {
        let mark: &[(u16, u32)] = &[(1, 8), (2, 3)];
        let name: &[(u16, u32)] = &[(1, 9), (2, 6)];
        let update: &[(u16, u32)] = &[(4, 9), (5, 8)];
        let text = rule_of(&[("meta", mark), ("meta", name), ("dynset", update)]);
        assert_eq!(text, "update @ { meta iifname : meta mark }");
    }

    #[test]
    fn a_rule_that_doubles_what_it_looks_up_stays_a_short_text() {
        // Each lookup takes all registers for its key, and loads one more.
        let steps: Vec<_> = (9..24).map(|to| [(2, 8), (3, to)]).collect();
        let lookups = steps.iter().map(|step| ("lookup", step.as_slice()));
        let load: &[(u16, u32)] = &[(1, 8), (2, 6)];
        let all: Vec<_> = [("meta", load)].into_iter().chain(lookups).collect();
        let text = rule_of(&[&all[..], &[("nat", &[(3, 23)])]].concat());
        assert!(text.starts_with("dnat to meta iifname"), "{text}");
        assert!(text.len() < 2 * LONGEST, "{}", text.len());
    }
}
