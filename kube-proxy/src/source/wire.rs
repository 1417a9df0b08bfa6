//! The fields of the Kubernetes API that we use, as they travel. One struct serves protobuf (prost, unknown
//! fields skipped) and JSON or YAML (serde, unknown fields skipped); nil and unset stay `None`.
