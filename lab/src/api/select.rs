//! Label and field selectors, as list and watch take them.

use super::object::Object;
use super::resource::Resource;
use super::status::Status;

/// Both selectors and the namespace of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// Also true when the label is absent.
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
    /// Index into [`Object::fields`].
    Own(usize),
}

impl Selector {
    /// Parses the texts of a request.
    ///
    /// # Errors
    /// 400 with the real server's wording where it is short.
    pub(crate) fn parse(
        resource: Resource,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Status> {
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: parse_labels(labels).map_err(Status::bad_request)?,
            fields: parse_fields(resource, fields).map_err(Status::bad_request)?,
        })
    }

    /// Whether more than the namespace is asked for.
    pub(crate) fn is_restricting(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
            && self.fields.iter().all(|requirement| requirement.holds(object))
            && self.labels.iter().all(|requirement| requirement.holds(object))
    }
}

impl Requirement {
    fn holds(&self, object: &Object) -> bool {
        let value = object.labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl FieldRequirement {
    fn holds(&self, object: &Object) -> bool {
        let value = match self.field {
            Field::Name => &object.name,
            Field::Namespace => &object.namespace,
            Field::Own(index) => &object.fields[index],
        };
        (*value == self.value) == self.equal
    }
}

/// `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a>1`, `a<1`; commas between.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { rest: text.trim() };
    let mut requirements = Vec::new();
    if parser.rest.is_empty() {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        match parser.token() {
            "" => return Ok(requirements),
            "," if parser.rest.is_empty() => {
                return Err("found '', expected: identifier after ','".to_owned());
            }
            "," => {}
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// The next operator, bracket or word; empty at the end.
    fn token(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let length = match text.as_bytes() {
            [] => 0,
            [b'=', b'=', ..] | [b'!', b'=', ..] => 2,
            [b'=' | b'!' | b'(' | b')' | b',' | b'<' | b'>', ..] => 1,
            _ => text
                .find(|c: char| c.is_whitespace() || "=!(),<>".contains(c))
                .unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(length);
        self.rest = rest.trim_start();
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let first = self.token();
        let (key, negated) = if first == "!" {
            (self.token(), true)
        } else {
            (first, false)
        };
        if !is_label_key(key) {
            return Err(format!(
                "found '{key}', expected: !, identifier, or 'end of string'"
            ));
        }
        let requirement = |test| {
            Ok(Requirement {
                key: key.to_owned(),
                test,
            })
        };
        if negated {
            return requirement(Test::Absent);
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return requirement(Test::Exists);
        }
        let operator = self.token();
        match operator {
            "=" | "==" => requirement(Test::In(vec![self.value()])),
            "!=" => requirement(Test::NotIn(vec![self.value()])),
            "in" => requirement(Test::In(self.values()?)),
            "notin" => requirement(Test::NotIn(self.values()?)),
            ">" => requirement(Test::Above(self.number()?)),
            "<" => requirement(Test::Below(self.number()?)),
            other => Err(format!(
                "unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"
            )),
        }
    }

    /// The value behind `=`; may be empty.
    fn value(&mut self) -> String {
        if self.rest.starts_with(',') {
            String::new()
        } else {
            self.token().to_owned()
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let token = self.token();
        token
            .parse()
            .map_err(|_| format!("for 'Gt', 'Lt' operators, the value must be an integer, not '{token}'"))
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let open = self.token();
        if open != "(" {
            return Err(format!(
                "unable to parse requirement: found '{open}' expected: '('"
            ));
        }
        let mut values = Vec::new();
        loop {
            match self.token() {
                "," => {}
                ")" => return Ok(values),
                "" => return Err("unable to parse requirement: found '', expected: ',' or ')'".to_owned()),
                value => values.push(value.to_owned()),
            }
        }
    }
}

fn is_label_key(key: &str) -> bool {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    key.matches('/').count() <= 1
        && edge(name.chars().next())
        && edge(name.chars().last())
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// `a=b`, `a==b`, `a!=b`; commas between.
fn parse_fields(resource: Resource, text: &str) -> Result<Vec<FieldRequirement>, String> {
    let parse = |term: &str| {
        let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
            (name, value, false)
        } else if let Some((name, value)) = term.split_once("==") {
            (name, value, true)
        } else if let Some((name, value)) = term.split_once('=') {
            (name, value, true)
        } else {
            return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
        };
        Ok(FieldRequirement {
            field: find_field(resource, name)?,
            value: value.to_owned(),
            equal,
        })
    };
    text.split(',')
        .filter(|term| !term.is_empty())
        .map(parse)
        .collect()
}

fn find_field(resource: Resource, name: &str) -> Result<Field, String> {
    let own = || resource.selectable().iter().position(|(path, _)| *path == name);
    match name {
        "metadata.name" => Ok(Field::Name),
        "metadata.namespace" if resource.namespaced() => Ok(Field::Namespace),
        _ => own().map(Field::Own).ok_or_else(|| match resource {
            Resource::EndpointSlices | Resource::ServiceCidrs => format!(
                "\"{name}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ),
            _ => format!("field label not supported: {name}"),
        }),
    }
}

#[cfg(test)]
mod tests;
