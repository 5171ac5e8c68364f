# SPDX-License-Identifier: GPL-2.0
# Every target does the set-up it needs and reuses what is there; `make help` lists them.
#
#   KERNEL=VERSION   build for this stock kernel instead of the newest of trixie-backports
#   FLAVOUR=amd64    or cloud-amd64
#   KDIR=DIRECTORY   build for any kernel build directory with Rust metadata
#   BUILD=DIRECTORY  put everything that is made there instead of in build/
#   SCENARIOS=...    the scenarios that `make test-vm` runs, instead of all

export KERNEL FLAVOUR KDIR BUILD MIRROR DESTDIR
ROOT = $(or $(BUILD),$(CURDIR)/build)/root
SHELL := /bin/bash
.PHONY: all module tools matrix vmms install deb demo test test-host test-vm test-rig test-dkms bench figures check-env fmt lint clean help
.DEFAULT_GOAL := all

all: module tools		## build/nvhv.ko and build/nvhv

module:				## the kernel module
	@scripts/build-module

tools:				## the nvhv command
	@scripts/build-tools

matrix:				## the module for each stock kernel that it is meant for
	@scripts/build-matrix

vmms:				## VMMs of others that scenarios run unmodified
	@scripts/build-alioth
	@scripts/build-libkrun

install:			## the command, its units and the module, on this machine or below DESTDIR
	@scripts/install

deb: all			## packages in build/deb
	@scripts/build-deb

demo: all			## watch a Redis guest outlive a power cut
	@qemu-test/demo

test: test-host test-vm		## all tests

test-host:			## tests of the pure rooms and of the documents, on this machine
	@scripts/cargo test --workspace --locked
	@scripts/check-docs

test-vm: all vmms deb		## boot hosts under test and run the scenarios
	@scripts/build-test-module crash >/dev/null
	@scripts/build-next-deb >/dev/null
	@$(if $(if $(SCENARIOS),$(filter kernel-%,$(SCENARIOS)),all),scripts/build-matrix || true) # if not, kernel-matrix fails
	@qemu-test/run $(SCENARIOS)

test-rig:			## tests of the rig itself
	@qemu-test/self-test

test-dkms: deb			## have DKMS build the module on a copy of the build root
	@scripts/test-dkms

bench: all			## measure; prints a table and writes build/bench.json
	@qemu-test/bench

figures:			## draw the pictures of the documents
	@scripts/figures

check-env:			## say what this machine lacks
	@scripts/check-env

fmt:				## format all Rust sources
	@scripts/cargo fmt --all
	@IN=tests/guest scripts/cargo fmt --all
	@IN=tests/libkrun-vmm scripts/cargo fmt --all
	@scripts/in-root $(ROOT) rustfmt --edition 2021 $(CURDIR)/src/nvhv.rs

lint:				## formatting and clippy
	@scripts/cargo fmt --all --check
	@scripts/cargo clippy --workspace --all-targets --locked -- -D warnings
	@IN=tests/guest scripts/cargo fmt --all --check
	@IN=tests/libkrun-vmm scripts/cargo fmt --all --check
	@IN=tests/guest scripts/cargo clippy --locked -- -D warnings
	@scripts/in-root $(ROOT) rustfmt --edition 2021 --check $(CURDIR)/src/nvhv.rs

clean:				## remove what was built; the roots stay (rm -rf build removes all)
	@rm -rf $(or $(BUILD),build)/{module,matrix,crash,guest-line,target,target-guest,target-libkrun,qemu-test,nvhv.ko,nvhv,tiny-vmm,alioth,alioth.recipe,libkrun-vmm,bench.json}

help:				## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14
