# SPDX-License-Identifier: GPL-2.0
"""A pool on the persistent memory of a CXL device: a VM goes on after power cuts, and is refused once the device says that it
lost something. QEMU's device does not count that; files of ours say it in its place. The host's NVDIMM stays empty."""

from rig.check import check

POOL = False
NEEDS = ["nvhv.ko", "bin/nvhv"]
HARDWARE = {"cxl": "512M"}
LIMIT = 500
# Linux makes no region of persistent memory by itself. What is in it, namespaces among it, is found again.
REGION = ("modprobe -a cxl_acpi cxl_pci cxl_mem cxl_pmem && cxl create-region -m -d decoder0.0 -t pmem mem0"
          " && cat /sys/bus/nd/devices/ndbus1/wait_probe")
SAYS = "/sys/bus/nd/devices/nmem1/cxl"


def says(count):
    """The device has counted so many shutdowns at which it lost something."""
    return f"mkdir -p /tmp/cxl && cp {SAYS}/id /tmp/cxl && echo {count} >/tmp/cxl/dirty_shutdown && mount --bind /tmp/cxl {SAYS}"


def cut(host, vm, count):
    host.run(["nvhv", "seal", vm.name])
    host.power_cut()
    host.before_module = f"{REGION} && {says(count)}"
    host.boot()


def run(t):
    host = t.boot()
    host.run(REGION, 60)
    host.run("ndctl create-namespace -f -r region1 -m devdax -M mem --align=2M", 60)
    host.run("nvhv format /dev/dax1.0", 240)
    host.before_module = says(4)
    host.has_pool = True
    host.load_module()
    check("dax1.0: 506 MiB for 64 VMs, persistence domain memory_controller" in host.kernel_log(), "its persistence domain is another")
    device = host.nvhv_json("list")["pool"]["device"]
    check(device == "dax1.0", f"the pool is on {device}")
    vm = host.start_vm("kept", work="mem", append="size=32")
    vm.wait_ticks(5)
    cut(host, vm, 4)
    host.start_vm_again(vm)
    vm.expect_continued()
    host.through(vm, "kill")

    cut(host, vm, 5)
    check(host.images()["kept"]["unsaved"], f"it is not marked: {host.images()}")
    check("1 counts 5 dirty shutdowns, and 4 when it was sealed" in host.console.text(host.outage_from), "nothing says why")
    host.start_vm_again(vm)
    vm.expect_refused("kept", "unsaved")
