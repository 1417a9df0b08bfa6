//! The model's behaviour, by subject. The cases follow upstream's catalogue of what a kube-proxy must do.

mod choice;
mod conflicts;
mod deliveries;
mod dirty;
mod endpoints;
mod flows;
mod policies;
mod random;
mod service_cidrs;
mod services;
mod slices;
mod topology;
