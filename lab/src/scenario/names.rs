//! Names of pods, nodes and clients, as scenarios write them: one or more, with spaces between. `p-1..100` stands
//! for p-1, p-2, … p-100.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};

/// One or more names, in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Names(Vec<String>);

impl Names {
    /// One name, as it is.
    pub(super) fn one(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl FromStr for Names {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut names = Vec::new();
        for word in text.split_whitespace() {
            match word.split_once("..") {
                None => names.push(word.to_owned()),
                Some((first, last)) => {
                    let range = range(first, last);
                    names.extend(range.with_context(|| format!("{word} is no range such as p-1..100"))?);
                }
            }
        }
        ensure!(!names.is_empty(), "a name is missing");
        Ok(Self(names))
    }
}

fn range(first: &str, last: &str) -> Result<impl Iterator<Item = String>> {
    let stem = first.trim_end_matches(|c: char| c.is_ascii_digit());
    let from: u16 = first[stem.len()..].parse()?;
    let to: u16 = last.parse()?;
    ensure!(from <= to, "it ends before it begins");
    let stem = stem.to_owned();
    Ok((from..=to).map(move |number| format!("{stem}{number}")))
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .map_err(|error| serde::de::Error::custom(format!("{text}: {error:#}")))
    }
}
