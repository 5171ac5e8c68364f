/* SPDX-License-Identifier: GPL-2.0 */
/* What an interrupt came upon goes on, although the interrupt itself never ends. */
#ifndef NVHV_ONWARD_H
#define NVHV_ONWARD_H

#include <linux/types.h>

struct pt_regs;

/* Whether this symbol is an entry through which the kernel comes to what was not caused by what it did. */
bool nvhv_is_interrupt(const char *entry);
bool nvhv_is_nmi(const char *entry);

/* What the innermost interrupt or NMI on the current stack came upon. */
struct nvhv_upon {
	struct pt_regs *regs;
	bool by_nmi;
	/* What the next interrupt below came upon, or NULL. */
	struct pt_regs *below;
	/* How much of the preemption count is no lock of the interrupt's, but of the report that it makes. */
	unsigned int counted;
};

/* Whether it can go on. */
bool nvhv_onward_possible(const struct nvhv_upon *upon);

/*
 * The same of an NMI that holds no lock, upon what should not be left as it is: it may have interrupts disabled, and is about
 * to let go of a lock, or to finish what KVM does for a vCPU. may_wait: for a lock, too, as somebody else has that.
 */
bool nvhv_onward_past_lock(struct pt_regs *regs, bool may_wait);

/*
 * Gives up the current context and has that go on, with the thread of this CPU woken; see cpus.h. Does not return.
 */
void nvhv_go_onward(struct pt_regs *regs);

#endif
