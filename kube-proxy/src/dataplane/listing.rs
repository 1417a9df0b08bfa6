//! What a mode plans, or the kernel holds, as lines that people and programs can read, and how two such listings differ.
//! Pure. What a line says is the business of the modes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::Serialize;

use crate::model::object::Family;

/// Which set, map or chain lines are of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// `ip` or `ip6`.
    pub family: &'static str,
    /// The table that it is in.
    pub table: String,
    /// `chain`, `map` or `set`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

impl Place {
    /// A place of a family.
    pub fn new(family: Family, table: &str, kind: &'static str, name: &str) -> Self {
        Self {
            family: match family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            },
            table: table.to_owned(),
            kind,
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            kind,
            name,
        } = self;
        write!(f, "{family} {table} {kind} {name}")
    }
}

/// What is at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// Elements, or rules; of a chain that the kernel calls the first line says from where.
    pub lines: Vec<String>,
    /// They mean something else in another order.
    #[serde(skip)]
    pub ordered: bool,
}

/// Everything that a mode has to do with, or would have.
pub type Listing = BTreeMap<Place, Lines>;

/// How one place differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The place.
    #[serde(flatten)]
    pub place: Place,
    /// Whether the kernel has it, with whatever lines.
    pub exists: bool,
    /// Whether it is wanted, with whatever lines.
    pub wanted: bool,
    /// Lines that the kernel lacks.
    pub missing: Vec<String>,
    /// Lines that the kernel holds and nobody wants.
    pub unwanted: Vec<String>,
}

/// How what is held differs from what is wanted.
pub fn differences(wanted: &Listing, held: &Listing) -> Vec<Difference> {
    let mut places: Vec<&Place> = wanted.keys().chain(held.keys()).collect();
    places.sort();
    places.dedup();
    let none = Lines::default();
    let compared = places.into_iter().filter_map(|place| {
        let (want, have) = (wanted.get(place), held.get(place));
        let (missing, unwanted) = compare(want.unwrap_or(&none), have.unwrap_or(&none));
        let same = want.is_some() == have.is_some() && missing.is_empty() && unwanted.is_empty();
        (!same).then(|| Difference {
            place: place.clone(),
            exists: have.is_some(),
            wanted: want.is_some(),
            missing,
            unwanted,
        })
    });
    compared.collect()
}

/// The lines that only the first has, and those that only the second has; all of both if nothing but their order differs
/// and that matters.
fn compare(wanted: &Lines, held: &Lines) -> (Vec<String>, Vec<String>) {
    let missing = without(&wanted.lines, &held.lines);
    let unwanted = without(&held.lines, &wanted.lines);
    if missing.is_empty() && unwanted.is_empty() && wanted.ordered && wanted.lines != held.lines {
        return (wanted.lines.clone(), held.lines.clone());
    }
    (missing, unwanted)
}

/// The lines that are not among others, each as often as it is.
fn without(lines: &[String], others: &[String]) -> Vec<String> {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for line in others {
        *left.entry(line).or_default() += 1;
    }
    let only = lines.iter().filter(|line| match left.get_mut(line.as_str()) {
        Some(times @ 1..) => {
            *times -= 1;
            false
        }
        _ => true,
    });
    only.cloned().collect()
}

impl fmt::Display for Difference {
    /// `-` for what kube-proxy would remove, `+` for what it would add.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (self.exists, self.wanted) {
            (true, false) => '-',
            (false, true) => '+',
            _ => ' ',
        };
        writeln!(f, "{sign} {}", self.place)?;
        for (sign, lines) in [('-', &self.unwanted), ('+', &self.missing)] {
            for line in lines {
                writeln!(f, "{sign}     {line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(ordered: bool, lines: &[&str]) -> Lines {
        let lines = lines.iter().map(|&line| line.to_owned()).collect();
        Lines { lines, ordered }
    }

    #[test]
    fn lines_are_compared_as_often_as_they_are_there_and_in_their_order_if_it_matters() {
        for (wanted, held, missing, unwanted) in [
            (&["a", "b"][..], &["b", "a"][..], &[][..], &[][..]),
            (&["a", "a"], &["a"], &["a"], &[]),
            (&["a"], &["a", "a", "c"], &[], &["a", "c"]),
            (&[], &[], &[], &[]),
        ] {
            let found = compare(&lines(false, wanted), &lines(false, held));
            assert_eq!(found.0, missing, "{wanted:?} {held:?}");
            assert_eq!(found.1, unwanted, "{wanted:?} {held:?}");
        }
        let swapped = compare(&lines(true, &["a", "b"]), &lines(true, &["b", "a"]));
        assert_eq!(swapped.0, ["a", "b"]);
        assert_eq!(swapped.1, ["b", "a"]);
    }

    #[test]
    fn a_place_that_is_missing_differs_even_if_it_is_empty() {
        let place = |name| Place::new(Family::V6, "nat", "chain", name);
        let listing = |names: &[&'static str]| -> Listing {
            let places = names.iter().map(|name| (place(name), Lines::default()));
            places.collect()
        };
        let found = differences(&listing(&["a", "b"]), &listing(&["b", "c"]));
        let shown: String = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, "+ ip6 nat chain a\n- ip6 nat chain c\n");
    }
}
