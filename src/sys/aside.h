/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A context that may not sleep steps aside, so that others run on its CPU, and comes back.
 *
 * For one that makes no further step of its own: whatever it or what it came upon has half done stays so, locks
 * it holds stay locked meanwhile, and the task that it came upon goes on only as far as this context does.
 */
#ifndef NVHV_ASIDE_H
#define NVHV_ASIDE_H

#include <linux/types.h>

struct file;
struct ftrace_regs;
struct pt_regs;
struct task_struct;

/* Where the current context stands. */
struct nvhv_footing {
	/* It holds no spinlock and is no interrupt: only disabled interrupts may keep it from sleeping. */
	bool solid;
	/* Nothing below it on this stack belongs to the scheduler or to timers, so it can step aside. */
	bool apart;
	/* The hardware has failed: neither this CPU nor memory can be trusted. */
	bool untrusted;
	/* What the innermost interrupt on this stack came upon, if that can go on by itself; see onward.h. */
	struct pt_regs *onward;
};
/* In the handler of a watched function's entry, ENTERED are its registers, and the function's caller is looked at. */
void nvhv_look_down(struct nvhv_footing *footing, struct ftrace_regs *entered);

/*
 * Calls wait(), which sleeps with nvhv_aside_pause(), on a stack apart, with interrupts on, and restores all that
 * other interrupts on this CPU may have used meanwhile. One at a time in the life of the kernel.
 */
void nvhv_step_aside(void (*wait)(void));
/* Sleeps for about a millisecond. The idle task, which cannot, lets others run. */
void nvhv_aside_pause(void);

/* Before all others, in process context. late() belongs to the deadline. */
void nvhv_aside_setup(bool (*late)(void));
/*
 * An interrupt of this CPU's timer comes after ns nanoseconds, also if this is one. It panics if late() says so,
 * with the text that was noted.
 */
void nvhv_deadline_start(u64 ns);
void nvhv_deadline_cancel(void);
typedef __builtin_va_list nvhv_va_list;
/* Notes what a panic says, and the stack of its context. */
void nvhv_panic_note(const char *format, nvhv_va_list *arguments);
/* Shows the stack and panics with the text that were noted. */
void nvhv_panic_as_noted(void);

/* Whether a task runs at this moment. */
bool nvhv_task_on_cpu(struct task_struct *task);
/* For a vCPU's file, while a task that makes no step any more is in KVM_RUN: whether its state is whole nevertheless. */
bool nvhv_vcpu_is_whole(struct file *file);
/* Whether its guest may end an interrupt by a bit in its memory, at *gpa, and KVM has yet to look whether it has. */
bool nvhv_vcpu_eoi_allowed(struct file *file, u64 *gpa);
/* Takes such a vCPU from the task, which is not on a CPU, so that others can use the file. */
bool nvhv_vcpu_take(struct file *file);

#endif
