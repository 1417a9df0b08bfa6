//! `lab bench`: figures, seen from outside through packets.
