//! Real TCP and UDP servers for pods, which answer with their name and the source address they saw.
