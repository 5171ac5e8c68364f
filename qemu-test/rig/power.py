# SPDX-License-Identifier: GPL-2.0
"""The ways in which a host is told that its power is failing, by name."""

import time

from .check import check

TRIGGERS = ("now", "sysfs", "nmi", "button")
PARAMETERS = "power_nmi=1 power_button=1"


def listen(host):
    """Loads the module anew, so that all triggers count, now and after each boot."""
    host.unload_module()
    host.module_parameters = PARAMETERS
    host.load_module()


def tell(host, trigger):
    if trigger == "now":
        host.run("nvhv seal --now")
    elif trigger == "sysfs":
        host.run("echo 1 >/sys/module/nvhv/power_failing")
    elif trigger == "nmi":
        host.machine.tell("inject-nmi")
    elif trigger == "button":
        host.run("modprobe button")
        host.machine.tell("system_powerdown")


def fail(host, trigger):
    """Power is said to fail, and is gone when the kernel has said which VMs are sealed."""
    host.note_log()
    tell(host, trigger)
    deadline = time.monotonic() + 30
    while "nvhv: power failing (" not in host.kernel_log():
        check(time.monotonic() < deadline, f"after {trigger} nothing says that power fails: {host.kernel_log()[-2000:]}")
        time.sleep(0.005)
    host.power_cut()
