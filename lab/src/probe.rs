//! Real requests and what became of them.
