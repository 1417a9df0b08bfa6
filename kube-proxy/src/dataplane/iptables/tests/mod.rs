//! The plan against whole printed rulesets, and the programs in network namespaces.
