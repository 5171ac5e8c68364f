# SPDX-License-Identifier: GPL-2.0
"""What every QEMU of the rig is told, whatever machine it plays, and the devices it is given."""


def command(vm, machine, bus, *options):
    """The argument vector. MACHINE is what `-machine` says but for the irqchip; BUS is how its virtio
    devices are reached: `pci`, or `device` for virtio-mmio."""
    return [
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-accel", vm.extra.get("accel", "kvm"), "-cpu", vm.cpu,
        "-machine", vm.extra.get("machine", f"{machine},kernel-irqchip={vm.irqchip}"),
        "-smp", str(vm.cpus), "-m", str(vm.memory),
        "-kernel", vm.kernel, "-initrd", vm.initrd, "-append", vm.cmdline,
        "-chardev", f"file,id=console,path={vm.console},append=on", "-serial", "chardev:console",
        "-chardev", f"file,id=report,path={vm.report},append=on",
        "-device", "isa-debugcon,iobase=0xe9,chardev=report",
        "-qmp", f"unix:/tmp/{vm.name}.qmp,server=on,wait=off",
        *options,
        *virtio(vm.devices, bus),
        *vm.extra.get("options", []),
    ]


def virtio(devices, bus):
    """The virtio devices of a VM, each with its back end in the host."""
    if devices.disk and devices.bus == "pmem":
        yield from ("-object", f"memory-backend-file,id=pmem,share=on,mem-path={devices.disk_path},size={devices.disk}",
                    "-device", f"virtio-pmem-{bus},memdev=pmem{devices.disk_options}")
    elif devices.disk:
        queues = f"num{'-' if devices.bus == 'blk' else '_'}queues={devices.queues}"
        model = f"virtio-blk-{bus},drive=disk,{queues}{devices.disk_options}"
        if devices.bus == "scsi":
            model = f"scsi-hd,drive=disk{devices.disk_options}"
            yield from ("-device", f"virtio-scsi-{bus},{queues}")
        yield from ("-drive", f"if=none,id=disk,file={devices.disk_path},format=raw,cache={devices.cache}", "-device", model)
    if devices.net:
        pairs = devices.net_queues
        more = f",mq=on,vectors={2 * pairs + 2}" if pairs > 1 and bus == "pci" else ",mq=on" if pairs > 1 else ""
        rom = ",romfile=" if bus == "pci" else ""  # no PXE: the kernel is given
        yield from ("-netdev", f"tap,id=net,ifname={devices.tap},script=no,downscript=no"
                    f",vhost={'on' if devices.net == 'vhost' else 'off'}" + (f",queues={pairs}" if pairs > 1 else ""),
                    "-device", f"virtio-net-{bus},netdev=net,mac={devices.mac}{rom}{more}")
    if devices.console:
        yield from ("-chardev", f"socket,id=hvc,path={devices.socket},server=on,wait=off",
                    "-device", f"virtio-serial-{bus}", "-device", "virtconsole,chardev=hvc")
    if devices.balloon is not None:
        yield from ("-device", f"virtio-balloon-{bus}{devices.balloon}")
    if devices.vsock:
        yield from ("-device", f"vhost-vsock-{bus},guest-cid={devices.cid}")
    if devices.rng:
        yield from ("-object", "rng-random,id=entropy,filename=/dev/urandom",
                    "-device", f"virtio-rng-{bus},rng=entropy")
