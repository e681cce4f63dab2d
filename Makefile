# `make test` needs nothing installed but Rust and a C compiler: as root on Debian or Ubuntu it installs what is missing.

CARGO ?= cargo

.PHONY: build test services check fmt bench run-demo

build:
	$(CARGO) build --release --locked

# Everything, on private services: nothing may be skipped.
test:
	JITAUTH_TEST_REQUIRE=1 scripts/services run -- $(CARGO) test --locked --no-fail-fast

# Private PostgreSQL, Redis and RabbitMQ for trying things, until Ctrl-C.
services:
	@scripts/services up --foreground

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items

fmt:
	$(CARGO) fmt

# On private services, so that the lane is measured on PostgreSQL too.
bench:
	scripts/services run -- $(CARGO) bench --locked

run-demo:
	$(CARGO) run --locked --release -- demo
