//! Cuts a file into documents, so that one that is broken affects only itself: YAML at its `---` lines before
//! anything is parsed, JSON at the ends of its values.

use serde_json::value::RawValue;

/// One document, still text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// Its place in the file, from 1. Empty documents do not count.
    pub(super) number: usize,
    /// The line on which its text begins, from 1.
    pub(super) line: usize,
    /// Its text, of this language.
    pub(super) text: &'a str,
    pub(super) language: Language,
}

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Yaml,
    Json,
}

/// The documents of a file. A file of JSON is one whose first character is `{`, or whose name says so.
pub(super) fn split(text: &str, named_json: bool) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut line = 1;
    if named_json {
        split_json(text, 1, &mut documents);
        return documents;
    }
    for part in yaml_parts(text) {
        // YAML takes JSON in, but a stream of JSON values is not YAML, and its tabs are not either.
        if part.trim_start().starts_with('{') && is_json(part) {
            split_json(part, line, &mut documents);
        } else if !is_blank(part) {
            documents.push(Document {
                number: documents.len() + 1,
                line,
                text: part,
                language: Language::Yaml,
            });
        }
        line += part.matches('\n').count();
    }
    documents
}

/// The text between `---` lines, each part with the marker that begins it: what follows a marker on its line
/// belongs to the document.
fn yaml_parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        // Directives (`%YAML 1.2`) stand before the marker of the document that they belong to.
        if is_marker(line) && !is_directives(&text[start..at]) {
            parts.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    parts.push(&text[start..]);
    parts
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_directives(part: &str) -> bool {
    let mut lines = part
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    part.contains('%') && lines.all(|line| line.starts_with('%'))
}

/// Nothing but markers, comments and white space.
fn is_blank(part: &str) -> bool {
    part.lines().all(|line| {
        let line = line.trim();
        let rest = match is_marker(line) {
            true => line[3..].trim_start(),
            false => line,
        };
        rest.is_empty() || rest.starts_with('#') || line == "..."
    })
}

fn is_json(text: &str) -> bool {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    values.all(|value| value.is_ok())
}

/// Adds the values of a stream of JSON. What cannot be parsed is one document, up to the end.
fn split_json<'a>(text: &'a str, mut line: usize, documents: &mut Vec<Document<'a>>) {
    let mut rest = text;
    loop {
        let text = rest.trim_start();
        line += rest[..rest.len() - text.len()].matches('\n').count();
        if text.is_empty() {
            return;
        }
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
        let value = match values.next() {
            Some(Ok(value)) => value.get(),
            _ => text,
        };
        documents.push(Document {
            number: documents.len() + 1,
            line,
            text: value,
            language: Language::Json,
        });
        line += value.matches('\n').count();
        rest = &text[value.len()..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Number, line and text.
    type Piece = (usize, usize, &'static str);

    fn pieces(text: &str, named_json: bool) -> Vec<(usize, usize, &str, Language)> {
        let documents = split(text, named_json);
        documents
            .iter()
            .map(|document| (document.number, document.line, document.text, document.language))
            .collect()
    }

    #[test]
    fn yaml_is_cut_at_its_markers_and_nothing_else() {
        use Language::Yaml;
        let table: &[(&str, &[Piece])] = &[
            ("", &[]),
            ("\n# only a comment\n---\n---\n...\n", &[]),
            ("a: 1\n", &[(1, 1, "a: 1\n")]),
            (
                "\u{feff}a: 1\n---\nb: 2",
                &[(1, 1, "a: 1\n"), (2, 2, "---\nb: 2")],
            ),
            (
                "---\r\na: 1\r\n---\r\nb: 2\r\n",
                &[(1, 1, "---\r\na: 1\r\n"), (2, 3, "---\r\nb: 2\r\n")],
            ),
            (
                "---\n\n---\na: 1\n--- # next\nb: 2\n",
                &[(1, 3, "---\na: 1\n"), (2, 5, "--- # next\nb: 2\n")],
            ),
            ("a: |\n  ---\n  x\n", &[(1, 1, "a: |\n  ---\n  x\n")]),
            ("---a: 1\n----\n", &[(1, 1, "---a: 1\n----\n")]),
            ("%YAML 1.2\n---\na: 1\n", &[(1, 1, "%YAML 1.2\n---\na: 1\n")]),
            (
                "--- {a: 1}\n---\nb: [\n---\nc: 3\n",
                &[
                    (1, 1, "--- {a: 1}\n"),
                    (2, 2, "---\nb: [\n"),
                    (3, 4, "---\nc: 3\n"),
                ],
            ),
            ("{a: 1}\n", &[(1, 1, "{a: 1}\n")]),
        ];
        for (text, expected) in table {
            let expected: Vec<_> = expected
                .iter()
                .map(|(number, line, text)| (*number, *line, *text, Yaml))
                .collect();
            assert_eq!(pieces(text, false), expected, "{text:?}");
        }
    }

    #[test]
    fn json_is_cut_at_the_ends_of_its_values() {
        use Language::Json;
        let table: &[(&str, bool, &[Piece])] = &[
            (
                "{\"a\": 1}\n{\"b\":\n2}\n",
                false,
                &[(1, 1, "{\"a\": 1}"), (2, 2, "{\"b\":\n2}")],
            ),
            (
                "{\"a\": 1}\n{\"b\"\n{}",
                true,
                &[(1, 1, "{\"a\": 1}"), (2, 2, "{\"b\"\n{}")],
            ),
            ("\n\n  [1]", true, &[(1, 3, "[1]")]),
            ("", true, &[]),
        ];
        for (text, named, expected) in table {
            let expected: Vec<_> = expected
                .iter()
                .map(|(number, line, text)| (*number, *line, *text, Json))
                .collect();
            assert_eq!(pieces(text, *named), expected, "{text:?}");
        }
        let mixed = pieces("{\"a\": 1}\n---\nb: 2\n", false);
        assert_eq!(
            mixed,
            [(1, 1, "{\"a\": 1}", Json), (2, 2, "---\nb: 2\n", Language::Yaml)]
        );
    }
}
