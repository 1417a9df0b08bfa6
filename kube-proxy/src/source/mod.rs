//! Where Services, EndpointSlices and this Node come from. The only folder that knows the Kubernetes API.
//!
//! A source sends [`Change`](crate::model::change::Change)s into a channel, in order, and says nothing else to
//! the model. [`wire`] holds the API's objects as they travel (protobuf and JSON), [`convert`] turns them into
//! the model's.

pub mod api;
pub mod convert;
pub mod manifests;
pub mod wire;
