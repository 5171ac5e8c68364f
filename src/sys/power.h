/* SPDX-License-Identifier: GPL-2.0 */
/* What tells that the host's power is failing. */
#ifndef NVHV_POWER_H
#define NVHV_POWER_H

#include <linux/types.h>

struct module;

/*
 * From now on failing() is called, in process context, on a write of 1 to power_failing in the module's directory of
 * sysfs; with the module's parameter power_nmi, on an NMI that nobody else explains; with power_button, when a power
 * button is pressed. Another word before it has returned is lost. since is when the word came, in ns of
 * ktime_get_mono_fast_ns().
 */
int nvhv_power_start(struct module *module, void (*failing)(const char *why, u64 since));
void nvhv_power_stop(struct module *module);

#endif
