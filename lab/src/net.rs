//! Nodes, pods and outside clients as network namespaces with veths and routes.
