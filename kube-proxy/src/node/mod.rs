//! Facts about this node that the kernel knows: names, addresses.
