//! What is written: by level, by whose line it is, and by source file.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::Options;

/// From this verbosity on libraries may chatter.
const LIBRARIES: u32 = 6;

/// One entry of `vmodule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The name of a source file without `.rs` (of a `mod.rs`, that of its folder); `*` and `?` stand for any letters.
    pub pattern: String,
    /// The verbosity of the files that it matches.
    pub verbosity: u32,
}

/// The filter. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Levels(Arc<RwLock<Chosen>>);

#[derive(Debug)]
struct Chosen {
    verbosity: u32,
    modules: Vec<Module>,
}

/// The verbosity from which on lines of a level are written.
pub(super) fn needed(level: Level) -> u32 {
    match level {
        Level::TRACE => 4,
        Level::DEBUG => 2,
        _ => 0,
    }
}

impl Levels {
    pub(crate) fn new(options: &Options) -> Self {
        Self(Arc::new(RwLock::new(Chosen {
            verbosity: options.verbosity,
            modules: options.modules.clone(),
        })))
    }

    /// Changes what is written from now on.
    pub fn set(&self, verbosity: u32, modules: Vec<Module>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Chosen { verbosity, modules };
        tracing::callsite::rebuild_interest_cache();
    }

    /// Changes the verbosity alone.
    pub fn set_verbosity(&self, verbosity: u32) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).verbosity = verbosity;
        tracing::callsite::rebuild_interest_cache();
    }

    fn read<T>(&self, read: impl FnOnce(&Chosen) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Chosen {
    fn writes(&self, meta: &Metadata<'_>) -> bool {
        if !meta.target().starts_with("kube_proxy") {
            return *meta.level() == Level::ERROR
                || (self.verbosity >= LIBRARIES && *meta.level() <= Level::DEBUG);
        }
        let name = stem(meta.file().unwrap_or_default());
        let module = self.modules.iter().find(|module| matches(&module.pattern, name));
        let verbosity = module.map_or(self.verbosity, |module| module.verbosity);
        needed(*meta.level()) <= verbosity
    }

    /// The least important level of which anything is written.
    fn least(&self) -> LevelFilter {
        let modules = self.modules.iter().map(|module| module.verbosity);
        match modules.chain([self.verbosity]).max() {
            Some(4..) => LevelFilter::TRACE,
            Some(2..) => LevelFilter::DEBUG,
            _ => LevelFilter::INFO,
        }
    }
}

/// The name by which `vmodule` knows a file.
fn stem(path: &str) -> &str {
    let path = path.strip_suffix("/mod.rs").unwrap_or(path);
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".rs").unwrap_or(name)
}

/// Whether a pattern with `*` and `?` matches a whole name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some(first) = pattern.chars().next() else {
        return name.is_empty();
    };
    let rest = &pattern[first.len_utf8()..];
    let letter = name.chars().next();
    let behind = |letter: char| &name[letter.len_utf8()..];
    match first {
        '*' => matches(rest, name) || letter.is_some_and(|letter| matches(pattern, behind(letter))),
        '?' => letter.is_some_and(|letter| matches(rest, behind(letter))),
        first => letter == Some(first) && matches(rest, behind(first)),
    }
}

impl<S: Subscriber> Layer<S> for Levels {
    fn register_callsite(&self, meta: &'static Metadata<'static>) -> Interest {
        if self.read(|chosen| chosen.writes(meta)) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, meta: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.read(|chosen| chosen.writes(meta))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.read(Chosen::least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_names_of_files() {
        for (pattern, path, expected) in [
            ("report", "kube-proxy/src/proxy/report.rs", true),
            ("proxy", "kube-proxy/src/proxy/mod.rs", true),
            ("proxy", "kube-proxy/src/proxy/report.rs", false),
            ("rep*", "kube-proxy/src/proxy/report.rs", true),
            ("*", "kube-proxy/src/main.rs", true),
            ("m?in", "kube-proxy/src/main.rs", true),
            ("m?n", "kube-proxy/src/main.rs", false),
            ("*a*n", "main.rs", true),
            ("", "main.rs", false),
        ] {
            assert_eq!(matches(pattern, stem(path)), expected, "{pattern} {path}");
        }
    }
}
