// SPDX-License-Identifier: GPL-2.0
/*
 * Virtio-mmio devices that a VMM tells a guest of on the kernel's command line:
 *
 *	virtio_mmio.device=SIZE@BASE:IRQ[:ID]
 *
 * (Documentation/admin-guide/kernel-parameters.txt). The stock kernel has the driver, virtio_mmio, but
 * not what reads these words (CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES). This module takes them as its own
 * parameter, device=..., and registers for each the platform device that the driver binds to.
 */

#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#define MOST 32

static struct platform_device *devices[MOST];
static int count;

static int add(const char *text, const struct kernel_param *param)
{
	struct resource resources[2] = {};
	unsigned long long base, size;
	struct platform_device *device;
	unsigned int irq;
	char *rest;
	int id = count;

	size = memparse(text, &rest);
	if (!size || sscanf(rest, "@%lli:%u:%d", &base, &irq, &id) < 2)
		return -EINVAL;
	if (count == MOST)
		return -ENOSPC;
	resources[0] = (struct resource)DEFINE_RES_MEM(base, size);
	resources[1] = (struct resource)DEFINE_RES_IRQ(irq);
	device = platform_device_register_resndata(NULL, "virtio-mmio", id, resources,
						   ARRAY_SIZE(resources), NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	devices[count++] = device;
	return 0;
}

static const struct kernel_param_ops ops = { .set = add };

module_param_cb(device, &ops, NULL, 0);
MODULE_PARM_DESC(device, "SIZE@BASE:IRQ[:ID], as often as there are devices");

static int __init line_init(void)
{
	return 0;
}

static void __exit line_exit(void)
{
	while (count)
		platform_device_unregister(devices[--count]);
}

module_init(line_init);
module_exit(line_exit);
MODULE_DESCRIPTION("Virtio-mmio devices of the kernel's command line");
MODULE_LICENSE("GPL");
