//! The section of logging, with the rules that Kubernetes' components share.

use super::check::Problems;
use super::file::KubeProxyConfiguration;
use crate::logging::{Format, Module, Options};

/// As much as upstream's number holds.
const MOST: u32 = i32::MAX.cast_unsigned();

/// Checks the section.
pub(super) fn check(file: &KubeProxyConfiguration, problems: &mut Problems) -> Options {
    let section = file.logging.clone().unwrap_or_default();
    let format = match section.format.as_deref().unwrap_or_default() {
        "" | "text" => Format::Text,
        "json" => Format::Json,
        other => {
            problems.invalid("logging.format", other, "Unsupported log format");
            Format::Text
        }
    };
    let verbosity = section.verbosity.unwrap_or_default();
    if verbosity > MOST {
        problems.invalid("logging.verbosity", verbosity, &format!("Must be <= {MOST}"));
    }
    let entries = section.vmodule.unwrap_or_default();
    if format == Format::Json && !entries.is_empty() {
        problems.forbidden("logging.vmodule", "Only supported for text log format");
    }
    for (index, entry) in entries.iter().enumerate() {
        let path = |field: &str| format!("logging.vmodule[{index}].{field}");
        if entry.file_pattern.is_empty() {
            problems.required(&path("filePattern"), "File pattern must not be empty");
        }
        if entry.file_pattern.contains(['=', ',']) {
            let problem = "File pattern must not contain equal sign or comma";
            problems.invalid(&path("filePattern"), &entry.file_pattern, problem);
        }
        if entry.verbosity > MOST {
            problems.invalid(&path("verbosity"), entry.verbosity, &format!("Must be <= {MOST}"));
        }
    }
    let modules = entries.into_iter().map(|entry| Module {
        pattern: entry.file_pattern,
        verbosity: entry.verbosity,
    });
    Options {
        format,
        verbosity,
        modules: modules.collect(),
    }
}
