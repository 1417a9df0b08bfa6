//! Messages of the kernel.

#![cfg_attr(feature = "libfuzzer", no_main)]

kube_proxy_fuzz::target!(kube_proxy::fuzzing::netlink);
