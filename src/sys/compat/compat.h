/* SPDX-License-Identifier: GPL-2.0 */
/* What differs between the kernels that the module is built for, in C; see mod.rs. */
#ifndef NVHV_COMPAT_H
#define NVHV_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
#include <linux/hrtimer_bases.h>
#else
#include <linux/hrtimer_defs.h>

#include "before_7_3.h"
#endif

/* When KVM on AMD has taken the interrupt that made a guest exit, CR3 is the guest's already. */
#define NVHV_KVM_HAS_CR3_EARLY (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0))

#endif
