//! A tree as YAML, as upstream's components write it: keys in the order of the alphabet, a list no deeper than its key.

use serde_json::Value;

/// The text of a tree.
pub(crate) fn text(tree: &Value) -> String {
    let mut text = String::new();
    block(tree, 0, &mut text);
    text
}

/// Writes a value in lines of its own.
fn block(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                text.push_str(&format!("{indent}{}:", scalar(key)));
                let deeper = if value.is_object() { depth + 1 } else { depth };
                behind(value, deeper, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&format!("{indent}-"));
                behind(item, depth + 1, text);
            }
        }
        value => text.push_str(&format!("{indent}{}\n", plain(value))),
    }
}

/// Writes a value behind its key or dash: on the same line if it fits there.
fn behind(value: &Value, depth: usize, text: &mut String) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        block(value, depth, text);
    } else {
        text.push_str(&format!(" {}\n", plain(value)));
    }
}

/// A value that fits on a line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // 5.0 is 5.
        Value::Number(number) => number
            .as_f64()
            .map_or_else(|| number.to_string(), |n| n.to_string()),
        value => value.to_string(),
    }
}

/// A string, quoted if it could be taken for something else.
fn scalar(text: &str) -> String {
    if says_itself(text) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

/// Whether a string needs no quotes.
fn says_itself(text: &str) -> bool {
    let first = text.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '/');
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || "_-./,:".contains(letter);
    // Numbers in all their forms, base 60 among them, and dates.
    let is_numeric = || {
        text.chars()
            .all(|letter| letter.is_ascii_digit() || "_-.:e".contains(letter))
            && !is_address(text)
    };
    const WORDS: [&str; 11] = [
        "null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan",
    ];
    let is_word = || WORDS.contains(&text.to_ascii_lowercase().as_str());
    first
        && text.chars().all(harmless)
        && !text.ends_with(':')
        && !text.starts_with("0x")
        && !is_numeric()
        && !is_word()
}

/// An IPv4 address, perhaps with a port.
fn is_address(text: &str) -> bool {
    text.matches('.').count() == 3
}
