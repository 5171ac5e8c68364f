# SPDX-License-Identifier: GPL-2.0
"""Arguments that make no sense: an errno each, nothing placed, and the VM is none the worse."""

from rig.check import check
from vmm import tiny
from vmm.tiny import check_goes_on, live

HOST = "shared"
HARDWARE = {"cpus": 2}
NEEDS = tiny.NEEDS


def run(t):
    host = t.boot()
    plain = live(host, "plain", "count", "--die", "count:3")
    one = live(host, "rubbish", "rubbish", "--die", "count:6")
    two = live(host, "rubbish", "rubbish", "--die", "count:6")
    # KVM looks at no memory before the guest does; this VMM deletes that slot again.
    accepted = [words for life in (one, two) for when in ("new", "live") for words in life.of(when)
                if words[-1] == "0" and (when, words[0]) != ("new", "null")]
    check(not accepted, f"taken for sense: {accepted}")
    images = host.images()
    check(images["rubbish"]["pool_bytes"] == images["plain"]["pool_bytes"], f"memory was placed for nothing: {images}")
    check_goes_on(one, two, live(host, "rubbish", "count", "--stop", "count:3", status=0))
    live(host, "plain", "count", "--stop", "count:3", status=0)

    # RAM that cannot be kept, and a device of the host, are refused at the first KVM_RUN, and stays refused.
    host.run("truncate -s 1M /share/ram")
    for ram in ("null", "shared", "awaited", "file", "none"):
        life = live(host, "unkept", "unkept", "--ram", ram)
        check(life.of("run") == [["EOPNOTSUPP"]] * 2, life.text)
        check(host.images() == {}, f"{ram}: something was kept")
