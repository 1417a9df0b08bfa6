//! The arguments of `kube-proxy plan`: the proxy's own, and what is to be printed.

use super::{Command, Flags, UsageError, cut, is_json, of_a_proxy};

/// The word before the flags that asks for a plan instead of a proxy.
pub const PLAN: &str = "plan";

/// What `plan` is to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `--output json`.
    pub json: bool,
    /// `--diff`.
    pub diff: bool,
}

/// Reads what stands behind `plan`.
pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, UsageError> {
    let mut plan = Plan::default();
    let mut others = Vec::new();
    while let Some(argument) = arguments.next() {
        let (name, value) = cut(&argument);
        match name {
            "--diff" => {
                plan.diff = match value.as_deref() {
                    None | Some("true") => true,
                    Some("false") => false,
                    Some(other) => return Err(UsageError::invalid(name, other, "must be true or false")),
                }
            }
            "--output" | "-o" => {
                let value = value.or_else(|| arguments.next());
                let value = value.ok_or_else(|| UsageError::NeedsArgument(name.to_owned()))?;
                plan.json = is_json(name, &value)?;
            }
            _ => others.push(argument),
        }
    }
    Ok(match of_a_proxy(others)? {
        Command::Run(flags) => Command::Run(Box::new(Flags {
            plan: Some(plan),
            ..*flags
        })),
        other => other,
    })
}
