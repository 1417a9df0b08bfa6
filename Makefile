# The commands that README names. Each installs what it needs.

CARGO ?= cargo
# Programs that tests and the demo start, and Debian's packages that hold them.
PROGRAMS = cc=gcc ip=iproute2 nft=nftables iptables-nft=iptables iptables-legacy=iptables curl=curl setpriv=util-linux

.PHONY: demo test lint deny bench kernel build packages

# The main job, live: two nodes, a Service, real requests. KEEP=1 leaves the lab up.
demo: build
	target/release/lab demo --kube-proxy target/release/kube-proxy $(if $(KEEP),--keep)

# Everything that can fail: unit, property, API and packet tests. Needs root (network namespaces).
test: packages
	tools/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Licences, bans and sources of the dependencies.
deny: packages
	tools/deny

# The figures of docs/performance.md. MODE=iptables or iptables-legacy measures those modes, and AGAINST=PATH another
# kube-proxy beside ours.
bench: build
	$(CARGO) build --locked --release -p kube-proxy --example dataplane_cost
	target/release/lab bench programming --kube-proxy target/release/kube-proxy \
		$(if $(MODE),--mode $(MODE)) $(if $(AGAINST),--against $(AGAINST))

# What `lab kernel` needs to run something on Debian's kernel, in a machine that QEMU emulates.
kernel:
	@tools/packages qemu-system-x86_64=qemu-system-x86 modprobe=kmod
	tools/kernel

build: packages
	$(CARGO) build --locked --release --workspace

packages:
	@tools/packages $(PROGRAMS)
