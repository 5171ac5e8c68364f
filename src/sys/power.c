// SPDX-License-Identifier: GPL-2.0
/* What tells that the host's power is failing; see power.h. */
#include <linux/input.h>
#include <linux/irq_work.h>
#include <linux/kstrtox.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>
#include <asm/nmi.h>

#include "power.h"

static void (*power_failing)(const char *why, u64 since);
static const char *reason;
static u64 told_ns;

/* Triggers that have other uses. Here, as the kernel crate knows no parameter that is yes or no before 7.3. */
static bool with_nmi, with_button;
module_param_named(power_nmi, with_nmi, bool, 0);
MODULE_PARM_DESC(power_nmi, "Power fails on an NMI that nobody else explains");
module_param_named(power_button, with_button, bool, 0);
MODULE_PARM_DESC(power_button, "Power fails on a power button");

static void work_to_do(struct work_struct *unused) { power_failing(READ_ONCE(reason), READ_ONCE(told_ns)); }
static DECLARE_WORK(work, work_to_do);

static void out_of_nmi(struct irq_work *unused) { queue_work(system_highpri_wq, &work); }
static DEFINE_IRQ_WORK(soon, out_of_nmi);

/* In any context. */
static void tell(const char *why)
{
	WRITE_ONCE(reason, why);
	WRITE_ONCE(told_ns, ktime_get_mono_fast_ns());
	irq_work_queue(&soon);
}

/* Nobody tells any more: what was told is done with. */
static void finish_told(void)
{
	irq_work_sync(&soon);
	cancel_work_sync(&work);
}

/* An NMI that nobody explains. */

static int unexplained(unsigned int type, struct pt_regs *regs)
{
	tell("NMI");
	return NMI_HANDLED;
}

/* The power button, an input device. */

static void event(struct input_handle *handle, unsigned int type, unsigned int code, int value)
{
	if (type == EV_KEY && code == KEY_POWER && value == 1)
		tell("power button");
}

static int connect(struct input_handler *handler, struct input_dev *device, const struct input_device_id *id)
{
	struct input_handle *handle = kzalloc(sizeof(*handle), GFP_KERNEL);
	int ret;

	if (!handle)
		return -ENOMEM;
	handle->dev = device;
	handle->handler = handler;
	handle->name = "nvhv";
	ret = input_register_handle(handle);
	if (ret)
		goto free;
	ret = input_open_device(handle);
	if (ret)
		goto unregister;
	return 0;

unregister:
	input_unregister_handle(handle);
free:
	kfree(handle);
	return ret;
}

static void disconnect(struct input_handle *handle)
{
	input_close_device(handle);
	input_unregister_handle(handle);
	kfree(handle);
}

static const struct input_device_id buttons[] = {
	{
		.flags = INPUT_DEVICE_ID_MATCH_EVBIT | INPUT_DEVICE_ID_MATCH_KEYBIT,
		.evbit = { BIT_MASK(EV_KEY) },
		.keybit = { [BIT_WORD(KEY_POWER)] = BIT_MASK(KEY_POWER) },
	},
	{}
};

static struct input_handler handler = {
	.event = event,
	.connect = connect,
	.disconnect = disconnect,
	.name = "nvhv",
	.id_table = buttons,
};

/* The file in sysfs. */

static ssize_t written(const struct module_attribute *attribute, struct module_kobject *module, const char *text,
		       size_t size)
{
	bool yes;
	int ret = kstrtobool(text, &yes);

	if (ret)
		return ret;
	if (!yes)
		return -EINVAL;
	power_failing("sysfs", ktime_get_mono_fast_ns());
	return size;
}

static struct module_attribute file = __ATTR(power_failing, 0200, NULL, written);

int nvhv_power_start(struct module *module, void (*failing)(const char *why, u64 since))
{
	int ret;

	power_failing = failing;
	ret = sysfs_create_file(&module->mkobj.kobj, &file.attr);
	if (ret)
		return ret;
	if (with_nmi) {
		ret = register_nmi_handler(NMI_UNKNOWN, unexplained, 0, "nvhv");
		if (ret)
			goto no_nmi;
	}
	if (with_button) {
		ret = input_register_handler(&handler);
		if (ret)
			goto no_button;
	}
	return 0;

no_button:
	if (with_nmi)
		unregister_nmi_handler(NMI_UNKNOWN, "nvhv");
no_nmi:
	sysfs_remove_file(&module->mkobj.kobj, &file.attr);
	finish_told();
	return ret;
}

void nvhv_power_stop(struct module *module)
{
	if (with_button)
		input_unregister_handler(&handler);
	if (with_nmi)
		unregister_nmi_handler(NMI_UNKNOWN, "nvhv");
	sysfs_remove_file(&module->mkobj.kobj, &file.attr);
	finish_told();
}
