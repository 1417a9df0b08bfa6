# The commands that README names. Each installs what it needs.

CARGO ?= cargo
# Programs that the demo and the tests start, and Debian's packages that hold them.
PROGRAMS = cc=gcc ip=iproute2 nft=nftables iptables-nft=iptables iptables-legacy=iptables curl=curl setpriv=util-linux
# Those that the tests start besides, most of them in guests with another kernel.
TEST_PROGRAMS = qemu-system-x86_64=qemu-system-x86 modprobe=kmod ipvsadm=ipvsadm ipset=ipset

.PHONY: demo test lint deny fuzz bench manifests image build packages

# The main job, live: two nodes, a Service, real requests. KEEP=1 leaves the lab up.
demo: build
	target/release/lab demo --kube-proxy target/release/kube-proxy $(if $(KEEP),--keep)

# Everything that can fail: unit, property, API and packet tests. Needs root (network namespaces).
test: packages
	@tools/packages $(TEST_PROGRAMS)
	tools/kernel
	tools/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Licences, bans and sources of the dependencies.
deny: packages
	tools/deny

# Ever new bytes for whatever reads bytes from outside, SECONDS for each target. What is found is in target/fuzz/found.
fuzz: packages
	@tools/packages c++=g++
	tools/fuzz $(or $(SECONDS),60)

# The figures of docs/performance.md. MODE=iptables or iptables-legacy measures those modes, and AGAINST=PATH another
# kube-proxy beside ours.
bench: build
	$(CARGO) build --locked --release -p kube-proxy --example dataplane_cost
	target/release/lab bench programming --kube-proxy target/release/kube-proxy \
		$(if $(MODE),--mode $(MODE)) $(if $(AGAINST),--against $(AGAINST))

# What is in deploy/, as far as it can be checked without a cluster.
manifests: build
	tools/manifests target/release/kube-proxy

# The images of deploy/Containerfile, as archives in target/image, and proof that they work. Needs root.
image: build
	@tools/packages buildah=buildah readelf=binutils
	tools/image target/release/kube-proxy target/release/lab

# kube-proxy is linked statically, so that the program in a container is the one that was tested and measured. Only the
# last step is told so: a flag for everything would forbid the macros that run inside the compiler.
build: packages
	$(CARGO) build --locked --release -p lab
	$(CARGO) rustc --locked --release -p kube-proxy --bin kube-proxy -- -C target-feature=+crt-static

packages:
	@tools/packages $(PROGRAMS)
