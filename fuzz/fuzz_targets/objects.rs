//! Watch events, lists and objects of an API server.

#![cfg_attr(feature = "libfuzzer", no_main)]

kube_proxy_fuzz::target!(kube_proxy::fuzzing::objects);
