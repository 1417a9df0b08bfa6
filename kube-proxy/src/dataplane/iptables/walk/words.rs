//! A rule as its words: options, and matches and a target with options of their own.

use anyhow::{Context, bail, ensure};

/// A part of a rule.
#[derive(Debug)]
pub(super) enum Part {
    /// An option of the rule itself, as `-s`.
    Plain {
        not: bool,
        option: String,
        value: String,
    },
    /// `-m`
    Match(Named),
    /// `-j`
    Target(Named),
}

/// A match or target by its name, and its options.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    options: Vec<Given>,
}

#[derive(Debug)]
struct Given {
    not: bool,
    option: String,
    value: Option<String>,
}

/// The options of a rule itself that are known; each has a value.
const PLAIN: [&str; 4] = ["-s", "-d", "-p", "-i"];

/// Takes a rule apart.
pub(super) fn parts(text: &str) -> anyhow::Result<Vec<Part>> {
    let mut words = split(text)?.into_iter().peekable();
    let (mut parts, mut not) = (Vec::new(), false);
    while let Some((word, _)) = words.next() {
        let negated = std::mem::take(&mut not);
        let mut value = || {
            let next = words.next_if(|(word, quoted)| *quoted || !(word.starts_with('-') || word == "!"));
            next.map(|(word, _)| word)
        };
        match &*word {
            "!" => {
                ensure!(!negated, "two ! in a row");
                not = true;
            }
            "-m" | "-j" => {
                ensure!(!negated, "{word} cannot be negated");
                let named = Named {
                    name: value().with_context(|| format!("{word} without a name"))?,
                    options: Vec::new(),
                };
                parts.push(match &*word {
                    "-m" => Part::Match(named),
                    _ => Part::Target(named),
                });
            }
            plain if PLAIN.contains(&plain) => {
                let value = value().with_context(|| format!("{plain} without a value"))?;
                parts.push(Part::Plain {
                    not: negated,
                    option: plain.to_owned(),
                    value,
                });
            }
            option if option.starts_with("--") => {
                let given = Given {
                    not: negated,
                    option: option.to_owned(),
                    value: value(),
                };
                match parts.last_mut() {
                    Some(Part::Match(named) | Part::Target(named)) => named.options.push(given),
                    _ => bail!("option {option} is of no match and of no target"),
                }
            }
            other => bail!("the walker does not know {other}"),
        }
    }
    ensure!(!not, "a ! at the end");
    Ok(parts)
}

impl Named {
    /// The value of an option that can be negated, if the option is there.
    pub(super) fn signed(&mut self, option: &str) -> anyhow::Result<Option<(bool, String)>> {
        let Some(at) = self.options.iter().position(|given| given.option == option) else {
            return Ok(None);
        };
        let given = self.options.remove(at);
        let value = given.value.with_context(|| format!("{option} without a value"))?;
        Ok(Some((given.not, value)))
    }

    /// The value of an option that cannot be negated, if the option is there.
    pub(super) fn optional(&mut self, option: &str) -> anyhow::Result<Option<String>> {
        match self.signed(option)? {
            Some((true, _)) => bail!("{option} cannot be negated"),
            Some((false, value)) => Ok(Some(value)),
            None => Ok(None),
        }
    }

    /// The value of an option that has to be there and cannot be negated.
    pub(super) fn required(&mut self, option: &str) -> anyhow::Result<String> {
        let name = self.name.clone();
        self.optional(option)?
            .with_context(|| format!("{name} without {option}"))
    }

    /// Whether an option without a value is there.
    pub(super) fn flag(&mut self, option: &str) -> anyhow::Result<bool> {
        let Some(at) = self.options.iter().position(|given| given.option == option) else {
            return Ok(false);
        };
        let given = self.options.remove(at);
        ensure!(
            given.value.is_none() && !given.not,
            "{option} has no value and cannot be negated"
        );
        Ok(true)
    }

    /// No other options are there.
    pub(super) fn end(self) -> anyhow::Result<()> {
        match self.options.first() {
            Some(given) => bail!("the walker does not know {} of {}", given.option, self.name),
            None => Ok(()),
        }
    }
}

/// The words of a line, and whether each was quoted.
fn split(text: &str) -> anyhow::Result<Vec<(String, bool)>> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (word, after) = quoted.split_once('"').context("a quote that does not end")?;
                ensure!(!word.contains('\\'), "the walker does not know \\ in quotes");
                ensure!(
                    after.is_empty() || after.starts_with(' '),
                    "words that touch a quote"
                );
                ((word.to_owned(), true), after)
            }
            None => {
                let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
                ensure!(!word.contains('"'), "a quote in a word");
                ((word.to_owned(), false), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}
