//! The ledger: desired state as keyed entries with owners.
