/* SPDX-License-Identifier: GPL-2.0 */
/* What the module uses of the kernel beyond the `kernel` crate. */
#include <linux/kconfig.h>
#ifdef CONFIG_PREEMPT_RT
#error "spinlocks that sleep are not provided for: build for a kernel without PREEMPT_RT"
#endif

#include <linux/anon_inodes.h>
#include <linux/crc32c.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/fprobe.h>
#include <linux/fs.h>
#include <linux/ftrace.h>
#include <linux/kexec.h>
#include <linux/kthread.h>
#include <linux/kvm.h>
#include <linux/libnvdimm.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/notifier.h>
#include <linux/panic.h>
#include <linux/pid.h>
#include <linux/random.h>
#include <linux/reboot.h>
#include <linux/task_work.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>

#include "aside.h"
#include "compat/compat.h"
#include "cpus.h"
#include "helpers.h"
#include "onward.h"
#include "power.h"

#include "../trace/events.h"
