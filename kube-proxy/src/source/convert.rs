//! From the wire to the model: parses addresses, ports and times, and reports each field that it cannot
//! parse, by object and field path; a bad entry affects only itself.
