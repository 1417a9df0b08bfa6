//! The in-process Kubernetes API: lists, watches and streaming lists over HTTPS, with faults on demand.
