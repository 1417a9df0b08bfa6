//! Prometheus' text format, read as strictly as Prometheus reads it, and more: a series may not come twice, and the
//! buckets of a histogram must add up.

#![expect(clippy::expect_used, reason = "it names the line that is wrong")]

use std::collections::{BTreeMap, BTreeSet};

/// One metric.
#[derive(Debug, Default)]
pub(crate) struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// Names of labels, of all series together, without `le`.
    pub(crate) labels: BTreeSet<String>,
    /// Bounds of a histogram's buckets, without the last, which has none.
    pub(crate) buckets: BTreeSet<String>,
    /// By the name and labels as they are written.
    pub(crate) series: BTreeMap<String, f64>,
}

/// Reads a whole text. Panics with the line that is wrong.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line does not end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').expect(line);
            assert!(is_name(name), "{line}");
            assert!(!families.contains_key(name), "twice: {line}");
            current = name.to_owned();
            families.insert(current.clone(), Family::default());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            let family = families.get_mut(name).expect(line);
            assert!(
                name == current && family.series.is_empty() && family.kind.is_empty(),
                "{line}"
            );
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            family.kind = kind.to_owned();
        } else {
            let family = families.get_mut(&current).expect(line);
            sample(line, &current, family);
        }
    }
    for (name, family) in &families {
        assert!(!family.series.is_empty(), "{name} has no series");
        if family.kind == "histogram" {
            adds_up(name, family);
        }
    }
    families
}

fn sample(line: &str, name: &str, family: &mut Family) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value: f64 = value.parse().expect(line);
    let (sample_name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        None => (series, ""),
    };
    let suffix = sample_name.strip_prefix(name).expect(line);
    match family.kind.as_str() {
        "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
        _ => assert_eq!(suffix, "", "{line}"),
    }
    assert!(family.kind != "counter" || value >= 0.0, "{line}");
    for (label, value) in pairs(labels) {
        assert!(is_name(&label) && !label.contains(':'), "{line}");
        if label == "le" && suffix == "_bucket" {
            if value != "+Inf" {
                family.buckets.insert(value);
            }
        } else {
            family.labels.insert(label);
        }
    }
    let before = family.series.insert(series.to_owned(), value);
    assert!(before.is_none(), "twice: {line}");
}

/// `name="value",name="value"`.
fn pairs(mut text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect(text);
        let mut end = None;
        let mut escaped = false;
        for (at, letter) in rest.char_indices() {
            match letter {
                '"' if !escaped => {
                    end = Some(at);
                    break;
                }
                letter => escaped = letter == '\\' && !escaped,
            }
        }
        let end = end.expect(text);
        pairs.push((name.to_owned(), rest[..end].to_owned()));
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    pairs
}

fn is_name(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphabetic() || "_:".contains(letter);
    name.starts_with(letter) && name.chars().all(|each| letter(each) || each.is_ascii_digit())
}

/// Buckets grow, and the last is the count.
fn adds_up(name: &str, family: &Family) {
    let mut histograms: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (series, value) in &family.series {
        let Some(labels) = series.strip_prefix(&format!("{name}_bucket{{")) else {
            continue;
        };
        let (mut others, mut bound) = (String::new(), f64::NAN);
        for (label, value) in pairs(labels.trim_end_matches('}')) {
            match label.as_str() {
                "le" if value == "+Inf" => bound = f64::INFINITY,
                "le" => bound = value.parse().unwrap(),
                _ => others.push_str(&format!("{label}=\"{value}\",")),
            }
        }
        histograms.entry(others).or_default().push((bound, *value));
    }
    assert!(!histograms.is_empty(), "{name} has no buckets");
    for (labels, mut buckets) in histograms {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            buckets.is_sorted_by(|a, b| a.1 <= b.1),
            "{name} {labels} {buckets:?}"
        );
        let (bound, all) = *buckets.last().unwrap();
        assert_eq!(bound, f64::INFINITY, "{name} {labels}");
        let labels = labels.trim_end_matches(',');
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        assert_eq!(
            family.series.get(&format!("{name}_count{braces}")),
            Some(&all),
            "{name} {labels}"
        );
        assert!(
            family.series.contains_key(&format!("{name}_sum{braces}")),
            "{name} {labels}"
        );
    }
}
